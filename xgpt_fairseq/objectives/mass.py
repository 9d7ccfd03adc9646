"""Masked sequence to sequence (MASS), for text pre-training (section 5.4)."""

from __future__ import annotations

import numpy as np

from xgpt_fairseq.objectives.base import Arrays, WordObjective


class MaskedSequenceToSequence(WordObjective):
    """Encoder: the text with a masked fragment. Decoder: the fragment, at its own positions: IMLM without an image."""

    name = "mass"
    uses_regions = False
    random = True

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Mask one fragment of half the text."""
        return self.masked_fragment(tokens, rng, ratio=self.options.mass_fragment_ratio)
