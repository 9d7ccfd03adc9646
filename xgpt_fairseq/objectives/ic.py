"""Image captioning (IC, section 4.3, equation 2): predict the caption from the regions, word by word."""

from __future__ import annotations

import numpy as np

from xgpt_fairseq.objectives.base import Arrays, WordObjective


class ImageCaptioning(WordObjective):
    """Encoder: the regions. Decoder: the caption shifted right; predicts every token and the end of sentence."""

    name = "ic"
    uses_regions = True
    random = False

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """The encoder sees no text; the decoder predicts the caption."""
        return self.whole_sentence(tokens)
