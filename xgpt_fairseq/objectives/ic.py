"""Image captioning (IC, section 4.3, equation 2): the caption from the regions alone, word by word."""

from __future__ import annotations

from typing import Any

import torch

from xgpt_fairseq.objectives.base import ObjectiveLoss, word_loss


class ImageCaptioning:
    """Encoder: the regions. Decoder: the caption shifted right; predicts every token and the end of sentence."""

    name = "ic"

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """-Σ_t log p(w_t | w_<t, v) over the captions of the batch; padding is never projected to the vocabulary."""
        logits, _ = model(**sample["net_input"], output_index=sample["target_index"])  # (M, V)
        target = sample["target"].view(-1).index_select(0, sample["target_index"])  # (M,)
        return word_loss(logits, target, label_smoothing=label_smoothing)
