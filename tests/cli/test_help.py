"""Programs answer `--help` and misspelt options before they import what takes seconds, however they are started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from xgpt_fairseq import bundle
from xgpt_fairseq.cli import export
from xgpt_fairseq.models.architectures import STRUCTURES
from xgpt_fairseq.models.xgpt import SHARING_LAYERS

ROOT = Path(__file__).resolve().parents[2]
# program → module
PROGRAMS = dict(re.findall(r'"(xgpt-[\w-]+) = ([\w.]+):main"', (ROOT / "setup.py").read_text(encoding="utf-8")))
SCRIPTS = sorted((ROOT / "preprocess").glob("*.py"))
# libraries that a program imports when it works
HEAVY = {
    "fairseq", "hydra", "jinja2", "matplotlib", "numpy", "omegaconf", "PIL", "pyarrow", "pycocoevalcap", "sacremoses",
    "sentencepiece", "subword_nmt", "torch", "tqdm", "transformers",
}  # fmt: skip
IMPORTED = re.compile(r"^import time: .*\| +([\w.]+)$", re.MULTILINE)


def start(*command: object) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A fresh Python with this command line: how it ended, and the top-level modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    return done, {name.split(".")[0] for name in IMPORTED.findall(done.stderr)}


def check_help(*command: object) -> None:
    done, imported = start(*command, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
    assert "argparse" in imported and imported.isdisjoint(HEAVY), imported & HEAVY


def test_all_programs_are_looked_at() -> None:
    assert len(PROGRAMS) >= 18 and len(SCRIPTS) >= 6
    mains = {path.stem for path in (ROOT / "xgpt_fairseq" / "cli").glob("*.py") if "def main(" in path.read_text()}
    assert {f"xgpt_fairseq.cli.{name}" for name in mains} == set(PROGRAMS.values())


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_a_console_program(program: str, tmp_path: Path) -> None:
    # as pip writes it
    script = tmp_path / program
    script.write_text(f"import sys\nfrom {PROGRAMS[program]} import main\nsys.exit(main())\n")
    check_help(script)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_a_module(program: str) -> None:
    check_help("-m", PROGRAMS[program])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_of_a_script_of_the_checkout(script: Path) -> None:
    check_help(script)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_misspelt_option(program: str) -> None:
    done, imported = start("-m", PROGRAMS[program], "--misspelt")
    assert done.returncode == 2 and " error: " in done.stderr
    assert imported.isdisjoint(HEAVY), imported & HEAVY


def interrupted_import(folder: Path, library: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The program, in which Ctrl-C comes as it imports *library*."""
    (folder / f"{library}.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", *command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("torch", ["xgpt_fairseq.cli.parameters"]),
        ("torch", ["xgpt_fairseq.cli.caption", "photo.jpg"]),
        ("tqdm", ["xgpt_fairseq.cli.draw_scenes", "--output", "scenes"]),
    ],
)
def test_ctrl_c_while_it_imports(library: str, command: list[str], tmp_path: Path) -> None:
    done = interrupted_import(tmp_path, library, command)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_light_modules_name_what_heavy_ones_have() -> None:
    assert list(export.DTYPES) == list(bundle.DTYPES)
    assert list(STRUCTURES) == list(SHARING_LAYERS)
