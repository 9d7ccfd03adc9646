"""The one shape of all objectives, and what several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from torch import Tensor

from xgpt_fairseq.data.corruption import choose_fragment, replace_masked
from xgpt_fairseq.text.vocabulary import MASK

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Symbols:
    """The ids that corruption needs: padding, end of sentence, mask, and the range of words (first, one past last)."""

    pad: int
    eos: int
    mask: int
    words: tuple[int, int]

    @classmethod
    def of(cls, dictionary: Dictionary) -> Symbols:
        """Those of *dictionary*, where `<mask>` follows the words (see `learn_vocabulary`)."""
        mask = dictionary.index(MASK)
        return cls(pad=dictionary.pad(), eos=dictionary.eos(), mask=mask, words=(dictionary.nspecial, mask))


@dataclass(frozen=True)
class ObjectiveOptions:
    """Options of the objectives; the defaults are the paper's."""

    imlm_fragment_ratio: float = 0.5
    ida_mask_ratio: float = 0.3
    ida_spans: str = "poisson"
    ida_placeholder: str = "single"
    ida_keep_regions: bool = False
    tifg_regions: int = 100
    tifg_reduction: str = "mean"
    mlm_mask_ratio: float = 0.15
    mass_fragment_ratio: float = 0.5


@dataclass(frozen=True)
class ObjectiveLoss:
    """The loss of one batch, summed over what it predicts.

    Attributes:
        loss: scalar, sum over predictions (nats, or squared error): what is optimised.
        plain: scalar, what is logged: the same without label smoothing, or TIFG's mean over dimensions in any case.
        predictions: how many predictions the sums run over.
        correct: how many of them are right; None where that has no meaning.
    """

    loss: Tensor
    plain: Tensor
    predictions: int
    correct: Tensor | None


class Objective(Protocol):
    """How captions are corrupted, and how a batch of them becomes a loss. All parameters are the model's.

    Attributes:
        name: its name in the paper, lower case.
        uses_regions: whether its batches carry the images.
        random: whether `corrupt` draws random numbers.
        measure: what its loss is called in the log: `nll` (bits) or `mse`.
    """

    name: str
    uses_regions: bool
    random: bool
    measure: str

    def __init__(self, symbols: Symbols, options: ObjectiveOptions) -> None: ...

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """What a caption *tokens* (T,), without end of sentence, becomes: arrays that the collater pads.

        `src_tokens` encoder text; `prev_output_tokens` decoder text; `positions` of the decoder text where they are
        not 0, 1, …; `target` the words to predict (padding where none is).
        """
        ...

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Run *model* on a collated batch of this objective."""
        ...


class WordObjective:
    """What the objectives share that predict words."""

    measure = "nll"

    def __init__(self, symbols: Symbols, options: ObjectiveOptions) -> None:
        self.symbols = symbols
        self.options = options

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Cross entropy of the target words; padding is never projected to the vocabulary."""
        logits, _ = model(**sample["net_input"], output_index=sample["target_index"])  # (M, V)
        target = sample["target"].view(-1).index_select(0, sample["target_index"])  # (M,)
        return word_loss(logits, target, label_smoothing=label_smoothing)

    def whole_sentence(self, tokens: np.ndarray) -> Arrays:
        """The decoder predicts every token and the end of sentence, from the start."""
        eos = self.symbols.eos
        return {"prev_output_tokens": np.append(eos, tokens), "target": np.append(tokens, eos)}

    def masked_fragment(self, tokens: np.ndarray, rng: np.random.Generator | None, *, ratio: float) -> Arrays:
        """The encoder sees the text with one fragment masked, the decoder predicts it at its own positions."""
        assert rng is not None
        start, end = choose_fragment(len(tokens), rng, ratio=ratio)
        chosen = np.zeros(len(tokens), dtype=bool)
        chosen[start:end] = True
        symbols = self.symbols
        corrupted = replace_masked(tokens, chosen, rng, mask=symbols.mask, words=symbols.words)
        return {
            "src_tokens": np.append(corrupted, symbols.eos),
            "prev_output_tokens": np.append(symbols.eos, tokens)[start:end],
            "positions": np.arange(start, end),
            "target": tokens[start:end],
        }


def word_loss(logits: Tensor, target: Tensor, *, label_smoothing: float) -> ObjectiveLoss:
    """Cross entropy of word predictions, in float32 whatever the model's precision.

    Args:
        logits: (M, V), one row a predicted token.
        target: (M,) the right tokens.
        label_smoothing: weight of the uniform distribution over all V words in the target.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=-1)  # (M, V), once for both
    nll = F.nll_loss(log_probabilities, target, reduction="sum")
    loss = nll
    if label_smoothing > 0:
        uniform = -log_probabilities.sum() / logits.size(-1)
        loss = (1 - label_smoothing) * nll + label_smoothing * uniform
    correct = (logits.detach().argmax(dim=-1) == target).sum()
    return ObjectiveLoss(loss=loss, plain=nll.detach(), predictions=target.numel(), correct=correct)
