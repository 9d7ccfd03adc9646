"""`--help` of each program against a Python that does nothing, in processor time: they wait for nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.measuring import Line, by_turns, middle

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
    """Seconds that a processor spends on a Python with this command line."""
    # pip compiles what it installs: modules are read as bytecode, whatever the environment says
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime
