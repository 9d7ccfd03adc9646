"""Image-conditioned masked language modelling (IMLM, section 4.3, equation 3): predict a masked fragment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgpt_fairseq.objectives.base import Arrays, Options, WordObjective, option


@dataclass(frozen=True)
class IMLMOptions(Options):
    fragment_ratio: float = option(0.5, "part of a caption that IMLM masks", between=(0, 1))


class ImageConditionedMLM(WordObjective):
    """Encoder: [regions ; caption with a masked fragment]. Decoder: the fragment, at its own positions."""

    name = "imlm"
    uses_regions = True
    random = True
    Options = IMLMOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Mask a contiguous fragment (half of the caption); the decoder predicts it with teacher forcing."""
        return self.masked_fragment(tokens, rng, ratio=self.options.fragment_ratio)
