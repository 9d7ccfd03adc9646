"""Text-conditioned image feature generation (TIFG, section 4.3, equation 5): the regions from the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xgpt_fairseq.objectives.base import Arrays, ObjectiveLoss, ObjectiveOptions, Symbols


class TextConditionedImageFeatures:
    """Encoder: the caption. Decoder: the regions shifted right; predicts every region's representation."""

    name = "tifg"
    uses_regions = True
    random = False
    measure = "mse"

    def __init__(self, symbols: Symbols, options: ObjectiveOptions) -> None:
        self.symbols = symbols
        self.options = options

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees the whole caption; the decoder's input and target are the regions."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Σ over captions of the mean squared difference over regions and dimensions, in float32.

        With `tifg_reduction` "sum" the dimensions are summed, as equation 5 is printed: h times as much, so that each
        update is clipped and the objective's weight has no effect. The target gets no gradient.
        """
        predicted, target, real = model(**sample["net_input"], generate_regions=self.options.tifg_regions)
        squared = (predicted.float() - target.float()).square().mean(dim=-1)  # (C, N)
        per_caption = (squared * real).sum(dim=1) / real.sum(dim=1)  # (C,)
        mse = per_caption.sum()
        loss = mse * predicted.size(-1) if self.options.tifg_reduction == "sum" else mse
        return ObjectiveLoss(loss=loss, plain=mse.detach(), predictions=sample["nsentences"], correct=None)
