"""Groups of captions, or of beams, that share one copy of their image's keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xgpt_fairseq.kernels.switch import fast

MOST_PLACES = 2  # per caption; if the numbers of captions per image are more unequal, keys are copied for each caption


@dataclass(frozen=True)
class Groups:
    """Rows of text in groups of equal size G, so that an image's keys and values serve its whole group.

    If images have unequal numbers of captions, G is the largest, and the remaining places of a group repeat its image's
    first caption. Their results are dropped, and so get no gradient.

    Attributes:
        image: (groups,) the image of each group; None: one group per image, in order.
        row_at: (groups · G,) the row at each place; None: row i is at place i.
        place_of: (C,) the place of each row; None likewise.
    """

    image: Tensor | None = None
    row_at: Tensor | None = None
    place_of: Tensor | None = None

    @classmethod
    def of(cls, image_index: Tensor, images: int) -> Groups:
        """The groups of captions of I *images*; *image_index* (C,) contains each image at least once, in any order."""
        captions = image_index.numel()
        count = image_index.new_zeros(images).scatter_add_(0, image_index, torch.ones_like(image_index))  # (I,)
        size = int(count.max())  # synchronises a GPU once per batch, but saves copies of all layers' keys and values
        if images * size > MOST_PLACES * captions or not fast():
            return cls(image=image_index)
        by_image = image_index.argsort(stable=True)  # (C,) rows, grouped by image
        image_of = image_index.index_select(0, by_image)
        first = count.cumsum(0) - count  # (I,) the first of each image in them
        number = torch.arange(captions, device=image_index.device) - first.index_select(0, image_of)  # 0, 1, … in it
        place = image_of * size + number
        row_at = by_image.index_select(0, first).repeat_interleave(size).scatter_(0, place, by_image)
        return cls(row_at=row_at, place_of=torch.empty_like(place).scatter_(0, by_image, place))

    def fold_captions(self, x: Tensor, groups: int) -> Tensor:
        """(C, heads, T, d) → (groups, heads, G · T, d): concatenate the rows of each group."""
        if self.row_at is not None:
            x = x.index_select(0, self.row_at)
        _, heads, length, width = x.shape
        grouped = x.view(groups, -1, heads, length, width)
        return grouped.transpose(1, 2).reshape(groups, heads, -1, width)

    def unfold_captions(self, x: Tensor, length: int) -> Tensor:
        """(groups, heads, G · T, d) → (C, heads, T, d), T = *length*: the inverse of `fold_captions`."""
        groups, heads, _, width = x.shape
        grouped = x.view(groups, heads, -1, length, width)
        return self.rows(grouped.transpose(1, 2).reshape(-1, heads, length, width))

    def rows(self, x: Tensor) -> Tensor:
        """(groups · G, …) → (C, …): select the places of the rows, in the order of the rows."""
        return x if self.place_of is None else x.index_select(0, self.place_of)
