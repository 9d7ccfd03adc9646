"""Objective interface, options and shared helpers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import torch
from fairseq.data import Dictionary
from torch import Tensor

from xgpt_fairseq.data.corruption import choose_fragment, replace_masked
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.kernels.cross_entropy import cross_entropy
from xgpt_fairseq.text.vocabulary import MASK

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Symbols:
    """Ids for making examples: padding, end of sentence, mask, and the range of words (first, one past the last)."""

    pad: int
    eos: int
    mask: int
    words: tuple[int, int]

    @classmethod
    def of(cls, dictionary: Dictionary) -> Symbols:
        """The symbols of *dictionary*, where `<mask>` follows the words (see `learn_vocabulary`)."""
        mask = dictionary.index(MASK)
        return cls(pad=dictionary.pad(), eos=dictionary.eos(), mask=mask, words=(dictionary.nspecial, mask))


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    between: tuple[float, float] | None = None,
    least: int | None = None,
    below: float | None = None,
) -> Any:
    """A field of an objective's `Options`, with the help text and the checks of the tasks' option.

    Args:
        default: the paper's value.
        help: for `--help`.
        choices: the allowed values.
        between: exclusive bounds.
        least: the minimum.
        below: the exclusive maximum of a number that is 0 or more.
    """
    rules = {"choices": choices, "between": between, "least": least, "below": below}
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True)
class Options:
    """An objective's options. Field `mask_ratio` of IDA is the tasks' `--ida-mask-ratio`."""

    def check(self, objective: str) -> None:
        """Raise DataError if an option of *objective* has an invalid value."""
        for each in fields(self):
            value, name = getattr(self, each.name), f"--{objective}-{each.name.replace('_', '-')}"
            choices, between, least, below = (each.metadata[key] for key in ("choices", "between", "least", "below"))
            if choices is not None and value not in choices:
                raise DataError(f"{name} must be one of {', '.join(choices)}, got {value}")
            if between is not None and not between[0] < value < between[1]:
                raise DataError(f"{name} must be between {between[0]} and {between[1]}, got {value}")
            if least is not None:
                check_at_least(name, value, least)
            if below is not None and not 0 <= value < below:
                raise DataError(f"{name} must be at least 0 and below {below}, got {value}")


@dataclass(frozen=True)
class ObjectiveLoss:
    """The loss of one batch, summed over its predictions.

    Attributes:
        loss: scalar, the optimised sum over predictions (nats, or squared error).
        unsmoothed: scalar, the logged sum: without label smoothing, and for TIFG always the mean over dimensions.
        num_targets: number of predictions in the sums.
        correct: number of correct ones; None if this has no meaning.
    """

    loss: Tensor
    unsmoothed: Tensor
    num_targets: int
    correct: Tensor | None


class Objective(ABC):
    """A training objective: makes examples of captions, and computes the loss of a batch. Its head has its parameters.

    Args:
        symbols: ids of the dictionary.
        options: values by field of `Options`; the others keep their defaults.

    Attributes:
        name: its name in the paper, lower case.
        uses_regions: whether its batches contain the images.
        predicts_regions: whether the images are its target instead of a source.
        random: whether `make_example` draws random numbers.
        metric_name: name of its loss in the log: `nll` (bits) or `mse`.
        Options: its options.

    Raises:
        DataError: an option has an invalid value.
    """

    name: str
    uses_regions: bool
    predicts_regions: bool = False
    random: bool
    metric_name: str = "nll"
    Options: ClassVar[type[Options]] = Options

    def __init__(self, symbols: Symbols, **options: Any) -> None:
        self.symbols = symbols
        self.options: Any = self.Options(**options)
        self.options.check(self.name)

    def build_head(self, *, hidden_size: int, feature_dim: int | None, dropout: float) -> torch.nn.Module | None:
        """The module with the objective's own parameters, which the model keeps as `heads[name]`; None: it has none.

        `model(name, **inputs)` calls the head as `head(model, **inputs)`; it uses the model's encoder and decoder.

        Args:
            hidden_size: H.
            feature_dim: D of the region features; None: a text-only model.
            dropout: the model's dropout probability.
        """
        return None

    @abstractmethod
    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> Arrays:
        """Make an example of a caption *tokens* (T,) without end of sentence: arrays that the collater pads.

        `src_tokens`: encoder text; `prev_output_tokens`: decoder text; `positions`: positions of the decoder text
        unless they are 0, 1, …; `target`: the words to predict (padding where there is none).
        """

    @abstractmethod
    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Run *model* on a collated batch of this objective: `model(method or name of a head, **inputs)`."""


class WordObjective(Objective):
    """Base class of objectives that predict words."""

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
        """The encoder sees the text with one fragment masked; the decoder predicts the fragment at its positions."""
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
    """Cross entropy of word predictions, in float32 or better. In training it overwrites *logits*.

    Args:
        logits: (M, V), one row per predicted token.
        target: (M,) the right tokens.
        label_smoothing: weight of the uniform distribution over all V words in the target.
    """
    loss, unsmoothed, correct = cross_entropy(logits, target, label_smoothing=label_smoothing)
    return ObjectiveLoss(loss=loss, unsmoothed=unsmoothed, num_targets=target.numel(), correct=correct)
