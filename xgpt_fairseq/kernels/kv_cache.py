"""Key-value cache of a search: keys and values are written once and never moved.

The rows of a search are the beams, or samples, of each image, in order: R rows = I images · B rows each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xgpt_fairseq.kernels.switch import fast

KeysValues = tuple[Tensor, Tensor]

ROOM = 16  # initial capacity in positions; it is doubled when needed


class StepCache(Protocol):
    """What the decoder's layers need of a cache, in each step of a search: `SearchCache`, or an exported graph's."""

    mask: Tensor | None

    def append(self, layer: int, k: Tensor, v: Tensor) -> KeysValues: ...

    def of_memory(self, layer: int, project: Callable[[], KeysValues]) -> KeysValues: ...


class SearchCache:
    """Keys and values of the text so far, and of the images, in incremental decoding.

    Reordering beams copies nothing. All rows of an image keep their keys and values in one buffer; a mask records which
    entries are in a row's own history. An image's own keys and values are kept once for all its rows. With
    `kernels.switch.plain`, each row counts as an image of its own: I is R, B is 1, and reordering copies.

    Args:
        images: I.
        rows: R.
        device: where the search runs.
        dtype: of the mask.
        room: positions that memory is allocated for; it is doubled where a search is longer.

    Attributes:
        mask: (I, 1, B, t · B), to be added to scores: 0 where a row may attend to the result of `append`, else minus
            infinity; None: everywhere.
    """

    def __init__(
        self,
        *,
        images: int,
        rows: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        room: int = ROOM,
    ) -> None:
        self.images = images
        self.group = rows // images  # B
        self.length = 0  # t, positions of text
        self.mask: Tensor | None = None
        self._room = room
        self._memory: dict[int, KeysValues] = {}  # by layer, each (I, heads, N, d)
        self._text: dict[int, Tensor] = {}  # by layer: (2, I, heads, room, B, d)
        self._positions = torch.arange(room, device=device)
        self._rows = torch.arange(self.group, device=device)
        # of one position and its own rows (B, B): each sees itself alone
        itself = torch.zeros(self.group, self.group, device=device, dtype=dtype)
        itself.masked_fill_(self._rows[:, None] != self._rows, -torch.inf)
        self._itself = itself[None, :, None].expand(images, -1, -1, -1)  # (I, B, 1, B)
        # (I, B, room, B): by row, position and row of the same image, whether a row descends from it (0, or -inf)
        self._descent = self._itself.repeat(1, 1, room, 1)
        self._first_rows = torch.arange(images, device=device)[:, None] * self.group  # (I, 1)

    @property
    def position(self) -> Tensor:
        """(1,) that of the newest words, from 0."""
        return self._positions[self.length - 1 : self.length]

    def next_position(self) -> None:
        """Begin a step, in which each layer calls `append` once."""
        self.length += 1
        if self.group == 1:
            return
        if self.length > self._descent.size(2):
            self._descent = torch.cat([self._descent, self._itself.expand(-1, -1, self._descent.size(2), -1)], dim=2)
        self.mask = self._descent[:, :, : self.length].flatten(2)[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """Add the newest position, k and v (I, heads, B, d).

        Returns:
            tuple: keys and values of all positions of an image's rows, (I, heads, t · B, d) each, for use with `mask`.
        """
        images, heads, group, width = k.shape
        text = self._text.get(layer)
        if text is None:
            text = self._text[layer] = k.new_empty(2, images, heads, self._room, group, width)
        elif self.length > text.size(3):
            text = self._text[layer] = F.pad(text, (0, 0, 0, 0, 0, text.size(3)))
        text[0, :, :, self.length - 1] = k
        text[1, :, :, self.length - 1] = v
        so_far = text[:, :, :, : self.length].flatten(3, 4)  # a view
        return so_far[0], so_far[1]

    def of_memory(self, layer: int, project: Callable[[], KeysValues]) -> KeysValues:
        """Keys and values (I, heads, N, d) of the encoder's states, which *project* computes in the first step."""
        if layer not in self._memory:
            k, v = project()
            self._memory[layer] = k.contiguous(), v.contiguous()  # they are read in every step
        return self._memory[layer]

    def reorder(self, new_order: Tensor) -> None:
        """Let each row continue row new_order[row]; *new_order* (new rows,) must keep an image's rows adjacent.

        Raises:
            ValueError: it does not; see `kept_images`.
        """
        kept = kept_images(new_order, rows=self.images * self.group, images=self.images)
        if kept is not None:
            self.keep(kept)
        self.go_on_from((new_order % self.group).view(self.images, self.group))

    def keep(self, images: Tensor) -> None:
        """Drop all but *images* (n,), ascending: the others' search is over."""
        self.images = images.numel()
        self._memory = {
            layer: (k.index_select(0, images), v.index_select(0, images)) for layer, (k, v) in self._memory.items()
        }
        for layer, text in self._text.items():
            self._text[layer] = text[:, : self.images]  # the memory stays where it is
            self._text[layer][:, :, :, : self.length] = text[:, :, :, : self.length].index_select(1, images)
        self._descent = self._descent.index_select(0, images)
        self._itself, self._first_rows = self._itself[: self.images], self._first_rows[: self.images]

    def go_on_from(self, rows: Tensor) -> None:
        """Let each row of an image continue one of the same image: *rows* (I, B), each 0 … B - 1."""
        if self.group == 1:
            return
        flat = (rows + self._first_rows).flatten()
        so_far = self._descent[:, :, : self.length]  # (I, B, t, B)
        so_far.copy_(so_far.flatten(0, 1).index_select(0, flat).view(so_far.shape))


def kept_images(new_order: Tensor, *, rows: int, images: int) -> Tensor | None:
    """The indices of the images that a reordering keeps, or None if it keeps all of them.

    With `kernels.switch.plain` the encoder's states are copied for each row, and these are the rows to copy.

    Args:
        new_order: (new rows,), the old row that each new row continues; rows of an image are adjacent.
        rows: R before.
        images: the number of images before the reordering. At a search's first call, rows equals images.

    Raises:
        ValueError: *new_order* moves rows between images (checked on CPU only; on a GPU the check would force a
            synchronisation).
    """
    if not fast():
        return new_order
    new_rows = new_order.numel()
    if new_rows >= rows:
        group = new_rows // images
        expected = torch.arange(images, device=new_order.device)
    else:
        group = rows // images
        expected = None
    if new_order.device.type == "cpu":
        old_group = max(1, rows // images)
        by_image = (new_order // old_group).view(-1, group)
        regular = (by_image == by_image[:, :1]).all() and (expected is None or torch.equal(by_image[:, 0], expected))
        if not regular:
            raise ValueError(f"a reordering must keep the rows of an image adjacent, in image order; got {new_order}")
    return None if expected is not None else new_order[::group] // group
