"""Checks boxes, features, scores and labels of an image, and converts them to a region store's types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.format import HalfArray, half_not_finite

# A box may extend beyond its image by this much, and is clipped: detectors round, and count pixels from 0 or 1.
PIXEL_TOLERANCE: Final = 1.0
NORMALISED_TOLERANCE: Final = 0.005

MAX_SIDE: Final = 2**31 - 1  # of a photo in pixels: stores have 32-bit numbers

FLOAT16_MAX: Final = float(np.finfo(np.float16).max)

Array = npt.NDArray[Any]


def normalise_boxes(
    boxes: Array, size: tuple[int, int] | None, *, pixel: bool, image: str = "image"
) -> npt.NDArray[np.float32]:
    """Check the boxes of one image and scale them to 0..1.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, in pixels of the image if *pixel*, else in 0..1 of its width and height.
        size: width and height of the image in pixels; needed if *pixel*.
        image: how errors name the image.

    Returns:
        (n, 4) float32 in 0..1. Boxes outside by at most `PIXEL_TOLERANCE` or `NORMALISED_TOLERANCE` are clipped.

    Raises:
        DataError: a box is not finite, has x1 > x2 or y1 > y2, or lies outside the image.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{image}: boxes have the shape {boxes.shape}, (regions, 4) expected")
    if pixel and size is None:
        raise DataError(f"{image}: its boxes are in pixels and its size is not known; pass --sizes")
    if size is not None and not (min(size) > 0 and max(size) <= MAX_SIDE):
        raise DataError(f"{image}: its size is {size[0]} x {size[1]} pixels; 1 to {MAX_SIDE} are possible")
    width, height = size if pixel and size is not None else (1, 1)
    tolerance = PIXEL_TOLERANCE if pixel else NORMALISED_TOLERANCE
    exact = boxes.astype(np.float64)
    extent = np.array([width, height, width, height], dtype=np.float64)

    if not np.isfinite(exact).all():
        region = int((~np.isfinite(exact)).any(axis=1).argmax())
        raise DataError(f"{image}, region {region}: box {boxes[region].tolist()} is not finite")
    upside_down = exact[:, 2:] < exact[:, :2]
    if upside_down.any():
        region = int(upside_down.any(axis=1).argmax())
        raise DataError(f"{image}, region {region}: box {boxes[region].tolist()} has x1 > x2 or y1 > y2")
    excess = np.maximum(-exact, exact - extent)
    if excess.max() > tolerance:
        region = int((excess > tolerance).any(axis=1).argmax())
        if pixel:
            rule = (
                f"the image of {width} x {height} pixels by {excess[region].max():.4g} pixels; {tolerance:g} is allowed"
            )
        else:
            rule = f"0..1 by {excess[region].max():.4g}; {tolerance:g} is allowed"
        raise DataError(f"{image}, region {region}: box {boxes[region].tolist()} lies outside {rule}")
    return np.clip(exact / extent, 0.0, 1.0).astype(np.float32, order="C")


def check_feature_shape(features: Array, where: str) -> None:
    """Check that *features* are floats (n, D). Raises DataError."""
    if features.ndim != 2 or features.dtype.kind != "f":
        raise DataError(
            f"{where}: features are {features.dtype} of shape {features.shape}; floats of (regions, width) expected"
        )


def check_features(features: Array, width: int, image: str) -> HalfArray:
    """Check the features of one image, and convert them to float16 (regions, *width*); those that are so stay as given.

    Raises:
        DataError: another shape or type, no regions, or a value beyond float16.
    """
    check_feature_shape(features, image)
    if len(features) == 0:
        raise DataError(f"{image} has no regions; at least one is needed")
    if features.shape[1] != width:
        raise DataError(f"{image}: features are {features.shape[1]} wide; the store's, by its first image, {width}")
    with np.errstate(over="ignore"):
        half: HalfArray = features.astype("<f2", order="C", copy=False)
    bad = half_not_finite(half)
    if bad.any():
        region, index = divmod(int(bad.argmax()), width)
        value = float(features[region, index])
        rule = (
            f"the maximum of float16, the store's type, is {FLOAT16_MAX:g}"
            if np.isfinite(value)
            else "features must be finite"
        )
        raise DataError(f"{image}, region {region}: feature {index} is {value:g}; {rule}")
    return half


def check_scores(scores: Array, count: int, image: str) -> npt.NDArray[np.float32]:
    """Check and convert the scores of *count* regions. Raises DataError if one is missing or not finite."""
    if scores.shape != (count,):
        raise DataError(f"{image}: scores have the shape {scores.shape}, ({count},) expected: one per region")
    values = scores.astype("<f4")
    if not np.isfinite(values).all():
        region = int((~np.isfinite(values)).argmax())
        raise DataError(f"{image}, region {region}: score {values[region]:g} is not finite")
    return values


def check_labels(labels: Sequence[str], count: int, image: str) -> list[bytes]:
    """Encode the class names of *count* regions. Raises DataError if one is missing or not a line of text."""
    if len(labels) != count:
        raise DataError(f"{image} has {len(labels)} labels for {count} regions; one label per region")
    if not all(map(one_line, labels)):
        raise DataError(f"{image}: a label is not Unicode or contains a line break or NUL character: {list(labels)}")
    return [label.encode() for label in labels]


def one_line(text: str) -> bool:
    """Whether *text* can be a line of a UTF-8 file and an element of a fixed-width array."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return False
    return b"\n" not in data and b"\0" not in data
