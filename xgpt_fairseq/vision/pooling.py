"""Pools features of boxes from a photo's feature map."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Samples per box in each direction.
SAMPLES: Final = 14

# Region 0 of a photo is the whole photo. It counts like the cells of a grid or the boxes of a detector.
FULL_IMAGE_BOX: Final = (0.0, 0.0, 1.0, 1.0)
# What it is called where boxes have labels.
WHOLE_LABEL: Final = "whole image"


def with_full_image(boxes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Prepend the whole photo: (n, 4) boxes → (n + 1, 4) regions."""
    return np.concatenate([np.array([FULL_IMAGE_BOX]), boxes]).astype(np.float32)


def grid_regions(cells: int) -> int:
    """The number of regions with a grid of *cells* in each direction."""
    return cells * cells + 1


def max_boxes(max_regions: int) -> int:
    """The most boxes of a photo with at most *max_regions* regions."""
    return max_regions - 1


def grid_boxes(columns: int, rows: int | None = None) -> npt.NDArray[np.float32]:
    """The cells of a grid over a photo, row by row: (columns * rows, 4) x1 y1 x2 y2 in 0..1; *rows*: as many."""
    rows = columns if rows is None else rows
    x_edges, y_edges = np.linspace(0.0, 1.0, columns + 1), np.linspace(0.0, 1.0, rows + 1)
    y, x = np.divmod(np.arange(columns * rows), columns)
    return np.stack([x_edges[x], y_edges[y], x_edges[x + 1], y_edges[y + 1]], axis=1).astype(np.float32)


def map_cells(maps: Tensor) -> Tensor:
    """The mean of each map, and its cells, row by row: (B, C, H, W) → (B, 1 + H * W, C)."""
    cells = maps.flatten(2).transpose(1, 2)
    return torch.cat([cells.mean(dim=1, keepdim=True), cells], dim=1)


def pool_regions(maps: Tensor, boxes: Tensor) -> Tensor:
    """The mean over `SAMPLES` x `SAMPLES` bilinear samples of each box, at the centres of its equal parts.

    Sample (x, y) in 0..1 is at (x * W - 0.5, y * H - 0.5) relative to the centres of the map's cells, and border values
    are extended (torch's `grid_sample` with align_corners=False and padding_mode="border"; aligned RoIAlign except at
    the border). The samples of a box form a grid, so their mean is a weighted sum of the map whose weights are products
    of row weights and column weights.

    Args:
        maps: (B, C, H, W) float.
        boxes: (B, N, 4) x1 y1 x2 y2 in 0..1 of width and height.

    Returns:
        (B, N, C)
    """
    height, width = maps.shape[2:]
    columns = _mean_weights(boxes[..., 0], boxes[..., 2], width)  # (B, N, W)
    rows = _mean_weights(boxes[..., 1], boxes[..., 3], height)  # (B, N, H)
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(2)  # (B, N, H * W)
    return torch.bmm(weights, maps.permute(0, 2, 3, 1).flatten(1, 2))


def _mean_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """The weight of each of *cells* in the mean of samples between *low* and *high* (B, N): (B, N, cells)."""
    parts = (torch.arange(SAMPLES, device=low.device) + 0.5) / SAMPLES
    places = (low[..., None] + (high - low)[..., None] * parts) * cells - 0.5
    distances = places.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device)
    return (1 - distances.abs()).clamp(min=0).mean(dim=-2)
