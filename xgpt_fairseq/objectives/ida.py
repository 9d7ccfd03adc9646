"""Image-conditioned denoising autoencoding (IDA, section 4.3, equation 4): restore the caption from a masked one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xgpt_fairseq.data.corruption import choose_spans, infill
from xgpt_fairseq.objectives.base import Arrays, ObjectiveLoss, Options, WordObjective, option


@dataclass(frozen=True)
class IDAOptions(Options):
    mask_ratio: float = option(0.3, "part of a caption that IDA masks", between=(0, 1))
    spans: str = option("poisson", "spans of Poisson(3) tokens, or one span per caption", choices=("poisson", "one"))
    placeholder: str = option("single", "one [MASK] per span, or one per token (Table 6)", choices=("single", "multi"))
    keep_regions: bool = option(False, "IDA's encoder sees the regions in addition to the aligned words")


class ImageConditionedDenoising(WordObjective):
    """Encoder: the masked caption, each word replaced by its aligned regions. Decoder: the whole caption."""

    name = "ida"
    uses_regions = True
    random = True
    Options = IDAOptions

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Replace each span by one [MASK], so that the decoder must infer its length; `multi`: by one per token."""
        assert rng is not None
        options = self.options
        spans = choose_spans(len(tokens), rng, ratio=options.mask_ratio, one_span=options.spans == "one")
        corrupted = infill(tokens, spans, mask=self.symbols.mask, multi=options.placeholder == "multi")
        return {"src_tokens": np.append(corrupted, self.symbols.eos), **self.whole_sentence(tokens)}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the whole caption; the encoder sees aligned words."""
        mode = "aligned+regions" if self.options.keep_regions else "aligned"
        sample = {**sample, "net_input": {**sample["net_input"], "text_mode": mode}}
        return super().loss(model, sample, label_smoothing=label_smoothing)
