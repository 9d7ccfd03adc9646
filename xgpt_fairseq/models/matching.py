"""The head of retrieval: how well a caption fits an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.dropout import Dropout


class MatchingHead(nn.Module):
    """A score from the encoder's joint states of [regions ; text], as ViLBERT's (Lu et al. 2019, section 3.2):

        pooled_v = ReLU(W_v mean_j v_j + b_v)    pooled_t = ReLU(W_t mean_i x_i + b_t)
        score = w · (pooled_v ⊙ pooled_t) + b

    ViLBERT pools the state of a token of each modality, <IMG> and [CLS]. XGPT has neither, and no stage before this one
    trains a state to stand for a whole modality, so that the mean of its states does. The product lets the score be
    high only where both modalities agree; regions and text have seen each other in every layer already.

    Shape:
        states (P, N + S, H) of P pairs; mask (P, 1, 1, N + S) True at real positions; output (P,) float32.
    """

    def __init__(self, *, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.regions = nn.Linear(hidden_size, hidden_size)
        self.text = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(hidden_size, 1)

    def forward(self, states: Tensor, mask: Tensor, regions: int) -> Tensor:
        """Scores of pairs whose first *regions* positions (N) are the image's."""
        real = mask[:, 0, 0, :, None]  # (P, N + S, 1)
        pooled_v = torch.relu(self.regions(_mean(states[:, :regions], real[:, :regions])))  # (P, H)
        pooled_t = torch.relu(self.text(_mean(states[:, regions:], real[:, regions:])))
        product = self.dropout(pooled_v * pooled_t)
        # in float32 under half precision too: bfloat16 has so few digits that many pairs would have equal scores
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(product.float(), self.score.weight.float(), self.score.bias.float()).squeeze(-1)


def _mean(states: Tensor, real: Tensor) -> Tensor:
    """(P, T, H), (P, T, 1) → (P, H): the mean over real positions."""
    return (states * real).sum(dim=1) / real.sum(dim=1)
