"""Multi-head attention, batch first, for self- and cross-attention."""

from __future__ import annotations

from torch import Tensor, nn

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.kernels.attention import attention, grouped_attention, prefix_attention, split_heads
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.kernels.linear import PackedLinear


class Attention(nn.Module):
    """Multi-head attention whose projections serve as self- and cross-attention in a shared layer (section 4.2).

    As self-attention, queries, keys and values come from one fused projection of the same states; as cross-attention
    with the *same* weights, the queries come from the decoder and keys and values from the encoder's final states.
    The caller chooses ("the signal" of section 4.2) by passing encoder states or not, so that the encoder's keys and
    values are projected once, and cached separately from the decoder's own.

    Shape:
        states (B, T, H); queries, keys, values (B, heads, T, H / heads); output (B, T, H). Masks are True where a query
        may attend.
    """

    def __init__(self, *, hidden_size: int, heads: int, dropout: float) -> None:
        super().__init__()
        if hidden_size % heads:
            raise DataError(f"--hidden-size {hidden_size} is not a multiple of --attention-heads {heads}")
        self.hidden_size = hidden_size
        self.heads = heads
        self.dropout = dropout
        self.qkv = PackedLinear(hidden_size, 3 * hidden_size)
        self.out = PackedLinear(hidden_size, hidden_size)

    def queries_keys_values(self, x: Tensor, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Project x (B, T, H) to queries, and *states* (I, N, H), or x if there are none, to keys and values."""
        if states is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, keys_values = self.qkv.forward_split(x, states, sizes=(self.hidden_size, 2 * self.hidden_size))
            k, v = keys_values.chunk(2, dim=-1)
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def queries(self, x: Tensor) -> Tensor:
        """Project (B, T, H) to queries only, with the first third of the fused weights."""
        return split_heads(self.qkv.forward_slice(x, 0, self.hidden_size), self.heads)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, N, H) to keys and values only, with the other two thirds."""
        k, v = self.qkv.forward_slice(states, self.hidden_size, 3 * self.hidden_size).chunk(2, dim=-1)
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend and project back to (B, T, H). *mask*: (B, 1, T or 1, N)."""
        return self.out(attention(q, k, v, mask=mask, causal=causal, p=self._p))

    def to_memory(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, groups: Groups) -> Tensor:
        """`forward` for queries (C, heads, T, d) of captions to keys (groups, heads, N, d); mask: (groups, 1, 1, N)."""
        return self.out(grouped_attention(q, k, v, mask=mask, groups=groups, p=self._p))

    def prefix_lm(
        self,
        q: Tensor,
        prefix_k: Tensor,
        prefix_v: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        prefix_mask: Tensor | None,
        mask: Tensor | None,
        groups: Groups,
    ) -> Tensor:
        """Attend to an image (a prefix) and a text in one softmax; see `prefix_attention` for the shapes."""
        return self.out(
            prefix_attention(q, prefix_k, prefix_v, k, v, prefix_mask=prefix_mask, mask=mask, groups=groups, p=self._p)
        )

    @property
    def _p(self) -> float:
        return self.dropout if self.training else 0.0
