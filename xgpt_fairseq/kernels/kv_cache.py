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

    Attributes:
        mask: (I, 1, B, t · B), True where a row may attend to the result of `append`; None: everywhere.
    """

    def __init__(self, *, images: int, rows: int, device: torch.device) -> None:
        self.images = images
        self.group = rows // images  # B
        self.length = 0  # t, positions of text
        self.mask: Tensor | None = None
        self._memory: dict[int, KeysValues] = {}  # by layer, each (I, heads, N, d)
        self._text: dict[int, Tensor] = {}  # by layer: (2, I, heads, room, B, d)
        self._rows = torch.arange(self.group, device=device)
        # (I, B, t): at each position, the row of the same image from which a row descends
        self._ancestors = self._rows.new_empty(images, self.group, 0)

    def next_position(self) -> None:
        """Begin a step, in which each layer calls `append` once."""
        self.length += 1
        if self.group == 1:
            return
        own = self._rows.expand(self.images, -1)[..., None]
        self._ancestors = torch.cat([self._ancestors, own], dim=2)
        self.mask = (self._ancestors[..., None] == self._rows).flatten(2)[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """Add the newest position, k and v (I, heads, B, d).

        Returns:
            tuple: keys and values of all positions of an image's rows, (I, heads, t · B, d) each, for use with `mask`.
        """
        images, heads, group, width = k.shape
        text = self._text.get(layer)
        if text is None:
            text = self._text[layer] = k.new_empty(2, images, heads, ROOM, group, width)
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
            self.images = kept.numel()
            self._text = {layer: text.index_select(1, kept) for layer, text in self._text.items()}
            self._memory = {
                layer: (k.index_select(0, kept), v.index_select(0, kept)) for layer, (k, v) in self._memory.items()
            }
            self._ancestors = self._ancestors.index_select(0, kept)
        within = (new_order % self.group).view(self.images, self.group, 1)
        self._ancestors = self._ancestors.gather(1, within.expand(-1, -1, self._ancestors.size(2)))


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
