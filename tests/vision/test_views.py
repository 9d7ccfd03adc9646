"""Views of photos, against Pillow's crop and mirror of the same photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from xgpt_fairseq.vision.photos import REDUCING_GAP, PhotoForm, load_photo
from xgpt_fairseq.vision.views import LEAST_AREA, View, view_of


@given(st.integers(1, 10_000), st.text(min_size=1), st.integers(1, 300), st.integers(1, 300))
def test_a_crop_lies_in_the_photo_and_keeps_its_shape(number: int, image_id: str, width: int, height: int) -> None:
    image_id = image_id.encode("utf-8", "replace").decode()
    view = view_of(number, image_id)
    assert view == view_of(number, image_id)
    assert LEAST_AREA - 1e-9 <= view.side**2 <= 1
    assert 0 <= view.left <= 1 - view.side and 0 <= view.top <= 1 - view.side
    assert view.mirrored == bool(number % 2)
    whole = np.zeros((round(height / view.side), round(width / view.side), 3), np.uint8)
    assert view.of(whole, (width, height)).shape == (height, width, 3)


def test_photos_and_views_differ_and_areas_are_spread_evenly() -> None:
    views = [view_of(number, str(image)) for number in (1, 2) for image in range(2000)]
    assert len({(view.left, view.top, view.side) for view in views}) == len(views)
    areas = (np.array([view.side for view in views]) ** 2 - LEAST_AREA) / (1 - LEAST_AREA)
    for share in (0.25, 0.5, 0.75):
        assert (areas < share).mean() == pytest.approx(share, abs=0.03)
    # the rest beside the crop lies anywhere: left and above as much as right and below
    assert np.mean([view.left / (1 - view.side) for view in views]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([view.top / (1 - view.side) for view in views]) == pytest.approx(0.5, abs=0.03)


def photo(folder: Path, orientation: int | None = None) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    path = folder / f"{orientation}.png"
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(path, exif=exif)
    return path


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_is_pillows_crop_and_mirror(tmp_path: Path, square: bool, mirrored: bool) -> None:
    form = PhotoForm(image_size=64, square=square)
    view = View(left=0.125, top=0.0625, side=0.8, mirrored=mirrored)
    found = load_photo(photo(tmp_path), form, view=view)
    with Image.open(photo(tmp_path)) as image:
        width, height = 64, 64 if square else 64 * 120 // 160 // 32 * 32 + 32
        whole = image.resize((80, round(height / 0.8)), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
        expected = whole.crop((10, 5, 10 + width, 5 + height))
        np.testing.assert_array_equal(found.pixels, ImageOps.mirror(expected) if mirrored else expected)
    assert found.size == (160, 120)  # the photo's


@pytest.mark.parametrize("orientation", range(1, 9))
def test_left_and_right_are_those_of_the_upright_photo(tmp_path: Path, orientation: int) -> None:
    path, form = photo(tmp_path, orientation), PhotoForm(image_size=64, square=True)
    found = load_photo(path, form, view=View(left=0, top=0, side=1, mirrored=True)).pixels
    np.testing.assert_array_equal(found, load_photo(path, form).pixels[:, ::-1])


def test_a_jpeg_that_is_read_at_a_part_of_its_size(tmp_path: Path) -> None:
    """Pillow decodes large ones reduced: the crop is of the same place."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    large = Image.fromarray(pixels).resize((1280, 960), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    view = view_of(2, "large")
    found = load_photo(tmp_path / "large.jpg", PhotoForm(image_size=64, square=True), view=view).pixels
    left, top = view.left * 1280, view.top * 960
    box = (left, top, left + view.side * 1280, top + view.side * 960)
    expected = large.resize((64, 64), Image.Resampling.BILINEAR, box=box)
    whole = large.resize((64, 64), Image.Resampling.BILINEAR)
    near, far = (np.abs(found.astype(int) - np.asarray(other).astype(int)).mean() for other in (expected, whole))
    assert near < far / 4  # the view begins at a whole pixel
