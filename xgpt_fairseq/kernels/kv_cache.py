"""What a search keeps from step to step: keys and values, written once and never moved."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]

ROOM = 16  # positions that there is room for at first; then twice as many


class SearchCache:
    """Keys and values of the text so far, and of the images, in incremental decoding.

    Reordering beams copies nothing. All rows (beams, samples) of an image keep their keys and values in one buffer; a
    mask records which entries are in a row's own history. Images are kept once however many rows they have.

    Args:
        images: I.
        rows: decoder rows, I · B.
        device: where the search runs.
    """

    def __init__(self, *, images: int, rows: int, device: torch.device) -> None:
        self.images = images
        self.group = rows // images  # B
        self.length = 0  # t, positions of text
        self.mask: Tensor | None = None  # (I, 1, B, t · B), True where a row may look; None: everywhere
        self.of_images: dict[int, KeysValues] = {}  # by layer, each (I, heads, N, d)
        self._text: dict[int, Tensor] = {}  # by layer: (2, I, heads, room, B, d)
        self._rows = torch.arange(self.group, device=device)
        # (I, B, t): which of its image's rows holds the position that a row descends from
        self._ancestors = self._rows.new_empty(images, self.group, 0)

    def next_position(self) -> None:
        """Begin a step: each layer will `append` one position."""
        self.length += 1
        if self.group == 1:
            return
        own = self._rows.expand(self.images, -1)[..., None]
        self._ancestors = torch.cat([self._ancestors, own], dim=2)
        self.mask = (self._ancestors[..., None] == self._rows).flatten(2)[:, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> KeysValues:
        """Add the newest position, k and v (I, heads, B, d).

        Returns:
            tuple: keys and values of all positions of an image's rows, (I, heads, t · B, d) each, to be read with
            `mask`.
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

    def reorder(self, new_order: Tensor, kept: Tensor | None) -> None:
        """Let each row go on from row new_order[row].

        Args:
            new_order: (new rows,), rows of an image side by side.
            kept: indices of the images that are kept; None: all.
        """
        if kept is not None:
            self.images = kept.numel()
            self._text = {layer: text.index_select(1, kept) for layer, text in self._text.items()}
            self.of_images = {
                layer: (k.index_select(0, kept), v.index_select(0, kept)) for layer, (k, v) in self.of_images.items()
            }
            self._ancestors = self._ancestors.index_select(0, kept)
        within = (new_order % self.group).view(self.images, self.group, 1)
        self._ancestors = self._ancestors.gather(1, within.expand(-1, -1, self._ancestors.size(2)))
