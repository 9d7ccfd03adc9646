"""Signs of degenerate captions: words that are said twice, sentences that are broken off, and their length.

Optimising CIDEr is known for both: captions that end in "a", and "a kitchen with a kitchen with a kitchen".
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from xgpt_fairseq.text.marks import MARK, find_words

# A caption that ends in one of these (English) was broken off.
BAD_ENDS: Final = ("a", "an", "the", "of", "with", "in", "on", "and", "at", "to", "for", "next", "is", "are")
_WORDS: Final = re.compile(rf"[\w'][\w'{MARK}]*")


class Degeneration(NamedTuple):
    """Shares of captions, 0 to 1.

    Attributes:
        repeats: captions that have two successive words twice.
        bad_ends: captions that end in one of `BAD_ENDS`.
    """

    repeats: float
    bad_ends: float


def has_repeat(words: Sequence[object]) -> bool:
    """Whether two successive words come twice."""
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) < len(pairs)


def ends_badly(words: Sequence[str]) -> bool:
    """Whether the last word is one of `BAD_ENDS`."""
    return bool(words) and words[-1] in BAD_ENDS


def words_of(caption: str) -> list[str]:
    """The words of a raw or tokenized caption, in small letters and without punctuation."""
    return find_words(_WORDS, caption.lower())


def degeneration(captions: Iterable[str]) -> Degeneration:
    """The shares among *captions*, at least one."""
    words = [words_of(caption) for caption in captions]
    return Degeneration(sum(map(has_repeat, words)) / len(words), sum(map(ends_badly, words)) / len(words))


def mean_words(captions: Iterable[str]) -> float:
    """Words per caption of *captions*, at least one."""
    return statistics.fmean(len(words_of(caption)) for caption in captions)
