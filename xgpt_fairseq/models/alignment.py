"""The attention-driven image-text matching of IDA (section 4.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 0.1  # scale of aligned words per dimension: about that of the embeddings added to them, so that none dominates
SHARPNESS = 4.0  # initial scale of the alignment: how much the scores of a word differ between random regions


class Alignment(nn.Module):
    """Replace each word by an attention-weighted sum of regions:

        A_ij = w_t · x_i + w_v · v_j + w_m · (x_i ⊙ v_j)        aligned_i = 0.1 · LN(W Σ_j softmax_j(A_ij) v_j + b)

    w_t · x_i is the same for all j and cancels in the softmax, so there is no w_t here. The rest is one batched
    product, (x_i ⊙ w_m + w_v) · v_j, without any T × N × H tensor. LN is a LayerNorm without parameters.

    Shape:
        words (C, T, H); regions (I, N, H), one row per image; mask (I, 1, 1, N) True at real regions; *image_index*
        (C,) or None as in `EncoderStates`; output (C, T, H).
    """

    def __init__(self, *, hidden_size: int) -> None:
        super().__init__()
        self.region_weight = nn.Parameter(torch.empty(hidden_size).normal_(0, 0.02))
        # Words and regions come from LayerNorms, so the scores of a word differ by about 3 over an image's regions.
        # With N(0, 0.02) they would differ by 0.3 to 0.6, and all words would start as nearly the same mixture of all
        # regions.
        self.product_weight = nn.Parameter(torch.empty(hidden_size).normal_(0, SHARPNESS / hidden_size**0.5))
        self.project = nn.Linear(hidden_size, hidden_size)

    def forward(self, words: Tensor, regions: Tensor, mask: Tensor, image_index: Tensor | None) -> Tensor:
        if image_index is not None:
            regions, mask = regions.index_select(0, image_index), mask.index_select(0, image_index)
        queries = words * self.product_weight + self.region_weight  # (C, T, H)
        queries = queries.view(regions.size(0), -1, words.size(-1))  # concatenates the words of an image's captions
        scores = queries @ regions.transpose(1, 2)  # (I, C / I · T, N)
        scores = scores.masked_fill(~mask.squeeze(1), float("-inf"))
        weights = torch.softmax(scores.float(), dim=-1).to(regions.dtype)
        aligned = self.project((weights @ regions).view_as(words))  # (C, T, H)
        return SIZE * F.layer_norm(aligned, aligned.shape[-1:])
