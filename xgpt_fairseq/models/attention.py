"""Multi-head attention, batch first, for self- and cross-attention: fused kernels where torch has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.dropout import dropout
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.kernels.linear import PackedLinear


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H) → (B, heads, T, H / heads): a view."""
    batch, length, hidden = x.shape
    return x.view(batch, length, heads, hidden // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, T, d) → (B, T, heads · d)."""
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def attention_weights(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, in float32 at least; in the precision of *scores*."""
    exact = torch.promote_types(scores.dtype, torch.float32)  # under half precision
    return torch.softmax(scores, dim=-1, dtype=exact).to(scores.dtype)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(T, T): True where a position may look, at itself and before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, p: float = 0.0
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, with dropout *p* of the softmax.

    On CPUs torch has no fused kernel with dropout, and falls back to a slow one, in float32 even under bfloat16
    autocast. There, attention is computed explicitly.

    Shape:
        q (B, heads, T, d); k, v (B, heads, N, d); *mask* (B, 1, 1 or T, N), True where a query may look, at one key at
        least; output as q. Either a mask or *causal*, not both.
    """
    assert mask is None or not causal, "a causal mask is the whole mask"
    if p and q.device.type == "cpu":
        return eager_attention(q, k, v, mask=causal_mask(q.size(2), q.device) if causal else mask, p=p)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=p)


def eager_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, p: float = 0.0) -> Tensor:
    """`attend` as plain products."""
    shape = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B · heads, T or N, d)
    unused = q.new_empty(1, 1, 1)  # what baddbmm would add
    scores = torch.baddbmm(unused, q, k.transpose(1, 2), beta=0, alpha=q.size(2) ** -0.5)
    scores = scores.view(*shape[:3], k.size(1))  # (B, heads, T, N)
    if mask is not None:
        scores = scores.masked_fill_(~mask, float("-inf"))
    weights = dropout(attention_weights(scores), p, training=True)
    return torch.bmm(weights.flatten(0, 1), v).view(shape)


class Attention(nn.Module):
    """Attention whose projections serve both its uses in a shared layer (section 4.2).

    As self-attention, queries, keys and values come from one fused projection of the same states; as cross-attention
    with the *same* weights, the queries come from the decoder and keys and values from the encoder's final states.
    The caller chooses ("the signal" of section 4.2) by passing encoder states or not, so that the encoder's keys and
    values are projected once and are cached apart from the decoder's own.

    Shape:
        states (B, T, H); queries, keys, values (B, heads, T, H / heads); output (B, T, H).
    """

    def __init__(self, *, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        if hidden_size % heads:
            raise ValueError(f"--hidden-size {hidden_size} is not a multiple of --attention-heads {heads}")
        self.hidden_size = hidden_size
        self.heads = heads
        self.dropout = dropout
        self.qkv = PackedLinear(hidden_size, 3 * hidden_size)
        self.out = PackedLinear(hidden_size, hidden_size)

    def queries_keys_values(self, x: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Project x (B, T, H) to queries, and *states* (I, N, H), without them x itself, to keys and values."""
        if states is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, keys_values = self.qkv.each(x, states, sizes=(self.hidden_size, 2 * self.hidden_size))
            k, v = keys_values.chunk(2, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def queries(self, x: Tensor) -> Tensor:
        """Project (B, T, H) to queries alone: the first third of the fused weights."""
        return split_heads(self.qkv(x, last=self.hidden_size), self.heads)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, N, H) to keys and values alone: the other two thirds."""
        k, v = self.qkv(states, first=self.hidden_size).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend and project back to (B, T, H). *mask* is True where a query may look: (B, 1, T or 1, N)."""
        return self.out(self._attend(q, k, v, mask=mask, causal=causal))

    def to_images(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor, groups: Groups) -> Tensor:
        """`forward` for queries (C, heads, T, d) of captions; keys and values are those of their *groups*."""
        _, heads, length, width = q.shape
        attended = self._attend(groups.fold_captions(q, k.size(0)), k, v, mask=mask)  # (groups, G · T, H)
        return self.out(groups.rows(attended.view(-1, length, heads * width)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool = False) -> Tensor:
        p = self.dropout if self.training else 0.0
        return merge_heads(attend(q, k, v, mask=mask, causal=causal, p=p))

    def decode_step(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None) -> Tensor:
        """`forward` for the few queries of a step of a search.

        On a CPU, the fused kernel takes one and a half times as long for them as the products written out.
        """
        if q.device.type != "cpu":
            return self(q, k, v, mask=mask)
        return self.out(merge_heads(eager_attention(q, k, v, mask=mask)))

    def prefix_lm_attention(
        self,
        q: Tensor,
        image_k: Tensor,
        image_v: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor,
        text_mask: Tensor | None,
        groups: Groups,
    ) -> Tensor:
        """Attend to an image and to a text in one softmax, and project back to (C, T, H).

        Written out, since a fused kernel would need the image's keys and values copied for each of its captions or
        beams.

        Args:
            q: (C, heads, T, d) of the text.
            image_k, image_v: (groups, heads, N, d), each for a group of rows of *q*.
            k, v: (C, heads, t, d) of the text.
            mask: (groups, 1, 1, N), True at real regions.
            text_mask: (T, t) or (C, 1, T, t), True where a query may look in the text; None: everywhere.
            groups: which rows of *q* each image serves.
        """
        length, width = q.size(2), q.size(3)
        images, _, regions, _ = image_k.shape
        q = q * width**-0.5
        to_image = groups.fold_captions(q, images) @ image_k.transpose(2, 3)  # (groups, heads, G · T, N)
        to_image = groups.unfold_captions(to_image.masked_fill(~mask, float("-inf")), length)  # (C, heads, T, N)
        to_text = q @ k.transpose(2, 3)  # (C, heads, T, t)
        if text_mask is not None:
            to_text = to_text.masked_fill(~text_mask, float("-inf"))
        weights = attention_weights(torch.cat([to_image, to_text], dim=-1))
        weights = dropout(weights, self.dropout, self.training)
        to_image, to_text = weights.split([regions, k.size(2)], dim=-1)
        attended = groups.unfold_captions(groups.fold_captions(to_image, images) @ image_v, length) + to_text @ v
        return self.out(merge_heads(attended))
