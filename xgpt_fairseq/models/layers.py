"""Transformer layers for the structures of section 6 (`--sharing`), which differ in their attention to images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from xgpt_fairseq.kernels.attention import attention_weights, causal_mask, joint_mask
from xgpt_fairseq.kernels.dropout import Dropout
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.kernels.kv_cache import KeysValues, StepCache
from xgpt_fairseq.kernels.linear import PackedLinear
from xgpt_fairseq.models.attention import Attention


@dataclass(frozen=True)
class EncoderStates:
    """Encoder output that the decoder cross-attends to (its memory); the input was regions, text, or both.

    Attributes:
        states: final encoder states (I, N, H), one row per image.
        mask: True at real positions, (I, 1, 1, N): ready for attention; None: all are.
        image_index: (C,) the image of each caption, or None if the captions are in groups of equal size, image by image
            (a fixed number of captions per image, or the beams of a search).
        keys_values: keys and values of each layer, (I, heads, N, d); empty unless the decoder's layers read them (Enc).
    """

    states: Tensor
    mask: Tensor | None
    image_index: Tensor | None = None
    keys_values: tuple[KeysValues, ...] = ()

    def kept(self, images: Tensor) -> EncoderStates:
        """Only the images of these indices; captions are in groups of equal size."""
        keys_values = tuple((k.index_select(0, images), v.index_select(0, images)) for k, v in self.keys_values)
        return EncoderStates(self.states.index_select(0, images), self.mask_of(images), keys_values=keys_values)

    def image_rows(self, captions: int) -> Tensor:
        """(C,) the image of each of so many captions."""
        if self.image_index is not None:
            return self.image_index
        images = self.states.size(0)
        return torch.arange(images, device=self.states.device).repeat_interleave(captions // images)

    @cached_property
    def groups(self) -> Groups:
        """Which captions share an image's keys and values; computed once for all layers."""
        return Groups() if self.image_index is None else Groups.of(self.image_index, self.states.size(0))

    def mask_of(self, rows: Tensor) -> Tensor | None:
        """The mask of the images of these indices."""
        return None if self.mask is None else self.mask.index_select(0, rows)

    def of_groups(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values and mask of the groups, (groups, …) each, from those of the images, (I, …)."""
        image = self.groups.image
        if image is None:
            return k, v, self.mask
        return k.index_select(0, image), v.index_select(0, image), self.mask_of(image)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward network with residuals; post-layer-norm as in BERT, or pre-layer-norm.

    Subclasses implement `decode`.
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
        self.fc1 = PackedLinear(hidden_size, ffn_size, gelu=True)
        self.fc2 = PackedLinear(ffn_size, hidden_size)
        self.ffn_norm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)
        self.normalize_before = normalize_before

    def encode(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, KeysValues]:
        """(B, N, H) → (B, N, H); every position attends to all, or to those where *mask* (B, 1, 1, N) is True.

        Returns:
            tuple: the states, and the layer's keys and values.
        """
        y = self.attention_norm(x) if self.normalize_before else x
        q, k, v = self.attention.queries_keys_values(y)
        x = self._add_and_norm(self.attention_norm, x, self.attention(q, k, v, mask=mask))
        return self._residual(self.ffn_norm, x, self._feed_forward), (k, v)

    def decode(self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None) -> Tensor:
        """(C, T, H) → (C, T, H); each position attends to the text up to itself and to its image.

        With a *cache*, x is (I, B, H), the newest position of each of an image's B rows, and is added to the cache.
        *layer_index* is the layer's index in its stack.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    def image_weights(
        self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None
    ) -> Tensor:
        """The attention of `decode` to images: (C, T, H), its input → (C, heads, T, N), without dropout.

        Each query's weights sum to 1, or to the image's part where the text is attended to in the same softmax. With a
        *cache*, x is (I, B, H), as in `decode`: the mask of an exported graph is that of the positions of a caption.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode")

    def _residual(self, norm: nn.LayerNorm, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return self._add_and_norm(norm, x, sublayer(norm(x) if self.normalize_before else x))

    def _add_and_norm(self, norm: nn.LayerNorm, x: Tensor, change: Tensor) -> Tensor:
        x = x + self.dropout(change)
        return x if self.normalize_before else norm(x)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class CrossAttentionLayer(TransformerLayer):
    """Causal self-attention, then cross-attention to the encoder's final states, then the feed-forward network.

    Its cross-attention has its own weights and LayerNorm: the decoder of EncDec.
    """

    cross_attention: Attention
    cross_norm: nn.LayerNorm

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self._add_cross_attention()

    def _add_cross_attention(self) -> None:
        own = self.attention
        self.cross_attention = Attention(hidden_size=own.hidden_size, heads=own.heads, dropout=own.dropout)
        self.cross_norm = nn.LayerNorm(own.hidden_size)

    def image_weights(
        self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None
    ) -> Tensor:
        x = self._residual(self.attention_norm, x, lambda y: self._attend_to_text(y, layer_index, cache))
        y = self.cross_norm(x) if self.normalize_before else x
        queries = self.cross_attention.queries(y)
        if cache is not None:
            k, _ = cache.of_memory(layer_index, lambda: self.cross_attention.keys_values(memory.states))
            return attention_weights(queries, k, mask=memory.mask)
        k, _ = self.cross_attention.keys_values(memory.states)  # (I, heads, N, d)
        rows = memory.image_rows(x.size(0))
        return attention_weights(queries, k.index_select(0, rows), mask=memory.mask_of(rows))

    def decode(self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None) -> Tensor:
        x = self._residual(self.attention_norm, x, lambda y: self._attend_to_text(y, layer_index, cache))
        x = self._residual(self.cross_norm, x, lambda y: self._attend_to_memory(y, memory, layer_index, cache))
        return self._residual(self.ffn_norm, x, self._feed_forward)

    def _attend_to_text(self, x: Tensor, layer_index: int, cache: StepCache | None) -> Tensor:
        q, k, v = self.attention.queries_keys_values(x)
        if cache is None:
            return self.attention(q, k, v, causal=True)
        k, v = cache.append(layer_index, k, v)
        return self.attention(q, k, v, mask=cache.mask)

    def _attend_to_memory(self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None) -> Tensor:
        attention = self.cross_attention
        if cache is None:
            q, k, v = attention.queries_keys_values(x, memory.states)
            k, v, mask = memory.of_groups(k, v)
            return attention.to_memory(q, k, v, mask=mask, groups=memory.groups)
        k, v = cache.of_memory(layer_index, lambda: attention.keys_values(memory.states))
        return attention(attention.queries(x), k, v, mask=memory.mask)


class SharedLayer(CrossAttentionLayer):
    """EncDecShare (section 4.2): both encoder and decoder layer; self- and cross-attention have the same weights."""

    def _add_cross_attention(self) -> None:
        # Not registered as a submodule, so that each parameter has one name.
        object.__setattr__(self, "cross_attention", self.attention)
        object.__setattr__(self, "cross_norm", self.attention_norm)


class JointLayer(TransformerLayer):
    """Enc (section 6): a text position attends to its image and to the preceding text in one softmax.

    Equivalent to UniLM's sequence-to-sequence mask over [regions ; text]: regions attend to regions only; each text
    position attends to all regions and to the text up to itself, with this layer's keys and values.
    """

    def image_weights(
        self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None
    ) -> Tensor:
        y = self.attention_norm(x) if self.normalize_before else x
        q, k, v = self.attention.queries_keys_values(y)
        image_k, image_mask = memory.keys_values[layer_index][0], memory.mask
        if cache is None:
            rows = memory.image_rows(x.size(0))
            image_k, image_mask = image_k.index_select(0, rows), memory.mask_of(rows)
            text_mask = causal_mask(x.size(1), x.device)
        else:
            k, _ = cache.append(layer_index, k, v)
            assert cache.mask is not None
            text_mask = cache.mask
        both = joint_mask(image_mask, text_mask, captions=x.size(0), prefix=image_k.size(2))  # (C, 1, T, N + T)
        return attention_weights(q, torch.cat([image_k, k], dim=2), mask=both)[..., : image_k.size(2)]

    def decode(self, x: Tensor, memory: EncoderStates, layer_index: int, cache: StepCache | None = None) -> Tensor:
        y = self.attention_norm(x) if self.normalize_before else x
        q, k, v = self.attention.queries_keys_values(y)
        image_k, image_v, image_mask = memory.of_groups(*memory.keys_values[layer_index])
        if cache is None:
            mask: Tensor | None = causal_mask(x.size(1), x.device)
        else:
            k, v = cache.append(layer_index, k, v)
            mask = cache.mask
        attended = self.attention.prefix_lm(
            q, image_k, image_v, k, v, prefix_mask=image_mask, mask=mask, groups=memory.groups
        )
        x = self._add_and_norm(self.attention_norm, x, attended)
        return self._residual(self.ffn_norm, x, self._feed_forward)
