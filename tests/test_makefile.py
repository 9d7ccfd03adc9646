"""What `make install` refuses before it makes an environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.programs import ROOT


def python(path: Path, version: str) -> Path:
    """A Python that says that it is of this *version*, makes an empty environment, and has no pip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = f"import sys; sys.version_info = ({version}, 0, 0, 0)\n"
    path.write_text(
        f"""#!/bin/sh
case "$2" in
venv) mkdir "$3";;
pip) exit 1;;
*) code=$2; shift 2; exec {sys.executable} -c '{before}'"$code" "$@";;
esac
"""
    )
    path.chmod(0o755)
    return path


def install(venv: Path, interpreter: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", "-C", str(ROOT), "install", f"VENV={venv}", f"PYTHON={interpreter}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", ["3, 10", "3, 13"])
def test_a_python_that_is_too_old_or_too_new_makes_no_environment(version: str, tmp_path: Path) -> None:
    interpreter = python(tmp_path / "python3", version)
    done = install(tmp_path / "venv", interpreter)
    said = f"error: {interpreter} is Python {version.replace(', ', '.')}; 3.11 or 3.12 is needed: make install PYTHON="
    assert done.returncode == 2 and done.stderr.startswith(said), done.stderr
    assert not (tmp_path / "venv").exists()


def test_an_environment_of_another_python_is_refused(tmp_path: Path) -> None:
    """As one that an earlier attempt has left: the PYTHON that is given now would not be used."""
    own = python(tmp_path / "venv" / "bin" / "python", "3, 10")
    done = install(tmp_path / "venv", python(tmp_path / "python3", "3, 11"))
    said = f"error: {own} is Python 3.10; 3.11 or 3.12 is needed: remove {tmp_path / 'venv'}, then make install"
    assert done.returncode == 2 and done.stderr.startswith(said), done.stderr


def test_a_python_that_fits_makes_one(tmp_path: Path) -> None:
    done = install(tmp_path / "venv", python(tmp_path / "python3", "3, 11"))
    assert (tmp_path / "venv").is_dir() and "is needed" not in done.stderr  # what follows fails: it is empty
