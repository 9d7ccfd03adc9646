"""The encoder's input from regions: embedding (section 3) and AoA refiner (appendix A.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.attention import attention, split_heads
from xgpt_fairseq.kernels.dropout import Dropout
from xgpt_fairseq.kernels.linear import PackedLinear


class RegionEmbedding(nn.Module):
    """concat(feature, 5-d box vector) → Linear → LayerNorm → dropout (section 3, "Image Representation").

    The box vector is x1/W, y1/H, x2/W, y2/H and the fraction of the image area. The order of regions has no effect.

    Shape:
        features (I, N, D), any float type; boxes (I, N, 4) in 0..1; output (I, N, H).
    """

    def __init__(self, *, feature_dim: int, hidden_size: int, dropout: float, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.project = PackedLinear(feature_dim + 5, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        dtype = self.project.weight.dtype
        if self.normalize:
            # in float32: the square of a float16 feature can overflow
            features = F.normalize(features.float(), dim=-1)
        width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]  # (I, N)
        area = (width * height).unsqueeze(-1)  # (I, N, 1)
        x = torch.cat([features.to(dtype), boxes.to(dtype), area.to(dtype)], dim=-1)  # (I, N, D + 5)
        return self.dropout(self.norm(self.project(x)))


class AoALayer(nn.Module):
    """One refining layer (appendix A.1), attention on attention:

        f = f_att(W_Q x, W_K x, W_V x)                                  multi-head
        x' = LayerNorm(x + σ(W1 Q + W2 f + b1) ⊙ (W3 Q + W4 f + b2))    Q = W_Q x

    W1…W4 are one matrix here, from concat(Q, f) to (gate, information).

    Shape:
        x (I, N, H), mask (I, 1, 1, N) True at real regions, None: all are; output (I, N, H).
    """

    def __init__(self, *, hidden_size: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.qkv = PackedLinear(hidden_size, 3 * hidden_size)
        self.aoa = PackedLinear(2 * hidden_size, 2 * hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)  # each (I, N, H)
        attended = attention(
            split_heads(queries, self.heads),
            split_heads(keys, self.heads),
            split_heads(values, self.heads),
            mask=mask,
            p=self.attention_dropout if self.training else 0.0,
        )
        both = torch.cat([queries, attended], dim=-1)  # (I, N, 2H)
        gate, information = self.aoa(both).chunk(2, dim=-1)  # each (I, N, H)
        return self.norm(x + self.dropout(torch.sigmoid(gate) * information))


class RegionEncoder(nn.Module):
    """Embedding and refiner: the representations v_1 … v_N of an image's regions.

    Shape:
        features (I, N, D), boxes (I, N, 4), mask (I, 1, 1, N) True at real regions or None; output (I, N, H).

    Attributes:
        feature_mean, feature_std: (D,) statistics of the training features (`feature_statistics`); None: not known.
    """

    feature_mean: Tensor | None
    feature_std: Tensor | None

    def __init__(
        self,
        *,
        feature_dim: int,
        hidden_size: int,
        heads: int,
        refine_layers: int,
        dropout: float,
        attention_dropout: float,
        normalize: bool,
    ) -> None:
        super().__init__()
        self.embedding = RegionEmbedding(
            feature_dim=feature_dim, hidden_size=hidden_size, dropout=dropout, normalize=normalize
        )
        self.refiner = nn.ModuleList(
            AoALayer(hidden_size=hidden_size, heads=heads, dropout=dropout, attention_dropout=attention_dropout)
            for _ in range(refine_layers)
        )
        self.register_buffer("feature_mean", None)
        self.register_buffer("feature_std", None)

    def keep_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Keep the mean (D,) and the standard deviation (D,) of the training features."""
        like = self.embedding.project.weight
        self.feature_mean, self.feature_std = (each.to(like.device, torch.float32) for each in (mean, std))

    def forward(self, features: Tensor, boxes: Tensor, mask: Tensor | None) -> Tensor:
        return self.refine(self.embedding(features, boxes), mask)

    def refine(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """(I, N, H) → (I, N, H): refine each region by attention to the others."""
        for layer in self.refiner:
            embedded = layer(embedded, mask)
        return embedded
