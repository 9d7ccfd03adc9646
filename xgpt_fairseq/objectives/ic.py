"""Image captioning (IC, section 4.3, equation 2): predict the caption from the regions, word by word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.objectives.base import Arrays, ObjectiveLoss, Options, WordObjective, option


@dataclass(frozen=True)
class ICOptions(Options):
    word_dropout: float = option(
        0.0, "part of the preceding words that IC reads as [MASK] in training, so that it looks at the image", below=1
    )


class ImageCaptioning(WordObjective):
    """Encoder: the regions. Decoder: the caption shifted right; predicts every token and the end of sentence."""

    name = "ic"
    uses_regions = True
    random = False
    Options = ICOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees no text; the decoder predicts the caption."""
        return self.whole_sentence(tokens)

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the caption; with `word_dropout`, a model in training does not see all preceding words."""
        if self.options.word_dropout and model.training:
            inputs = sample["net_input"]
            seen = self._without_words(inputs["prev_output_tokens"])
            sample = {**sample, "net_input": {**inputs, "prev_output_tokens": seen}}
        return super().loss(model, sample, label_smoothing=label_smoothing)

    def _without_words(self, tokens: Tensor) -> Tensor:
        """*tokens* (C, T) with words replaced by [MASK], each with the same probability (Bowman et al. 2016).

        Drawn as dropout is, by torch's generator: fairseq seeds it for each update, and so a resumed run draws alike.
        """
        symbols = self.symbols
        drawn = torch.rand(tokens.shape, device=tokens.device) < self.options.word_dropout
        # the first symbol stays, by which the decoder knows the start
        return tokens.masked_fill(drawn & (tokens != symbols.eos) & (tokens != symbols.pad), symbols.mask)
