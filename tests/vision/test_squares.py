"""Photos that are squeezed to squares (`--square`), as those that some captioners were trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xgpt_fairseq.bundle import RELEASED, Bundle
from xgpt_fairseq.cli import caption, extract_regions
from xgpt_fairseq.regions.feature_settings import settings_that_differ
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.rebuilding import in_words, rebuild


def write_photo(path: Path, width: int, height: int) -> Path:
    pixels = np.random.default_rng(width).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_photo_is_seen_as_if_it_had_been_squeezed_before(tmp_path: Path) -> None:
    squares, plain = (RegionExtractor(grid=2, image_size=64, device="cpu", square=square) for square in (True, False))
    photo = write_photo(tmp_path / "wide.png", 192, 96)
    with Image.open(photo) as image:
        image.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0).save(tmp_path / "squeezed.png")
    [found] = squares.extract([squares.load(photo)])
    [expected] = plain.extract([plain.load(tmp_path / "squeezed.png")])
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.boxes, expected.boxes)  # as parts of the photo
    [other] = plain.extract([plain.load(photo)])
    assert (other.features != found.features).any()


def test_it_is_among_the_settings() -> None:
    squares, plain = (RegionExtractor(grid=2, image_size=64, device="cpu", square=square) for square in (True, False))
    assert list(settings_that_differ(squares.settings, plain.settings)) == [("square", True, False)]
    rebuilt = rebuild(json.loads(json.dumps(squares.settings)), device="cpu")
    assert rebuilt.settings == squares.settings and rebuilt.form.square
    assert in_words(squares.settings) == "efficientnet-lite0 at 64 pixels (squares), a grid of 2 x 2"


@pytest.mark.parametrize("square", [False, True])
def test_photos_that_are_all_squares_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_program: Callable[..., Any], square: bool
) -> None:
    monkeypatch.setattr("xgpt_fairseq.cli.photo_extraction.SQUARES", 3)
    options = ["--image-size", "32", "--grid", "1", "--device", "cpu", "--workers", "0", *["--square"] * square]
    for side in (40, 50, 60):
        write_photo(tmp_path / "photos" / f"{side}.png", side, side)
    done = call_program(extract_regions.main, tmp_path / "photos", *options, "--output", tmp_path / "squares")
    note = "note: all 3 photos are squares. If they were squeezed, extract them with --square"
    assert done.status == 0 and (note in done.stdout) == (not square)
    assert RegionStore(tmp_path / "squares").source["extractor"]["square"] == square
    write_photo(tmp_path / "photos" / "wide.png", 60, 40)
    done = call_program(extract_regions.main, tmp_path / "photos", *options, "--output", tmp_path / "regions")
    assert done.status == 0 and "note:" not in done.stdout


def test_the_released_captioner_does_not_take_photos_in_their_own_shape_for_something_else(
    coco_mini: Path, call_program: Callable[..., Any]
) -> None:
    """It was trained on squeezed photos, to which others are as far as drawings, if they are not squeezed, too."""
    photos = sorted((coco_mini / "images").glob("*.jpg"))[:20]
    assert len({Image.open(photo).size for photo in photos}) > 5
    done = call_program(caption.main, *photos)
    assert done.status == 0 and "unlike" not in done.stderr and len(done.stdout.splitlines()) == 20
    released = Bundle.read(RELEASED)
    assert released.extractor_settings is not None and released.novelty is not None
    extractor, novelty = rebuild({**released.extractor_settings, "square": False}, device="cpu"), released.novelty
    plain = [novelty.distance(each.features) for each in extractor.extract([extractor.load(p) for p in photos])]
    assert np.median(plain) > novelty.group_limit
