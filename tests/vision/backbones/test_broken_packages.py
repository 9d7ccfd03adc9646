"""Packages that are installed, but raise when they are imported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones import broken_packages
from xgpt_fairseq.vision.backbones.broken_packages import hide_broken, why_broken
from xgpt_fairseq.vision.backbones.registry import load_backbone


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package as PyPI's torchvision is beside torch for CPUs."""
    (tmp_path / "built_for_cuda.py").write_text("raise RuntimeError('operator built_for_cuda::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "built_for_cuda", raising=False)
    return "built_for_cuda"


def test_a_broken_package_counts_as_not_installed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_broken(broken) == "RuntimeError: operator built_for_cuda::nms does not exist"
    assert importlib.util.find_spec(broken) is not None
    monkeypatch.setitem(sys.modules, broken, None)  # put back afterwards
    del sys.modules[broken]
    hide_broken(broken, "json", "not_installed_at_all")
    assert importlib.util.find_spec(broken) is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(broken)
    assert why_broken("json") == why_broken("not_installed_at_all") == ""


@pytest.mark.parametrize("name", ["timm:resnet50", "torchvision:resnet50"])
def test_what_to_install_instead(name: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken_packages, "why_broken", lambda package: why_broken(broken))
    monkeypatch.setitem(sys.modules, name.partition(":")[0], None)
    message = r"not for this torch \(RuntimeError: operator .*\); for a CPU: pip install torchvision --index-url https"
    with pytest.raises(DataError, match=message):
        load_backbone(name)
