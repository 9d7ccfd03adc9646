"""Backbones of timm, torchvision and transformers, with tiny random weights and no network."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.vision.backbones.tiny import FixedTokens, Returning, import_torchvision, saved
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hashing import tensors_sha256
from xgpt_fairseq.vision.backbones import torchvision_models, transformers_models
from xgpt_fairseq.vision.backbones.base import Backbone, BackboneOptions, Layout, Origin, Preprocessing, find_layout
from xgpt_fairseq.vision.backbones.registry import load_backbone
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import Photo, UnfitPhotoError
from xgpt_fairseq.vision.rebuilding import rebuild


@pytest.fixture
def torchvision() -> None:
    import_torchvision()


def pixels(height: int, width: int) -> Tensor:
    return torch.randint(256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(given: Tensor, backbone: Backbone) -> Tensor:
    """By hand, in float64: values 0 to 1, mean and deviation of each channel."""
    mean = torch.tensor(backbone.preprocessing.mean, dtype=torch.float64) / 255
    std = torch.tensor(backbone.preprocessing.std, dtype=torch.float64) / 255
    return ((given.double() / 255 - mean) / std).permute(0, 3, 1, 2).float()


def grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """tokens (B, H * W, D) → (B, D, H, W), by loops."""
    found = torch.empty(len(tokens), tokens.shape[2], height, width)
    for y in range(height):
        for x in range(width):
            found[:, :, y, x] = tokens[:, y * width + x]
    return found


# transformers


@pytest.mark.parametrize(
    ("name", "stride", "prefix"),
    [
        ("clip", 8, 1), ("siglip", 8, 0), ("dinov2", 8, 1), ("dinov3", 8, 5), ("vit", 8, 1), ("swin", 8, 0),
        ("convnext", 8, 0), ("resnet", 8, 0),
    ],
)  # fmt: skip
def test_transformers(name: str, stride: int, prefix: int, tmp_path: Path) -> None:
    model = saved(name, tmp_path / name)
    backbone = load_backbone(f"transformers:{tmp_path / name}", BackboneOptions(offline=True))
    assert (backbone.name, backbone.stride, backbone.layout.prefix_tokens) == (f"transformers:{name}", stride, prefix)
    assert backbone.preprocessing.interpolation == "bicubic" and backbone.preprocessing.image_size == 32
    assert not backbone.form(None).square
    given = pixels(32, 64)
    with torch.inference_mode():
        found = backbone(given)
        more = {"interpolate_pos_encoding": True} if name in ("clip", "siglip", "vit", "swin") else {}
        expected = model(pixel_values=normalised(given, backbone), **more).last_hidden_state
    if expected.dim() == 3:
        expected = grid(expected[:, prefix:], 32 // stride, 64 // stride)
    assert found.shape == (2, backbone.feature_dim, 32 // stride, 64 // stride)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_layer_of_transformers(tmp_path: Path) -> None:
    model = saved("vit", tmp_path / "vit")
    backbone = load_backbone(f"transformers:{tmp_path / 'vit'}", BackboneOptions(layer="1"))
    given = pixels(32, 32)
    with torch.inference_mode():
        hidden = model(pixel_values=normalised(given, backbone), output_hidden_states=True).hidden_states
        torch.testing.assert_close(backbone(given), grid(hidden[1][:, 1:], 4, 4), atol=1e-4, rtol=1e-4)
    assert backbone.identity["layer"] == "1"
    with pytest.raises(DataError, match="has no layer 7; there are 0 to 2"):
        load_backbone(f"transformers:{tmp_path / 'vit'}", BackboneOptions(layer="7"))


def test_what_is_random_or_of_one_size_for_all_photos(tmp_path: Path) -> None:
    """Their shapes alone look like those of maps: a masked autoencoder keeps a quarter of the patches, at random."""
    saved("vit_mae", tmp_path / "vit_mae")
    with pytest.raises(DataError, match="vit_mae: its output for one photo differs from run to run"):
        load_backbone(f"transformers:{tmp_path / 'vit_mae'}")
    own = Preprocessing((0.0,) * 3, (255.0,) * 3, 32)
    with pytest.raises(DataError, match="queries: an output of shape 1 x 16 x 3 for a photo of 32 x 64 pixels does"):
        Backbone("queries", FixedTokens(), preprocessing=own, origin=Origin(""))
    with pytest.raises(DataError, match="lists: its output is a list, not a feature map; choose another network or"):
        Backbone("lists", Returning([]), preprocessing=own, origin=Origin(""))


def test_models_of_transformers_without_a_usual_output() -> None:
    """As MaskFormer, whose outputs are those of its parts."""
    own = Preprocessing((0.0,) * 3, (255.0,) * 3, 32)
    for layer, message in ((None, "maskformer: its output is nothing, not a"), ("1", "maskformer has no layers that")):
        network = transformers_models._Hidden("maskformer", Returning(object()), layer, interpolate=False)
        with pytest.raises(DataError, match=message):
            Backbone("maskformer", network, preprocessing=own, origin=Origin(""))


def test_a_network_of_one_size_gets_squares(tmp_path: Path) -> None:
    saved("sam_vision_model", tmp_path / "sam")
    extractor = RegionExtractor(backbone=f"transformers:{tmp_path / 'sam'}", grid=2, device="cpu")
    assert extractor.form.square and extractor.settings["square"]
    photo = extractor.load(Image.fromarray(np.zeros((70, 105, 3), dtype=np.uint8)))
    [regions] = extractor.extract([photo])
    assert photo.pixels.shape == (32, 32, 3) and regions.features.shape == (5, 16)
    with pytest.raises(DataError, match="takes photos of 32 pixels alone, not of 64"):
        extractor.backbone.form(64)


def test_a_photo_that_is_too_narrow_for_a_network(tmp_path: Path) -> None:
    saved("swin", tmp_path / "swin")
    extractor = RegionExtractor(backbone=f"transformers:{tmp_path / 'swin'}", grid=2, device="cpu")
    square = extractor.load(Image.fromarray(pixels(64, 64)[0].numpy()))
    [before] = extractor.extract([square])
    message = r"takes no photos of 32 x 16 pixels, as it would see this one \(RuntimeError: "
    with pytest.raises(UnfitPhotoError, match=f"^image: the network {message}"):
        extractor.load(Image.fromarray(np.zeros((50, 100, 3), dtype=np.uint8)))
    with pytest.raises(DataError, match=f"swin: the network {message}"):
        extractor.extract([square, Photo(np.zeros((16, 32, 3), dtype=np.uint8), (100, 50))])
    [after] = extractor.extract([square])
    np.testing.assert_array_equal(after.features, before.features)


@pytest.mark.parametrize("sizes", ["all", "large"])
def test_what_is_no_fault_of_a_photos_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: str) -> None:
    """A network that fails for squares of the photos' size, too, as without memory: its own error comes out."""
    saved("swin", tmp_path / "swin")
    extractor = RegionExtractor(
        backbone=f"transformers:{tmp_path / 'swin'}", grid=2, device="cpu", image_size=64 if sizes == "large" else None
    )
    run = extractor.backbone.network.forward

    def fail(x: Tensor) -> Any:
        if sizes == "large" and x.shape[2:] == (32, 32):
            return run(x)
        raise RuntimeError("no memory")

    monkeypatch.setattr(extractor.backbone.network, "forward", fail)
    with pytest.raises(RuntimeError, match=r"^no memory$"):
        extractor.load(Image.fromarray(np.zeros((50, 100, 3), dtype=np.uint8)))


def test_another_scale_of_pixels(tmp_path: Path) -> None:
    """Where pixels are not divided by 255, or by something else, mean and deviation are of what the network gets."""
    saved("resnet", tmp_path / "resnet", rescale_factor=1 / 127.5)
    found = load_backbone(f"transformers:{tmp_path / 'resnet'}").preprocessing
    value = torch.tensor([0.0, 100.0, 255.0], dtype=torch.float64)
    assert (value - found.mean[0]) / found.std[0] == pytest.approx(((value / 127.5) - 0.48) / 0.26)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("weights", "transformers:.*vit lacks weights: "),
        ("processor", "preprocessor_config.json has no image_mean and image_std"),
        ("text", "is no model of images: it reads input_ids"),
        ("nothing", "OSError: .*Where there is a network: hf download xgpt/none --revision v1; then --offline"),
    ],
)
def test_what_transformers_cannot_be_read(change: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    saved("vit", folder)
    name = f"transformers:{folder}"
    if change == "weights":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        del tensors[next(name for name in tensors if "query" in name or "q_proj" in name)]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif change == "processor":
        (folder / "preprocessor_config.json").write_text("{}")
    elif change == "text":
        from transformers import AutoModel, BertConfig

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        AutoModel.from_config(BertConfig(vocab_size=20, **sizes)).save_pretrained(folder)
    else:
        name = "transformers:xgpt/none@v1"
    with pytest.raises(DataError, match=message):
        load_backbone(name, BackboneOptions(offline=True))


# timm and torchvision


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_timm(name: str, tmp_path: Path, torchvision: None) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(f"timm:{name}", BackboneOptions(weights=tmp_path / "weights.pth"))
    assert backbone.identity["weights_sha256"] == tensors_sha256(model.state_dict())
    size = backbone.preprocessing.image_size
    given = pixels(size, size)
    with torch.inference_mode():
        found, expected = backbone(given), model.forward_features(normalised(given, backbone))
    if expected.dim() == 3:
        expected = grid(expected[:, model.num_prefix_tokens :], size // backbone.stride, size // backbone.stride)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not backbone.preprocessing.fixed_size
    assert argparse.Namespace in torch.serialization.get_safe_globals()  # as fairseq's checkpoints need
    assert backbone(pixels(size, 2 * size))[0, 0].shape == (size // backbone.stride, 2 * size // backbone.stride)


def test_swin_of_timm_has_channels_last(tmp_path: Path, torchvision: None) -> None:
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 224, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2)}
    model = timm.models.SwinTransformer(**sizes, num_classes=0).eval()
    with torch.inference_mode():
        output = model.forward_features(torch.zeros(1, 3, 224, 224))
    assert find_layout(tuple(output.shape), 224) == Layout("channels last", 8, 32)


def test_layers_of_timm_and_names_that_it_does_not_know(tmp_path: Path, torchvision: None) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    weights = tmp_path / "weights.pth"
    backbone = load_backbone("timm:test_resnet", BackboneOptions(weights=weights, layer="2"))
    given = pixels(96, 96)
    with torch.inference_mode():
        expected = model.forward_intermediates(normalised(given, backbone), indices=[2], intermediates_only=True)[0]
        torch.testing.assert_close(backbone(given), expected, atol=1e-4, rtol=1e-4)
    for options, message in (
        ({"layer": "77"}, "timm:test_resnet has no layer 77"),
        ({"layer": "body"}, "--layer is 'body'; a number is needed"),
        ({"weights": tmp_path / "none.pth"}, "timm:test_resnet: .*none.pth is no file"),
    ):
        with pytest.raises(DataError, match=message):
            load_backbone("timm:test_resnet", BackboneOptions(**{"weights": weights, **options}))
    torch.save(dict(list(model.state_dict().items())[3:]), weights)
    with pytest.raises(DataError, match=r"timm:test_resnet: .*weights\.pth lacks weights: "):
        load_backbone("timm:test_resnet", BackboneOptions(weights=weights))
    with pytest.raises(DataError, match=r"timm:test_restnet: timm .* has no such model"):
        load_backbone("timm:test_restnet")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision(name: str, tmp_path: Path, torchvision: None) -> None:
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(f"torchvision:{name}", BackboneOptions(weights=tmp_path / "weights.pth"))
    outputs: list[Tensor] = []
    last = next(part for part in torchvision_models.LAST_MAPS if hasattr(model, part))
    getattr(model, last).register_forward_hook(lambda module, given, output: outputs.append(output))
    height = 4 * backbone.stride
    with torch.inference_mode():
        model(normalised(pixels(height, 2 * height), backbone))
        found = backbone(pixels(height, 2 * height))
    torch.testing.assert_close(found, outputs[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(DataError, match=f"torchvision:{name} has no module 'nothing'; at its top are "):
        options = BackboneOptions(weights=tmp_path / "weights.pth", layer="nothing")
        load_backbone(f"torchvision:{name}", options)


def test_a_map_whose_cells_do_not_tile_the_photo(tmp_path: Path, torchvision: None) -> None:
    from torchvision import models

    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        DataError, match="an output of shape 1 x 512 x 13 x 13 for a photo of 224 x 224 pixels is neith"
    ):
        load_backbone("torchvision:squeezenet1_1", BackboneOptions(weights=tmp_path / "weights.pth"))


def test_torchvision_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision: None) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = (
        r"resnet18-\w+\.pth is missing; fetch it elsewhere: curl -LO https://download.pytorch.org/models/resnet18-"
    )
    with pytest.raises(DataError, match=message):
        load_backbone("torchvision:resnet18", BackboneOptions(offline=True))
    with pytest.raises(DataError, match="torchvision:resnet19: torchvision has no such model"):
        load_backbone("torchvision:resnet19")


# All of them


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 8, 7, 7), Layout("map", 32, 8)),
        ((1, 7, 7, 8), Layout("channels last", 32, 8)),
        ((1, 7, 7, 7), Layout("map", 32, 7)),
        ((1, 49, 8), Layout("tokens", 32, 8)),
        ((1, 197, 8), Layout("tokens", 16, 8, 1)),
        ((1, 201, 8), Layout("tokens", 16, 8, 5)),
        ((1, 5 + 28 * 28, 8), Layout("tokens", 8, 8, 5)),
    ],
)
def test_layouts(shape: tuple[int, ...], layout: Layout) -> None:
    assert find_layout(shape, 224) == layout


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_patches_that_leave_a_remainder(prefix: int) -> None:
    """SigLIP's 27 × 27 patches of 14 pixels, in photos of 384."""
    assert find_layout((1, 729 + prefix, 8), 384) == Layout("tokens", 14, 8, prefix)
    with pytest.raises(DataError, match="neither a feature map nor a token a patch"):
        find_layout((1, 729 + 9, 8), 384)


def test_photos_are_as_large_as_their_patches(tmp_path: Path) -> None:
    """A network of photos of 35 pixels and patches of 8: four of them, and three pixels that it does not see."""
    saved("siglip", tmp_path / "siglip", size={"height": 35, "width": 35})
    extractor = RegionExtractor(backbone=f"transformers:{tmp_path / 'siglip'}", grid="tokens", device="cpu")
    assert extractor.image_size == 32 and extractor.regions == 17
    photo = extractor.load(Image.fromarray(np.zeros((70, 105, 3), dtype=np.uint8)))
    [regions] = extractor.extract([photo])
    assert photo.pixels.shape == (24, 32, 3) and regions.features.shape == (13, 32)


@pytest.mark.parametrize("shape", [(1, 1000), (1, 8, 7, 6), (1, 90, 8), (1, 8, 9, 9)])
def test_what_is_no_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="is neither a feature map nor a token a patch; choose another layer"):
        find_layout(shape, 224)


def test_names(monkeypatch: pytest.MonkeyPatch, torchvision: None) -> None:
    for name in ("resnet50", "efficientnet-lite3", "timm:", "keras:resnet"):
        with pytest.raises(DataError, match=f"there is no backbone '{name}'; there are efficientnet-lite0, "):
            load_backbone(name)
    for package in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(DataError, match=rf'the package {package} .*: pip install "xgpt-fairseq\[{package}\]"'):
            load_backbone(f"{package}:a/b")


def test_each_token_is_a_region(tmp_path: Path) -> None:
    saved("dinov3", tmp_path / "dinov3")
    extractor = RegionExtractor(
        backbone=f"transformers:{tmp_path / 'dinov3'}", grid="tokens", image_size=48, device="cpu"
    )
    assert extractor.regions == 37
    photo = Photo(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8), (480, 320))
    [regions] = extractor.extract([photo])
    with torch.inference_mode():
        map_ = load_backbone(f"transformers:{tmp_path / 'dinov3'}")(torch.from_numpy(photo.pixels)[None])[0]
    assert regions.features.shape == (25, 32) and regions.boxes.shape == (25, 4)
    np.testing.assert_allclose(regions.features[0], map_.mean(dim=(1, 2)), atol=4e-3)
    np.testing.assert_allclose(regions.features[1 + 6 * 2 + 3], map_[:, 2, 3], atol=4e-3)
    assert regions.boxes[1 + 6 * 2 + 3].tolist() == pytest.approx([3 / 6, 2 / 4, 4 / 6, 3 / 4])
    rebuilt = json.loads(json.dumps(extractor.settings))
    with pytest.raises(DataError, match="transformers:dinov3: OSError"):
        rebuild(rebuilt, offline=True)
    again = rebuild(rebuilt, weights=tmp_path / "dinov3", device="cpu")
    np.testing.assert_array_equal(again.extract([photo])[0].features, regions.features)
    saved("vit", tmp_path / "vit")
    with pytest.raises(DataError, match="was made with weights_sha256 "):
        rebuild(rebuilt, weights=tmp_path / "vit")
    with pytest.raises(DataError, match="has a map of 1600 cells for photos of 320 pixels; a region store keeps 1024"):
        RegionExtractor(backbone=f"transformers:{tmp_path / 'vit'}", grid="tokens", image_size=320)
