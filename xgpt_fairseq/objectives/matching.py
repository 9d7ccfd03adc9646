"""Image-text matching, for retrieval (section 6.1): the right one among a pair and its negatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from xgpt_fairseq.objectives.base import Arrays, Objective, ObjectiveLoss


class ImageTextMatching(Objective):
    """Encoder: [regions ; caption], nothing masked. Each question is a choice between pairs, by their scores.

    Its batches are `MatchingDataset`'s, which draws the negatives: `net_input` holds pairs, and `choices` (Q, K) the
    pairs among which each question asks for the first; -1 where a question has fewer.
    """

    name = "matching"
    uses_regions = True
    random = False

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Nothing is corrupted, and there is nothing to decode."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the right pair, in float32; label smoothing is for words, and plays no part.

        A question counts as answered right where the first pair's score is above all others': ties are no answer.
        """
        scores = model("match", **sample["net_input"])  # (P,)
        choices = sample["choices"]
        logits = scores[choices.clamp(min=0)].masked_fill(choices < 0, float("-inf"))  # (Q, K)
        loss = F.cross_entropy(logits, choices.new_zeros(choices.size(0)), reduction="sum")
        correct = (logits[:, :1] > logits[:, 1:]).all(dim=1).sum()
        return ObjectiveLoss(loss=loss, unsmoothed=loss.detach(), predictions=choices.size(0), correct=correct)
