"""Text-conditioned image feature generation (TIFG, section 4.3, equation 5): the regions from the caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xgpt_fairseq.objectives.base import Arrays, Objective, ObjectiveLoss, Options, option


@dataclass(frozen=True)
class TIFGOptions(Options):
    regions: int = option(100, "TIFG generates at most so many regions of an image", least=1)
    reduction: str = option(
        "mean",
        "squared difference of a region: the mean over its dimensions, or their sum as equation 5 is printed, whose "
        "gradient is always clipped",
        choices=("mean", "sum"),
    )


class TextConditionedImageFeatures(Objective):
    """Encoder: the caption. Decoder: the regions shifted right; predicts every region's representation."""

    name = "tifg"
    uses_regions = True
    random = False
    measure = "mse"
    Options = TIFGOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees the whole caption; the decoder's input and target are the regions."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Σ over captions of the mean squared difference over regions and dimensions, in float32.

        With `reduction` "sum" the dimensions are summed, as equation 5 is printed: h times as much, so that each
        update is clipped and the objective's weight has no effect. The target gets no gradient.
        """
        predicted, target, real = model("predict_regions", limit=self.options.regions, **sample["net_input"])
        squared = (predicted.float() - target.float()).square().mean(dim=-1)  # (C, N)
        per_caption = (squared * real).sum(dim=1) / real.sum(dim=1)  # (C,)
        mse = per_caption.sum()
        loss = mse * predicted.size(-1) if self.options.reduction == "sum" else mse
        return ObjectiveLoss(loss=loss, unsmoothed=mse.detach(), predictions=sample["nsentences"], correct=None)
