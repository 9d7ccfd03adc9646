"""What `make test-matrix` builds, and that it says what it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.matrix import run

ROOT = Path(__file__).resolve().parent.parent.parent


def test_what_setup_py_admits() -> None:
    assert run.admitted((ROOT / "setup.py").read_text(encoding="utf-8")) == ("2.6.0", ["python3.11", "python3.12"])


def test_rows() -> None:
    axes = (["a", "b"], ["v", "f"], ["new", "old"], ["2", "1"])
    found = run.rows(*axes, every=False)
    assert found[0] == ("a", "v", "new", "2") and len(found) == 5
    assert all(sum(x != y for x, y in zip(row, found[0], strict=True)) == 1 for row in found[1:])
    assert {value for row in found for value in row} == {value for axis in axes for value in axis}
    assert len(set(run.rows(*axes, every=True))) == 16


def test_the_tests_are_there() -> None:
    assert all((ROOT / name).is_file() for name in run.TESTS)


def test_what_cannot_be_built_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["run", "--python", "python3.99", "--fairseq", "ve-fairseq", "--torch", "2.6.0", "--numpy", "2"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 1
    said = "python3.99  ve-fairseq     2.6.0    2      not built: there is no python3.99 in PATH; name its path"
    assert said in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_reason_in_what_pip_says() -> None:
    said = "\nWARNING: old\nERROR: Could not find a version that satisfies torch==9\nERROR: No matching distribution\n"
    assert run.reason(said) == "ERROR: Could not find a version that satisfies torch==9"
    assert run.reason("") == "it ended without a word"
