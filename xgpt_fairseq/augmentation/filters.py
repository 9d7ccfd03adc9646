"""Which generated captions are kept: pure functions of text.

Section 6.1 adds captions that a model generated to those of people, and Table 5 shows what is noise among them: a
caption that repeats a phrase ("in a black t shirt and black t shirt"). Captions that say word for word what the image's
captions say already add nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xgpt_fairseq.text.vocabulary import normalize

# Why a caption is dropped, in the order in which it is asked: what reports call it, and what that means.
REASONS = {
    "empty": "no word in it",
    "too_long": "not ended at the longest length of a caption",
    "repeated_phrase": "repeats a phrase",
    "copy_of_original": "is one of the image's own captions",
    "copy_of_generated": "was generated for the image before",
}

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words(text: str) -> list[str]:
    """The words of *text*, normalised as the vocabulary does it; punctuation, hyphens too, only separates them."""
    return _WORD.findall(normalize(text))


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of *n* tokens that follow each other, in order; none if there are fewer."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def repeats_phrase(text: str, n: int) -> bool:
    """Whether *n* words of *text* come again in the same order (overlapping, too). Never for n = 0."""
    if n == 0:
        return False
    phrases = ngrams(words(text), n)
    return len(set(phrases)) < len(phrases)


@dataclass(frozen=True)
class Rules:
    """What is dropped.

    Attributes:
        key: text → its subwords, separated by spaces (`Vocabulary.encode`): texts of one key are the same caption.
        longest: a caption has fewer subwords than this, or the search was stopped before it was whole.
        repeat_ngram: a run of N words must not come twice; 0: it may.
    """

    key: Callable[[str], str]
    longest: int
    repeat_ngram: int


class Selection:
    """The captions that are chosen for one image, of those that are offered one after the other.

    Every caption offered is counted once: kept, dropped for a reason, or surplus, good but not needed any more.

    Args:
        own: the image's own captions.
        wanted: how many are to be kept.
        rules: what is dropped.

    Attributes:
        kept: the captions kept, in the order in which they were offered.
        dropped: how many were dropped, by reason (`REASONS`).
        surplus: how many were good, but too many.
    """

    def __init__(self, own: Iterable[str], wanted: int, rules: Rules) -> None:
        self._wanted = wanted
        self._rules = rules
        self._own = {rules.key(text) for text in own}
        self._generated: set[str] = set()
        self.kept: list[str] = []
        self.dropped: Counter[str] = Counter()
        self.surplus = 0

    @property
    def missing(self) -> int:
        """How many captions are still wanted."""
        return self._wanted - len(self.kept)

    @property
    def drawn(self) -> int:
        """How many captions were offered."""
        return len(self.kept) + self.dropped.total() + self.surplus

    def offer(self, text: str, tokens: int) -> None:
        """Keep, drop or pass over a caption that the search generated, of this number of *tokens*."""
        key = self._rules.key(text)
        reason = self._reason(text, key, tokens)
        if reason:
            self.dropped[reason] += 1
            return
        self._generated.add(key)
        if self.missing:
            self.kept.append(text)
        else:
            self.surplus += 1

    def _reason(self, text: str, key: str, tokens: int) -> str:
        if not words(text):
            return "empty"
        if max(tokens, len(key.split())) >= self._rules.longest:
            return "too_long"
        if repeats_phrase(text, self._rules.repeat_ngram):
            return "repeated_phrase"
        if key in self._own:
            return "copy_of_original"
        return "copy_of_generated" if key in self._generated else ""
