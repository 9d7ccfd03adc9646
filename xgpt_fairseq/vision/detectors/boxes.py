"""Boxes in plain PyTorch: overlaps, suppression of doubles, and pooling of what a map has in a box."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# Boxes whose pixels are pooled at once: 64 · 14 · 14 · 1 024 numbers are 51 MB.
POOLED_AT_ONCE: Final = 64


def overlaps(one: Tensor, other: Tensor, *, pixel: float = 0.0) -> Tensor:
    """Intersection over union of each box of *one* with each of *other*: (N, 4), (M, 4) → (N, M).

    Args:
        pixel: added to widths and heights; 1 where x2 and y2 are the last pixels that belong to a box.
    """
    low = torch.maximum(one[:, None, :2], other[None, :, :2])  # (N, M, 2)
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low + pixel).clamp(min=0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2] + pixel).prod(dim=1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None, :] - shared)


def suppress(boxes: Tensor, scores: Tensor, *, threshold: float, limit: int, pixel: float = 0.0) -> Tensor:
    """Greedy non-maximum suppression.

    The most confident box is kept, those that overlap it by *threshold* or more are left out, and so on.

    Args:
        boxes: (N, 4) x1 y1 x2 y2.
        scores: (N,). Of equal scores, the first is taken first.
        limit: boxes that are kept at most.
        pixel: as in `overlaps`.

    Returns:
        (n,) the places of the boxes that are kept, the most confident first.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    waiting = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    kept: list[int] = []
    at = 0
    while len(kept) < limit and at < len(boxes):
        kept.append(at)
        waiting[at] = False
        waiting &= overlaps(boxes[at : at + 1], boxes, pixel=pixel)[0] < threshold
        at = int(waiting.byte().argmax()) if bool(waiting.any()) else len(boxes)
    return order[torch.tensor(kept, dtype=torch.long, device=boxes.device)]


def suppress_by_class(scores: Tensor, doubles: Tensor) -> Tensor:
    """Greedy non-maximum suppression of the same boxes for each class by itself.

    Args:
        scores: (N, C) of box and class.
        doubles: (N, N) bool, which boxes overlap too much to be kept together.

    Returns:
        (N, C) bool, which boxes are kept for which class.
    """
    boxes, classes = scores.shape
    order = scores.argsort(dim=0, descending=True, stable=True)  # (N, C)
    column = torch.arange(classes, device=scores.device)
    suppressed = torch.zeros(classes, boxes, dtype=torch.bool, device=scores.device)
    kept = torch.zeros_like(suppressed)
    for place in order:  # (C,) of each class, the next box
        keeps = ~suppressed[column, place]
        kept[column, place] = keeps
        suppressed |= doubles[place] & keeps[:, None]
    return kept.T


def pool_maxima(feature_map: Tensor, boxes: Tensor, *, scale: float, cells: int) -> Tensor:
    """The largest values of *cells* × *cells* parts of each box: Caffe's ROIPooling.

    The corners of a box are rounded to cells of the map; x2 and y2 belong to it. Part i of a side of n cells reaches
    from ⌊i · n / cells⌋ to ⌈(i + 1) · n / cells⌉ (computed in float32, as there), so that neighbours may share cells.
    A part without cells is 0.

    Args:
        feature_map: (C, H, W).
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the photo.
        scale: cells of the map per pixel.
        cells: parts in each direction.

    Returns:
        (N, C, cells, cells)
    """
    height, width = feature_map.shape[1:]
    corners = torch.floor(boxes * scale + 0.5)  # C's round, of what is not negative
    columns = _parts(corners[:, 0], corners[:, 2], cells, width)
    rows = _parts(corners[:, 1], corners[:, 3], cells, height)
    if not len(boxes):
        return feature_map.new_zeros(0, len(feature_map), cells, cells)
    tallest, widest = (int((behind - first).max()) for first, behind in (rows, columns))
    tables = _range_maxima(feature_map, tallest, widest)
    chunks = [slice(at, at + POOLED_AT_ONCE) for at in range(0, len(boxes), POOLED_AT_ONCE)]
    return torch.cat(
        [
            _maxima_of_parts(tables, (rows[0][each], rows[1][each]), (columns[0][each], columns[1][each]), width)
            for each in chunks
        ]
    )


def _parts(low: Tensor, high: Tensor, cells: int, size: int) -> tuple[Tensor, Tensor]:
    """The first cell of each part of a side from *low* to *high* (N,), and that behind its last: (N, cells) each."""
    each = (high - low + 1).clamp(min=1).float() / cells  # (N,)
    number = torch.arange(cells, device=low.device, dtype=torch.float32)
    first = torch.floor(number * each[:, None]) + low[:, None]
    behind = torch.ceil((number + 1) * each[:, None]) + low[:, None]
    return first.clamp(0, size).long(), behind.clamp(0, size).long()


def _range_maxima(feature_map: Tensor, tallest: int, widest: int) -> list[list[Tensor]]:
    """[a][b] → the maximum over 2^a rows and 2^b columns from each cell on, as (H · W, C).

    Any range of n cells is covered by two of 2^⌊log2 n⌋, one from each of its ends.

    Args:
        feature_map: (C, H, W).
        tallest, widest: cells of the largest range.
    """
    tables = []
    of_rows = feature_map
    for a in range(max(tallest, 1).bit_length()):
        if a:
            of_rows = _with_shifted(of_rows, 1 << (a - 1), dim=1)
        table, row = of_rows, []
        for b in range(max(widest, 1).bit_length()):
            if b:
                table = _with_shifted(table, 1 << (b - 1), dim=2)
            row.append(table.flatten(1).T.contiguous())
        tables.append(row)
    return tables


def _with_shifted(table: Tensor, by: int, dim: int) -> Tensor:
    """The maximum of each cell and the one *by* cells behind it; the last *by* stay as they are: none reads them."""
    size = table.shape[dim]
    both = torch.maximum(table.narrow(dim, 0, size - by), table.narrow(dim, by, size - by))
    return torch.cat([both, table.narrow(dim, size - by, by)], dim=dim)


def _maxima_of_parts(
    tables: list[list[Tensor]], rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], width: int
) -> Tensor:
    """The maxima of the parts *rows* × *columns*: (n, cells) each of first cells, and of those behind the last.

    Returns:
        (n, C, cells, cells); 0 where a part has no cell
    """
    heights, widths = (behind - first for first, behind in (rows, columns))
    levels = [torch.log2(size.clamp(min=1).double()).long() for size in (heights, widths)]  # (n, cells) each
    count, cells = heights.shape
    found = tables[0][0].new_zeros(count, cells, cells, tables[0][0].shape[1])
    for a, row in enumerate(tables):
        for b, table in enumerate(row):
            is_here = ((levels[0] == a) & (heights > 0))[:, :, None] & ((levels[1] == b) & (widths > 0))[:, None, :]
            box, y, x = is_here.nonzero(as_tuple=True)
            ends = [
                top[box, y] * width + left[box, x]
                for top in (rows[0], rows[1] - (1 << a))
                for left in (columns[0], columns[1] - (1 << b))
            ]
            found[box, y, x] = torch.stack([table[end] for end in ends]).amax(dim=0)
    return found.permute(0, 3, 1, 2)
