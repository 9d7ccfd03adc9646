"""Image-conditioned denoising autoencoding (IDA, section 4.3, equation 4): the whole caption from its remains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from xgpt_fairseq.data.corruption import choose_spans, infill
from xgpt_fairseq.objectives.base import Arrays, ObjectiveLoss, WordObjective


class ImageConditionedDenoising(WordObjective):
    """Encoder: the caption's remains, each word as the regions that it aligns with. Decoder: the whole caption."""

    name = "ida"
    uses_regions = True
    random = True

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Replace spans by one [MASK] each, so that the decoder must find out how long they were."""
        assert rng is not None
        options = self.options
        spans = choose_spans(len(tokens), rng, ratio=options.ida_mask_ratio, one_span=options.ida_spans == "one")
        corrupted = infill(tokens, spans, mask=self.symbols.mask, multi=options.ida_placeholder == "multi")
        return {"src_tokens": np.append(corrupted, self.symbols.eos), **self.whole_sentence(tokens)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the whole caption, its words encoded through the alignment."""
        mode = "aligned+regions" if self.options.ida_keep_regions else "aligned"
        sample = {**sample, "net_input": {**sample["net_input"], "text_mode": mode}}
        return super().loss(model, sample, label_smoothing=label_smoothing)
