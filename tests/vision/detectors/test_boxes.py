"""Overlaps, suppression and pooling against loops."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.vision.detectors.boxes import overlaps, pool_maxima, suppress, suppress_by_class


def random_boxes(count: int, seed: int, size: float = 100.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = size * torch.rand(count, 4, generator=generator, dtype=torch.float64)
    return torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)


def overlap(one: list[float], other: list[float], pixel: float) -> float:
    width = max(min(one[2], other[2]) - max(one[0], other[0]) + pixel, 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]) + pixel, 0)
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def greedy(boxes: list[list[float]], scores: list[float], threshold: float, pixel: float) -> list[int]:
    waiting = sorted(range(len(boxes)), key=lambda place: -scores[place])
    kept = []
    while waiting:
        best = waiting.pop(0)
        kept.append(best)
        waiting = [each for each in waiting if overlap(boxes[best], boxes[each], pixel) < threshold]
    return kept


def test_overlaps() -> None:
    one, other = random_boxes(7, 1), random_boxes(5, 2)
    for pixel in (0.0, 1.0):
        found = overlaps(one, other, pixel=pixel)
        expected = [[overlap(a, b, pixel) for b in other.tolist()] for a in one.tolist()]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(0, 10**6),
    st.sampled_from([0.1, 0.3, 0.7]),
    st.sampled_from([0.0, 1.0]),
    st.integers(1, 45),
)
def test_suppression_is_greedy(count: int, seed: int, threshold: float, pixel: float, limit: int) -> None:
    boxes = random_boxes(count, seed)
    scores = torch.randint(0, 20, (count,), generator=torch.Generator().manual_seed(seed)).double()  # with equal ones
    found = suppress(boxes, scores, threshold=threshold, limit=limit, pixel=pixel)
    assert found.tolist() == greedy(boxes.tolist(), scores.tolist(), threshold, pixel)[:limit]


def test_suppression_of_no_boxes() -> None:
    assert suppress(torch.zeros(0, 4), torch.zeros(0), threshold=0.5, limit=3).tolist() == []


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(1, 6), st.integers(0, 10**6))
def test_suppression_of_each_class_by_itself(count: int, classes: int, seed: int) -> None:
    boxes = random_boxes(count, seed)
    scores = torch.rand(count, classes, generator=torch.Generator().manual_seed(seed))
    kept = suppress_by_class(scores, overlaps(boxes, boxes) >= 0.3)
    for number in range(classes):
        expected = greedy(boxes.tolist(), scores[:, number].tolist(), 0.3, 0.0)
        assert sorted(expected) == kept[:, number].nonzero()[:, 0].tolist()


def pooled_plainly(feature_map: np.ndarray, box: list[float], scale: float, cells: int) -> np.ndarray:
    """Caffe's ROIPooling of one box, cell by cell."""
    channels, height, width = feature_map.shape
    x1, y1, x2, y2 = (math.floor(np.float32(value) * np.float32(scale) + 0.5) for value in box)
    parts_x = np.float32(max(x2 - x1 + 1, 1)) / np.float32(cells)
    parts_y = np.float32(max(y2 - y1 + 1, 1)) / np.float32(cells)
    found = np.zeros((channels, cells, cells), dtype=np.float32)
    for row in range(cells):
        for column in range(cells):
            top = min(max(math.floor(np.float32(row) * parts_y) + y1, 0), height)
            bottom = min(max(math.ceil(np.float32(row + 1) * parts_y) + y1, 0), height)
            left = min(max(math.floor(np.float32(column) * parts_x) + x1, 0), width)
            right = min(max(math.ceil(np.float32(column + 1) * parts_x) + x1, 0), width)
            if bottom > top and right > left:
                found[:, row, column] = feature_map[:, top:bottom, left:right].max(axis=(1, 2))
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.sampled_from([1, 3, 14]), st.integers(0, 10**6))
def test_pooling_of_maxima(height: int, width: int, cells: int, seed: int) -> None:
    """Also where boxes are smaller than the parts, and reach beyond the map."""
    generator = torch.Generator().manual_seed(seed)
    feature_map = torch.randn(3, height, width, generator=generator)
    boxes = random_boxes(5, seed, size=16.0 * max(height, width)).float()
    found = pool_maxima(feature_map, boxes, scale=1 / 16, cells=cells)
    expected = [pooled_plainly(feature_map.numpy(), box, 1 / 16, cells) for box in boxes.tolist()]
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))


def test_pooling_of_many_boxes_is_that_of_each() -> None:
    feature_map = torch.randn(2, 20, 30)
    boxes = random_boxes(150, 3, size=300.0).float()
    found = pool_maxima(feature_map, boxes, scale=1 / 16, cells=7)
    each = [pool_maxima(feature_map, boxes[at : at + 1], scale=1 / 16, cells=7) for at in range(150)]
    assert torch.equal(found, torch.cat(each))
    assert pool_maxima(feature_map, boxes[:0], scale=1 / 16, cells=7).shape == (0, 2, 7, 7)
