"""`xgpt-extract-regions --view`: stores of changed photos, for a training's --views."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.folders import contents
from xgpt_fairseq.cli import extract_regions, prepare_captions
from xgpt_fairseq.regions.feature_settings import settings_that_differ
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import load_photo
from xgpt_fairseq.vision.views import view_of

OPTIONS = ["--image-size", 64, "--grid", 2, "--device", "cpu"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((90, 60), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


def test_views_are_stores_of_the_same_images(photos: Path, call_program: Callable[..., Any], tmp_path: Path) -> None:
    for name, *options in (("own",), ("one", "--view", 1), ("two", "--view", 2), ("again", "--view", 1)):
        workers = 2 if name == "again" else 0
        done = call_program(
            extract_regions.main, photos, *OPTIONS, *options, "--workers", workers, "--output", tmp_path / name
        )
        assert done.status == 0, done.stderr
    own, *views = (RegionStore(tmp_path / name) for name in ("own", "one", "two"))
    extractor = RegionExtractor(grid=2, image_size=64, device="cpu")
    for number, view in enumerate(views, start=1):
        assert view.source["view"] == number and view.ids_crc32 == own.ids_crc32
        assert not list(settings_that_differ(view.source["extractor"], own.source["extractor"]))
        for row, image_id in enumerate(view.image_ids()):
            seen = load_photo(photos / f"{image_id}.png", extractor.form, view=view_of(number, image_id))
            [expected] = extractor.extract([seen])
            np.testing.assert_array_equal(view.features(row), expected.features)
            assert (view.features(row) != own.features(row)).any()
            np.testing.assert_array_equal(view.boxes(row), own.boxes(row))
            assert view.size(row) == own.size(row) == (90, 60)
    assert contents(tmp_path / "again") == contents(tmp_path / "one")
    assert "view" not in own.source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--view", 0], "--view must be at least 1, got 0"),
        (["--view", 1, "--detector", "vg-bottom-up"], "--view means nothing with --detector vg-bottom-up"),
        (
            ["--view", 1, "--detections", "boxes.json"],
            "--view changes photos, whose boxes in --detections are those of",
        ),
    ],
)
def test_what_is_no_view(
    photos: Path, call_program: Callable[..., Any], tmp_path: Path, options: list[Any], message: str
) -> None:
    done = call_program(extract_regions.main, photos, *options, "--workers", 0, "--output", tmp_path / "store")
    assert done.status == 1 and message in done.stderr
    assert not (tmp_path / "store").exists()


def test_captions_are_not_prepared_for_a_view(
    photos: Path, call_program: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path
) -> None:
    store = tmp_path / "view"
    call_program(extract_regions.main, photos, *OPTIONS, "--view", 1, "--workers", 0, "--output", store)
    (tmp_path / "captions.csv").write_text("image,caption\n0.png,A dog.\n")
    done = call_program(
        prepare_captions.main, tmp_path / "captions.csv", "--vocabulary", tiny_vocabulary, "--regions", store,
        "--output", tmp_path / "data",
    )  # fmt: skip
    assert done.status == 1 and f"{store} holds view 1 of the photos, which are cropped or mirrored" in done.stderr
    assert not (tmp_path / "data").exists()
