"""Image-conditioned masked language modelling (IMLM, section 4.3, equation 3): a masked fragment of the caption."""

from __future__ import annotations

import numpy as np

from xgpt_fairseq.objectives.base import Arrays, WordObjective


class ImageConditionedMLM(WordObjective):
    """Encoder: [regions ; caption with a masked fragment]. Decoder: the fragment, at its own positions."""

    name = "imlm"
    uses_regions = True
    random = True

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Mask one fragment of half the caption; the decoder is fed the word before each word that it predicts."""
        return self.masked_fragment(tokens, rng, ratio=self.options.imlm_fragment_ratio)
