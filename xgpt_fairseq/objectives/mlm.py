"""Masked language modelling (MLM, equation 1; BERT), for text pre-training (section 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgpt_fairseq.data.corruption import choose_tokens, replace_masked
from xgpt_fairseq.objectives.base import Arrays, Options, WordObjective, option


@dataclass(frozen=True)
class MLMOptions(Options):
    mask_ratio: float = option(0.15, "part of a text that MLM masks", between=(0, 1))


class MaskedLanguageModelling(WordObjective):
    """Encoder: the text with masked tokens, which are predicted from the encoder's states. There is no decoder."""

    name = "mlm"
    uses_regions = False
    random = True
    Options = MLMOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Mask 15 % of the tokens; the target has these tokens at their positions, and padding elsewhere."""
        assert rng is not None
        chosen = choose_tokens(len(tokens), rng, ratio=self.options.mask_ratio)
        symbols = self.symbols
        corrupted = replace_masked(tokens, chosen, rng, mask=symbols.mask, words=symbols.words)
        return {
            "src_tokens": np.append(corrupted, symbols.eos),
            "target": np.append(np.where(chosen, tokens, symbols.pad), symbols.pad),
        }
