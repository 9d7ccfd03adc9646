"""What a store takes of an image. The messages of what it refuses are in test_region_writer.py, as users meet them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.validation import check_features, check_labels, check_scores, normalise_boxes, one_line

SIZE = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
FRACTION = st.floats(0, 1, width=32)


@given(
    size=SIZE,
    corners=st.lists(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), min_size=1, max_size=5),
    out=st.floats(-1, 1),
)
def test_boxes_in_pixels_and_in_fractions_come_to_the_same(
    size: tuple[int, int], corners: list[tuple[float, float, float, float]], out: float
) -> None:
    """And boxes that stick out by a pixel or less are clipped, each value by itself."""
    ordered = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]
    extent = [*size, *size]
    expected = [list(box) for box in ordered]
    found = normalise_boxes(np.array(ordered), None, pixel=False)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pixels = [[value * side for value, side in zip(box, extent, strict=True)] for box in ordered]
    np.testing.assert_allclose(normalise_boxes(np.array(pixels), size, pixel=True), expected, atol=1e-6)
    pixels[0][2] = size[0] + abs(out)
    pixels[0][0] = -abs(out)
    clipped = normalise_boxes(np.array(pixels), size, pixel=True)
    assert clipped[0][2] == 1
    assert clipped[0][0] == 0


@given(region=st.integers(0, 3), corner=st.integers(0, 3), beyond=st.floats(1.01, 1e6), size=SIZE)
def test_boxes_farther_out_are_refused(region: int, corner: int, beyond: float, size: tuple[int, int]) -> None:
    boxes = np.tile([0.0, 0.0, *size], (4, 1))
    boxes[region, corner] = -beyond if corner < 2 else size[corner - 2] + beyond
    with pytest.raises(
        DataError, match=rf"x, region {region}: box .* lies outside the image of {size[0]} x {size[1]} "
    ):
        normalise_boxes(boxes, size, pixel=True, image="x")


@given(values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=3, max_size=12))
def test_features_are_stored_as_float16_or_refused(values: list[float]) -> None:
    width = 3
    rows = len(values) // width
    features = np.array(values[: rows * width], dtype=np.float32).reshape(rows, width)
    # 65519.996 and less round to the largest float16, 65504
    if all(abs(value) < 65520 for value in features.ravel().tolist()):  # False for nan
        stored = check_features(features, width, "x")
        assert stored.dtype == np.dtype("<f2")
        np.testing.assert_allclose(stored.astype(np.float64), features, rtol=2**-11, atol=2**-25)
    else:
        with pytest.raises(DataError, match=r"x, region .*: feature . is"):
            check_features(features, width, "x")


def test_features_in_the_store_s_type_are_not_copied() -> None:
    half = np.ones((2, 3), dtype=np.float16)
    assert check_features(half, 3, "x") is half
    for other in (half.astype(">f2"), np.asfortranarray(half), half.astype(np.float32)):
        stored = check_features(other, 3, "x")
        assert stored.dtype == np.dtype("<f2") and stored.flags.c_contiguous and (stored == half).all()
    half[1, 2] = np.nan
    with pytest.raises(DataError, match="x, region 1: feature 2 is nan; features must be finite"):
        check_features(half, 3, "x")


def test_scores_and_labels_go_with_the_regions() -> None:
    assert check_scores(np.array([2, 1], dtype=np.float64), 2, "x").dtype == np.dtype("<f4")
    assert check_labels(["a dog", "ÿ"], 2, "x") == [b"a dog", "ÿ".encode()]
    with pytest.raises(DataError, match="x: scores have the shape"):
        check_scores(np.ones(3), 2, "x")
    with pytest.raises(DataError, match="x has 1 labels for 2 regions"):
        check_labels(["a"], 2, "x")


@pytest.mark.parametrize(
    ("text", "answer"), [("a b", True), ("", True), ("a\nb", False), ("a\0", False), ("\ud800", False)]
)
def test_one_line(text: str, answer: bool) -> None:
    assert one_line(text) is answer
