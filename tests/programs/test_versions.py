"""Another fairseq than ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.versions import check_fairseq, without_fairseq


@pytest.mark.parametrize("version", ["0.12.3", "0.12.3.1", "1.0.0a0+b5a039c", "unknown"])
def test_versions_that_may_work(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairseq", SimpleNamespace(__version__=version))
    check_fairseq()


def test_the_one_that_is_installed() -> None:
    check_fairseq()


@pytest.mark.parametrize("version", ["0.10.2", "0.9.0"])
def test_too_old(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairseq", SimpleNamespace(__version__=version))
    with pytest.raises(DataError, match=rf"fairseq {version} is installed, and 0.12 is needed: pip uninstall fairseq"):
        check_fairseq()


@pytest.mark.parametrize(
    "text",
    [
        "raise ValueError('mutable default <class CommonConfig> for field common is not allowed')",
        "raise ImportError('cannot import name metrics')",
        "",
    ],
)
def test_one_that_cannot_be_imported(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fairseq.py").write_text(text)
    monkeypatch.delitem(sys.modules, "fairseq", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"fairseq cannot be imported \(.+\): .*ve-fairseq==0.12.3"):
        check_fairseq()
    sys.modules.pop("fairseq", None)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["/bin/fairseq-train"], "import xgpt_fairseq"),
        (["/bin/xgpt-caption", "photo.jpg"], "from xgpt_fairseq.cli.caption import main; main()"),
    ],
    ids=["plugin", "program"],
)
def test_none_is_installed(arguments: list[str], code: str, tmp_path: Path) -> None:
    """As by `pip install` on other platforms, which installs nothing that comes with it either."""
    (tmp_path / "photo.jpg").touch()
    blocked = "sys.modules.update(fairseq=None, hydra=None, omegaconf=None)"
    program = f"import sys; sys.argv = {arguments}; {blocked}; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: fairseq cannot be imported (") and done.stderr.count("\n") == 1
    assert "pip install ve-fairseq==" in done.stderr and "fairseq-fixed (elsewhere)" in done.stderr


def test_other_errors_are_not_fairseq_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fairseq", None)
    assert without_fairseq(ModuleNotFoundError("No module named 'jieba'", name="jieba")) is None
    assert without_fairseq(ValueError("a bug")) is None
    assert without_fairseq(ModuleNotFoundError("No module named 'hydra'", name="hydra")) is not None
