"""Image-text matching, for retrieval (section 6.1): the right one among a pair and its negatives."""

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
    """A score from the encoder's joint states of [regions ; text], as ViLBERT's (Lu et al. 2019, section 3.2):

        pooled_v = ReLU(W_v mean_j v_j + b_v)    pooled_t = ReLU(W_t mean_i x_i + b_t)
        score = w · (pooled_v ⊙ pooled_t) + b

    ViLBERT pools the state of a token of each modality, <IMG> and [CLS]. XGPT has neither, and no stage before this one
    trains a state to stand for a whole modality, so that the mean of its states does. The product lets the score be
    high only where both modalities agree; regions and text have seen each other in every layer already.
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
        # in float32 under half precision too: bfloat16 has so few digits that many pairs would have equal scores
        with torch.autocast(states.device.type, enabled=False):
            return F.linear(product.float(), self.score.weight.float(), self.score.bias.float()).squeeze(-1)


def _mean(states: Tensor, real: Tensor) -> Tensor:
    """(P, T, H), (P, T, 1) → (P, H): the mean over real positions."""
    return (states * real).sum(dim=1) / real.sum(dim=1)


class ImageTextMatching(Objective):
    """Encoder: [regions ; caption], nothing masked. Each question is a choice between pairs, by their scores.

    Its batches are `MatchingDataset`'s, which draws the negatives: `net_input` holds pairs, and `choices` (Q, K) the
    pairs among which each question asks for the first; -1 where a question has fewer.
    """

    name = "matching"
    uses_regions = True
    random = False

    def build_head(self, *, hidden_size: int, feature_dim: int | None, dropout: float) -> MatchingHead:
        """The scorer of pairs."""
        return MatchingHead(hidden_size=hidden_size, dropout=dropout)

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Nothing is corrupted, and there is nothing to decode."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the right pair, in float32; label smoothing is for words, and plays no part.

        A question counts as answered right where the first pair's score is above all others': ties are no answer.
        """
        scores = model(self.name, **sample["net_input"])  # (P,)
        choices = sample["choices"]
        logits = scores[choices.clamp(min=0)].masked_fill(choices < 0, float("-inf"))  # (Q, K)
        loss = F.cross_entropy(logits, choices.new_zeros(choices.size(0)), reduction="sum")
        correct = (logits[:, :1] > logits[:, 1:]).all(dim=1).sum()
        return ObjectiveLoss(loss=loss, unsmoothed=loss.detach(), num_targets=choices.size(0), correct=correct)
