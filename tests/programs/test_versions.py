"""Another fairseq than ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.versions import check_fairseq


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
