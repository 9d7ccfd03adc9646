"""Masked sequence to sequence (MASS), for text pre-training (section 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgpt_fairseq.objectives.base import Arrays, Options, WordObjective, option


@dataclass(frozen=True)
class MASSOptions(Options):
    fragment_ratio: float = option(0.5, "part of a text that MASS masks", between=(0, 1))


class MaskedSequenceToSequence(WordObjective):
    """Encoder: the text with a masked fragment. Decoder: the fragment, at its own positions: IMLM without an image."""

    name = "mass"
    uses_regions = False
    random = True
    Options = MASSOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Mask one fragment of half the text."""
        return self.masked_fragment(tokens, rng, ratio=self.options.fragment_ratio)
