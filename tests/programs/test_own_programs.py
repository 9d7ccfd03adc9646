"""Importing the package registers its tasks, unless one of its own programs does it, which leaves that until later."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import xgpt_fairseq

ROOT = Path(xgpt_fairseq.__file__).resolve().parents[1]
CONSOLE = re.findall(r'"(xgpt-[\w-]+) = ', (ROOT / "setup.py").read_text(encoding="utf-8"))
PREPROCESS = [f"{ROOT}/preprocess/{path.name}" for path in (ROOT / "preprocess").glob("*.py")]


def is_own(monkeypatch: pytest.MonkeyPatch, program: str, *command: str) -> bool:
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setattr(sys, "orig_argv", ["python", *(command or [program])])
    return xgpt_fairseq._runs_own_program()


@pytest.mark.parametrize("program", [*(f"/usr/bin/{name}" for name in CONSOLE), *PREPROCESS])
def test_own_programs(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_own(monkeypatch, program)


def test_own_programs_by_other_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_own(monkeypatch, "-m", "-m", "xgpt_fairseq.cli.caption")
    monkeypatch.chdir(ROOT / "docs")
    assert is_own(monkeypatch, "../preprocess/prepare_text.py")
    (tmp_path / "linked").symlink_to(ROOT)
    assert is_own(monkeypatch, f"{tmp_path}/linked/preprocess/prepare_text.py")


@pytest.mark.parametrize(
    "program",
    ["", "-c", "preprocess/prepare_text.py", "preprocess/x.py", "xgpt-caption.py", "xgpt-mine", "xgpt-caption/x.py"],
)
def test_programs_of_users(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_own(monkeypatch, program)
    if program in ("", "-c"):
        (tmp_path / "xgpt-caption").mkdir()
        for folder in (ROOT / "preprocess", tmp_path / "xgpt-caption"):
            monkeypatch.chdir(folder)
            assert not is_own(monkeypatch, program)


def test_a_users_script_finds_the_tasks(tmp_path: Path) -> None:
    script = tmp_path / "preprocess" / "prepare_text.py"
    script.parent.mkdir()
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport xgpt_fairseq\n"
        "from fairseq.tasks import TASK_REGISTRY\nassert 'xgpt_caption' in TASK_REGISTRY\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
