"""Pooled features against plain loops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from xgpt_fairseq.vision.pooling import (
    SAMPLES,
    grid_boxes,
    grid_regions,
    max_boxes,
    pool_regions,
    with_full_image,
)


def sample(plane: npt.NDArray[np.float64], x: float, y: float) -> float:
    """One bilinear sample of a map (H, W) at (x, y) in 0..1, the map going on beyond its outermost centres."""
    height, width = plane.shape
    column, row = min(max(x * width - 0.5, 0), width - 1), min(max(y * height - 0.5, 0), height - 1)
    left, top = math.floor(column), math.floor(row)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    across, down = column - left, row - top
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[bottom, left] * (1 - across) + plane[bottom, right] * across
    return float(upper * (1 - down) + lower * down)


def pooled_plainly(map_: npt.NDArray[np.float64], box: npt.NDArray[np.float64]) -> list[float]:
    """The mean of 14 x 14 samples of a box, for each channel of a map (C, H, W)."""
    x1, y1, x2, y2 = box
    places = [
        (x1 + (x2 - x1) * (column + 0.5) / 14, y1 + (y2 - y1) * (row + 0.5) / 14)
        for row in range(14)
        for column in range(14)
    ]
    return [sum(sample(plane, x, y) for x, y in places) / 14**2 for plane in map_]


coordinate = st.floats(0, 1, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    (x1, x2), (y1, y2) = (sorted([draw(coordinate), draw(coordinate)]) for _ in range(2))
    return [x1, y1, x2, y2]


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.lists(boxes(), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_mean_of_samples(shape: tuple[int, int], corners: list[list[float]], seed: int) -> None:
    maps = np.random.default_rng(seed).standard_normal((2, 2, *shape))
    both = np.array([corners, corners[::-1]])
    found = pool_regions(torch.from_numpy(maps).float(), torch.from_numpy(both).float()).numpy()
    expected = [[pooled_plainly(maps[photo], box) for box in both[photo]] for photo in range(2)]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_same_as_grid_sample() -> None:
    """torch's own sampling, with the options that the docstring names."""
    torch.manual_seed(1)
    maps = torch.randn(1, 16, 18, 24)
    corners = torch.rand(20, 2, 2).sort(dim=1).values.flatten(1)
    parts = (torch.arange(SAMPLES) + 0.5) / SAMPLES
    x = corners[:, 0, None] + (corners[:, 2] - corners[:, 0])[:, None] * parts
    y = corners[:, 1, None] + (corners[:, 3] - corners[:, 1])[:, None] * parts
    grid = torch.stack([x[:, None, :].expand(-1, SAMPLES, -1), y[:, :, None].expand(-1, -1, SAMPLES)], dim=-1) * 2 - 1
    samples = F.grid_sample(maps.expand(20, -1, -1, -1), grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(pool_regions(maps, corners[None])[0], samples.mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cells", [1, 2, 6, 9])
def test_a_grid_covers_the_photo_once(cells: int) -> None:
    found = grid_boxes(cells)
    assert found.shape == (cells**2, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose((found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]), 1 / cells**2, rtol=1e-5)
    centres = np.stack([found[:, 0] + found[:, 2], found[:, 1] + found[:, 3]], axis=1) / 2
    expected = [((column + 0.5) / cells, (row + 0.5) / cells) for row in range(cells) for column in range(cells)]
    np.testing.assert_allclose(centres, expected, atol=1e-6)
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize("cells", [1, 3, 9])
def test_the_whole_photo_counts_as_a_region(cells: int) -> None:
    regions = with_full_image(grid_boxes(cells))
    assert regions.dtype == np.float32
    assert regions[0].tolist() == [0, 0, 1, 1]
    assert regions[1:].tolist() == grid_boxes(cells).tolist()
    assert len(regions) == grid_regions(cells)
    assert max_boxes(len(regions)) == len(grid_boxes(cells))
    assert with_full_image(np.zeros((0, 4))).tolist() == [[0, 0, 1, 1]]
