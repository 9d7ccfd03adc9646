"""Captions of an image, as a captioner finds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Generic, NamedTuple, TypeVar

from xgpt_fairseq.word_attention import WordAttention

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the captions that a search finds for an image.

    Attributes:
        text: the detokenized caption.
        tokens: its length in generated subwords, without the end of sentence.
        score: fairseq's: its log-probability, the end of sentence included, divided by that length to the power of
            `SearchOptions.lenpen`, so per token where that is 1. The natural logarithm.
        attention: where the model looks for each word, where it was asked for.
        others: of the best caption, the other ones that its search found, best first.
    """

    text: str
    tokens: int
    score: float
    attention: WordAttention | None = field(default=None, compare=False)
    others: Sequence[Candidate] = field(default=(), compare=False, repr=False)


class Captioned(NamedTuple, Generic[Key]):
    """An image with its caption.

    Attributes:
        key: what the caller named it.
        best: its best caption.
        novelty: its distance from the model's training images (`NoveltyDetector.distance`); None if that is not known.
    """

    key: Key
    best: Candidate
    novelty: float | None
