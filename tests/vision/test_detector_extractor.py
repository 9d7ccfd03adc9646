"""Extractors with a detector: options, regions as a store keeps them, and rebuilding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vision.detectors import tiny_vg
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.detector_extractor import DetectorExtractor
from xgpt_fairseq.vision.detectors.base import DetectorOptions
from xgpt_fairseq.vision.photos import Photo
from xgpt_fairseq.vision.rebuilding import in_words, needs_boxes, rebuild


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vg.save(tmp_path_factory.mktemp("weights"), "pth", seed=2)


def extractor(weights: Path, **options: Any) -> DetectorExtractor:
    return DetectorExtractor("vg-bottom-up", options=DetectorOptions(weights=weights), device="cpu", **options)


def photos(count: int) -> list[Photo]:
    rng = np.random.default_rng(0)
    shapes = [(96, 128), (128, 96)]
    pixels = [rng.integers(0, 255, (*shapes[n % 2], 3), dtype=np.uint8) for n in range(count)]
    return [Photo(each, (each.shape[1], each.shape[0])) for each in pixels]


def test_regions_are_those_of_the_detector_in_parts_of_the_photo(weights: Path) -> None:
    found = extractor(weights, min_regions=5, max_regions=7, batch_size=2).extract(photos(5))
    side_by_side = extractor(weights, min_regions=5, max_regions=7, batch_size=2, threads=2).extract(photos(5))
    for regions, other in zip(found, side_by_side, strict=True):
        assert 5 <= len(regions.features) == len(regions.boxes) <= 7
        assert regions.scores is not None and regions.labels is not None
        assert len(regions.labels) == len(regions.scores) == len(regions.boxes)
        assert regions.boxes.min() >= 0 and regions.boxes.max() <= 1
        assert (regions.boxes[:, :2] <= regions.boxes[:, 2:]).all()
        np.testing.assert_array_equal(regions.features, other.features)


def test_float32_is_no_tf32_on_a_gpu(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = extractor(weights)
    seen = []
    detect = ours._detector.detect

    def remember(*args: Any, **options: Any) -> Any:
        seen.append(torch.backends.cudnn.allow_tf32)
        return detect(*args, **options)

    monkeypatch.setattr(ours._detector, "detect", remember)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    ours.extract(photos(1))
    assert seen == [False] and torch.backends.cudnn.allow_tf32


def test_rebuilt_from_its_settings(weights: Path, tmp_path: Path) -> None:
    first = extractor(weights, min_regions=5, max_regions=7)
    settings = json.loads(json.dumps(first.settings))
    assert not needs_boxes(settings)
    assert in_words(settings) == "vg-bottom-up, 5 to 7 boxes"
    again = rebuild(settings, weights=weights, device="cpu")
    assert again.settings == first.settings and again.regions == 7
    expected, found = (each.extract(photos(1))[0] for each in (first, again))
    np.testing.assert_array_equal(found.features, expected.features)
    with pytest.raises(DataError, match="needs the file of its weights"):
        rebuild(settings, device="cpu")
    with pytest.raises(DataError, match="was made with weights_sha256"):
        rebuild(settings, weights=tiny_vg.save(tmp_path, "pth", seed=3), device="cpu")
    with pytest.raises(DataError, match=r"was made with confidence 0\.5; here it is 0\.2"):
        rebuild({**settings, "confidence": 0.5}, weights=weights, device="cpu")
    del settings["min_regions"]
    with pytest.raises(DataError, match="are damaged: KeyError 'min_regions'"):
        rebuild(settings, weights=weights, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_regions": 8, "max_regions": 7}, "at least 8 and at most 7 regions"),
        ({"max_regions": 1025}, "1 to 1024 are allowed"),
        ({"min_regions": 0}, "at least 0"),
        ({"batch_size": 0}, "the batch size is 0"),
        ({"threads": 0}, "0 threads"),
    ],
)
def test_options_that_are_refused(options: dict[str, int], message: str, weights: Path) -> None:
    with pytest.raises(DataError, match=message):
        extractor(weights, **options)


def test_a_maximum_below_the_usual_minimum_lowers_it(weights: Path) -> None:
    assert extractor(weights, max_regions=3).min_regions == 3
    assert extractor(weights).min_regions == 10


def test_boxes_are_its_own(weights: Path) -> None:
    with pytest.raises(DataError, match="boxes are given to an extractor of what vg-bottom-up detects"):
        extractor(weights).extract(photos(1), [np.zeros((1, 4))])
