"""Captions, or the beams of a search, beside the keys and values of their images, which are there once an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xgpt_fairseq.kernels.switch import fast

MOST_PLACES = 2  # a caption; where images have more unequal numbers of captions, keys are copied for each caption


@dataclass(frozen=True)
class Groups:
    """Rows of text in groups of one size G, so that the keys and values of an image serve its group at once.

    Where images have unequal numbers of captions, G is the largest, and the places that are left over in a group hold
    its image's first caption again. What is computed there is dropped, and so gets no gradient.

    Attributes:
        image: (groups,) the image of each group; None: each image has one group, in order.
        row_at: (groups · G,) the row at each place; None: row i is at place i.
        place_of: (C,) the place of each row; None likewise.
    """

    image: Tensor | None = None
    row_at: Tensor | None = None
    place_of: Tensor | None = None

    @classmethod
    def of(cls, image_index: Tensor, images: int) -> Groups:
        """The groups of captions of I *images*; *image_index* (C,) holds each image at least once, in any order."""
        captions = image_index.numel()
        count = image_index.new_zeros(images).scatter_add_(0, image_index, torch.ones_like(image_index))  # (I,)
        size = int(count.max())  # waits for a GPU, once a batch, and spares copies of all layers' keys and values
        if images * size > MOST_PLACES * captions or not fast():
            return cls(image=image_index)
        by_image = image_index.argsort(stable=True)  # (C,) rows, an image's side by side
        image_of = image_index.index_select(0, by_image)
        first = count.cumsum(0) - count  # (I,) where an image begins in them
        number = torch.arange(captions, device=image_index.device) - first.index_select(0, image_of)  # 0, 1, … in it
        place = image_of * size + number
        row_at = by_image.index_select(0, first).repeat_interleave(size).scatter_(0, place, by_image)
        return cls(row_at=row_at, place_of=torch.empty_like(place).scatter_(0, by_image, place))

    def fold_captions(self, x: Tensor, groups: int) -> Tensor:
        """(C, heads, T, d) → (groups, heads, G · T, d): a group's rows side by side."""
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
        """(groups · G, …) → (C, …): what is at the rows' places, in the order of the rows."""
        return x if self.place_of is None else x.index_select(0, self.place_of)
