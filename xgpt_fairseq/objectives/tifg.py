"""Text-conditioned image feature generation (TIFG, section 4.3, equation 5): predict the regions from the caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xgpt_fairseq.models.encoder import image_of_each
from xgpt_fairseq.objectives.base import Arrays, Objective, ObjectiveLoss, Options, option
from xgpt_fairseq.precision import forget_casts


@dataclass(frozen=True)
class TIFGOptions(Options):
    regions: int = option(100, "TIFG generates at most N regions per image", least=1)
    reduction: str = option(
        "mean",
        "squared difference of a region: mean over its dimensions, or sum as equation 5 is printed, whose gradient is "
        "always clipped",
        choices=("mean", "sum"),
    )
    target: str = option(
        "embedding",
        "what TIFG predicts: a region's embedded and refined representation, or its stored feature",
        choices=("embedding", "feature"),
    )


class RegionHead(nn.Module):
    """Predicts each region from the caption and the preceding regions: the decoder runs over regions, not words.

    Args:
        output_dim: width of the prediction.
        features: predict stored features (D,) instead of embedded and refined regions (H,).
    """

    def __init__(self, *, hidden_size: int, output_dim: int, features: bool) -> None:
        super().__init__()
        self.features = features
        self.start = nn.Parameter(torch.empty(hidden_size).normal_(0, 0.02))  # stands before the first region
        self.output = nn.Linear(hidden_size, output_dim)

    def forward(
        self,
        model: Any,
        *,
        limit: int,
        features: Tensor,
        boxes: Tensor,
        padding_mask: Tensor,
        padded: bool = True,
        src_tokens: Tensor,
        image_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the first *limit* regions of each caption's image, in the store's order (confidence).

        The decoder's inputs are embeddings from before the refiner, which would show each region the others. See
        `XGPTEncoder.forward` for the inputs.

        Returns:
            tuple: predicted and target representations (C, N, H or D), the target without gradient;
            and (C, N) True at real regions.
        """
        encoder, decoder = model.encoder, model.decoder
        rows = image_of_each(src_tokens.size(0), features.size(0), image_index, features.device)
        embedded = encoder.regions.embedding(features, boxes)  # (I, N, H)
        if self.features:
            target = features
        else:
            with torch.no_grad():
                # detached: without refining layers, what is refined is what comes back, and no_grad makes nothing of it
                target = encoder.regions.refine(embedded.detach(), ~padding_mask[:, None, None, :] if padded else None)
            forget_casts()  # of the refiner, which another objective of the same step trains
        memory = encoder(src_tokens=src_tokens)["memory"]
        regions = embedded[:, :limit].index_select(0, rows)  # (C, N, H)
        start = self.start.expand(regions.size(0), 1, -1)
        shifted = torch.cat([start, regions[:, :-1]], dim=1)  # (C, N, H)
        predicted = self.output(decoder.run_layers(encoder.with_segment(shifted, 1), memory))
        real = ~padding_mask[:, :limit]
        return predicted, target[:, :limit].index_select(0, rows), real.index_select(0, rows)


class TextConditionedImageFeatures(Objective):
    """Encoder: the caption. Decoder: the regions shifted right; predicts every region's representation."""

    name = "tifg"
    uses_regions = True
    predicts_regions = True
    random = False
    metric_name = "mse"
    Options = TIFGOptions

    def build_head(self, *, hidden_size: int, feature_dim: int | None, dropout: float) -> RegionHead:
        """The start vector and output projection for regions."""
        assert feature_dim is not None, "a text-only model has no regions"
        features = self.options.target == "feature"
        output_dim = feature_dim if features else hidden_size
        return RegionHead(hidden_size=hidden_size, output_dim=output_dim, features=features)

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees the whole caption; the decoder's input and target are the regions."""
        return {"src_tokens": np.append(tokens, self.symbols.eos)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Σ over captions of the mean squared difference over regions and dimensions, in float32.

        With `reduction` "sum" the dimensions are summed, as equation 5 is printed: the loss is then h times as large,
        so that every update is clipped and the objective's weight has no effect. The target gets no gradient.
        """
        predicted, target, real = model(self.name, limit=self.options.regions, **sample["net_input"])
        squared = (predicted.float() - target.float()).square().mean(dim=-1)  # (C, N)
        per_caption = (squared * real).sum(dim=1) / real.sum(dim=1)  # (C,)
        mse = per_caption.sum()
        loss = mse * predicted.size(-1) if self.options.reduction == "sum" else mse
        return ObjectiveLoss(loss=loss, unsmoothed=mse.detach(), num_targets=sample["nsentences"], correct=None)
