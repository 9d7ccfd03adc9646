"""Image-text matching for retrieval (section 6.1): choose the right pair among its negatives."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.dropout import Dropout
from xgpt_fairseq.models.encoder import EncoderInput
from xgpt_fairseq.objectives.base import Arrays, Objective, ObjectiveLoss


class MatchingHead(nn.Module):
    """Scores the encoder's joint states of [regions ; text], like ViLBERT's head (Lu et al. 2019, section 3.2):

        pooled_v = ReLU(W_v mean_j v_j + b_v)    pooled_t = ReLU(W_t mean_i x_i + b_t)
        score = w · (pooled_v ⊙ pooled_t) + b

    ViLBERT pools the state of one token per modality, <IMG> and [CLS]. XGPT has neither, and no earlier stage trains a
    state to represent a whole modality, so the head takes the mean of its states. Due to the product, the score is high
    only if both modalities agree; regions and text have attended to each other in every layer already.
    """

    def __init__(self, *, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.regions = nn.Linear(hidden_size, hidden_size)
        self.text = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(hidden_size, 1)

    def forward(self, model: Any, **encoder_input: Unpack[EncoderInput]) -> Tensor:
        """A score (C,) for each caption and its image; see `XGPTEncoder.forward` for the inputs."""
        features = encoder_input["features"]
        assert features is not None, "matching needs images"
        return self.score_encoded(model.encoder(**encoder_input), features.size(1))

    def score_encoded(self, encoder_out: dict[str, Any], regions: int) -> Tensor:
        """Scores (P,) in float32 of pairs encoded as [regions ; text], the first *regions* positions (N) the image's.

        Shape:
            states of *encoder_out* (P, N + S, H); mask (P, 1, 1, N + S) True at real positions.
        """
        states, mask = encoder_out["memory"].states, encoder_out["memory"].mask
        real = mask[:, 0, 0, :, None]  # (P, N + S, 1)
        pooled_v = torch.relu(self.regions(_mean(states[:, :regions], real[:, :regions])))  # (P, H)
        pooled_t = torch.relu(self.text(_mean(states[:, regions:], real[:, regions:])))
        product = self.dropout(pooled_v * pooled_t)
        # in float32 also under half precision: with bfloat16's few digits many pairs would have equal scores
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(product.float(), self.score.weight.float(), self.score.bias.float()).squeeze(-1)


def _mean(states: Tensor, real: Tensor) -> Tensor:
    """(P, T, H), (P, T, 1) → (P, H): the mean over real positions."""
    return (states * real).sum(dim=1) / real.sum(dim=1)


class ImageTextMatching(Objective):
    """Encoder: [regions ; caption], without masks. Each question is a choice between pairs, by their scores.

    Batches come from `MatchingDataset`, which draws the negatives: `net_input` has the pairs, and `choices` (Q, K) the
    indices of each question's pairs, the right one first, padded with -1.
    """

    name = "matching"
    uses_regions = True
    random = False

    def build_head(self, *, hidden_size: int, feature_dim: int | None, dropout: float) -> MatchingHead:
        """The scorer of pairs."""
        return MatchingHead(hidden_size=hidden_size, dropout=dropout)

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees the whole caption; nothing is decoded."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the right pair, in float32. Label smoothing is for words, and is ignored.

        An answer is correct if the first pair's score is above all others; a tie is not.
        """
        scores = model(self.name, **sample["net_input"])  # (P,)
        choices = sample["choices"]
        logits = scores[choices.clamp(min=0)].masked_fill(choices < 0, float("-inf"))  # (Q, K)
        loss = F.cross_entropy(logits, choices.new_zeros(choices.size(0)), reduction="sum")
        correct = (logits[:, :1] > logits[:, 1:]).all(dim=1).sum()
        return ObjectiveLoss(loss=loss, unsmoothed=loss.detach(), num_targets=choices.size(0), correct=correct)
