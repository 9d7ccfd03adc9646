"""`--help` of each program against a Python that does nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.measuring import Line, by_turns, middle, seconds

SETUP = Path(__file__).resolve().parents[2] / "setup.py"


def measure(rounds: int) -> list[Line]:
    modules = dict(re.findall(r'"(xgpt-[\w-]+) = ([\w.]+):main"', SETUP.read_text(encoding="utf-8")))
    commands = [["-c", "pass"], *(["-m", module, "--help"] for module in modules.values())]
    times = by_turns(*(partial(start, command) for command in commands), rounds=rounds)
    return [
        Line(
            f"{program} --help",
            "python -c pass",
            "0.5 s at most",
            [round_[place] / round_[0] for round_ in times],
            f"{middle([r[place] for r in times]):.3f} against {middle([r[0] for r in times]):.3f} s",
        )
        for place, program in enumerate(modules, start=1)
    ]


def start(command: list[str]) -> float:
    """Seconds until a Python with this command line has ended."""
    run = partial(subprocess.run, [sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
    return seconds(run)
