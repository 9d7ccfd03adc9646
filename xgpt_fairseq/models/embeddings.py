"""Embedding of tokens, and projection of decoder states to the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xgpt_fairseq.kernels.dropout import Dropout
from xgpt_fairseq.kernels.linear import PackedWeights


class TextEmbedding(nn.Module):
    """Token embedding + learned position embedding + segment embedding → LayerNorm → dropout (section 3).

    Shape:
        tokens (B, T) ids; positions (T,) or (B, T), 0-based; output (B, T, H).
    """

    def __init__(
        self, *, vocabulary_size: int, padding_idx: int, hidden_size: int, max_positions: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary_size, hidden_size, padding_idx=padding_idx)
        self.positions = nn.Embedding(max_positions, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, segment: Tensor | None) -> Tensor:
        return self.sum_up(self.tokens(tokens), self.positions(positions), segment)

    def sum_up(self, words: Tensor, positions: Tensor, segment: Tensor | None) -> Tensor:
        """Sum words (B, T, H), positions (T, H) or (B, T, H), and segment (H,) to the layers' input (B, T, H)."""
        x = words + positions
        if segment is not None:
            x = x + segment
        return self.dropout(self.norm(x))


class TiedOutputProjection(nn.Module):
    """Logits over the vocabulary: the transposed token embedding (tied), with its own bias.

    Shape:
        states (…, H), embedding (V, H); output (…, V).
    """

    def __init__(self, *, vocabulary_size: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.packed = PackedWeights()

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        return self.packed(states, embedding, self.bias)
