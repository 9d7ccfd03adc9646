"""One transformer layer that serves as encoder layer and, with the same weights, as decoder layer (section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.models.attention import Attention


@dataclass(frozen=True)
class EncoderStates:
    """What the decoder sees of the images.

    Attributes:
        states: final encoder states (I, N, H), one row an image.
        mask: True at real positions, (I, 1, 1, N): ready for attention.
        image_index: (C,), the image of each caption, or None where the captions are in groups of one size, image by
            image (one caption an image, `--captions-per-image K`, the beams of a search).
    """

    states: Tensor
    mask: Tensor
    image_index: Tensor | None = None


# A layer's keys and values in incremental decoding: "self_key", "self_value" (rows, heads, t, d) of the text so far,
# and "cross_key", "cross_value" (I, heads, N, d) of the images: computed once, one row an image however many beams.
Cache = dict[str, Tensor]


class TransformerLayer(nn.Module):
    """Attention and feed-forward with residuals; post-layer-norm as BERT, or pre-layer-norm.

    As decoder layer: causal self-attention, then cross-attention to the encoder's final states with the same
    projections and the same LayerNorm, then the feed-forward network.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        heads: int,
        ffn_size: int,
        dropout: float,
        attention_dropout: float,
        normalize_before: bool,
    ) -> None:
        super().__init__()
        self.attention = Attention(hidden_size=hidden_size, heads=heads, dropout=attention_dropout)
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, ffn_size)
        self.fc2 = nn.Linear(ffn_size, hidden_size)
        self.ffn_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.normalize_before = normalize_before

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, H) → (B, N, H); every position sees all that *mask* (B, 1, 1, N) admits."""

        def attend(y: Tensor) -> Tensor:
            return self.attention(*self.attention.queries_keys_values(y), mask=mask)

        x = self._residual(self.attention_norm, x, attend)
        return self._residual(self.ffn_norm, x, self._feed_forward)

    def decode(self, x: Tensor, images: EncoderStates, cache: Cache | None = None) -> Tensor:
        """(C, T, H) → (C, T, H), each position seeing the text up to itself and its image.

        With a *cache*, x holds the newest position alone (T = 1) and the cache is extended by it.
        """
        x = self._residual(self.attention_norm, x, lambda y: self._attend_to_text(y, cache))
        x = self._residual(self.attention_norm, x, lambda y: self._attend_to_images(y, images, cache))
        return self._residual(self.ffn_norm, x, self._feed_forward)

    def _residual(self, norm: nn.LayerNorm, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.normalize_before:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # the erf form

    def _attend_to_text(self, x: Tensor, cache: Cache | None) -> Tensor:
        q, k, v = self.attention.queries_keys_values(x)
        if cache is None:
            return self.attention(q, k, v, causal=True)
        if "self_key" in cache:
            k = torch.cat([cache["self_key"], k], dim=2)
            v = torch.cat([cache["self_value"], v], dim=2)
        cache["self_key"], cache["self_value"] = k, v
        return self.attention(q, k, v)  # the one query may see all that the cache holds

    def _attend_to_images(self, x: Tensor, images: EncoderStates, cache: Cache | None) -> Tensor:
        if cache is not None and "cross_key" in cache:
            k, v = cache["cross_key"], cache["cross_value"]  # (I, heads, N, d)
        else:
            k, v = self.attention.keys_values(images.states)
            if cache is not None:
                cache["cross_key"], cache["cross_value"] = k, v
        captions, length, hidden = x.shape
        mask = images.mask
        if images.image_index is not None:  # groups of different sizes: each caption gets its own copy
            k, v = k.index_select(0, images.image_index), v.index_select(0, images.image_index)
            mask = mask.index_select(0, images.image_index)
        # (C, T, H) → (I, C / I · T, H): the queries of all captions (or beams) of an image against one set of keys
        grouped = x.view(k.size(0), -1, hidden)
        attended = self.attention(self.attention.queries(grouped), k, v, mask=mask)
        return attended.view(captions, length, hidden)
