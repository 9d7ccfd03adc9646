"""Which generated captions are kept: pure functions of text.

Section 6.1 adds generated captions to human ones, and Table 5 shows noise among them: a caption that repeats a phrase
("in a black t shirt and black t shirt"). Captions that equal a caption of the image word for word add nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from xgpt_fairseq.metrics.segmentation import segment
from xgpt_fairseq.text.marks import MARK, find_words
from xgpt_fairseq.text.scripts import count_spacing
from xgpt_fairseq.text.vocabulary import normalize

# Reasons to drop a caption, in the order in which they are checked: name in reports, and description.
REASONS = {
    "empty": "no word in it",
    "too_long": "not ended at the longest length of a caption",
    "repeated_phrase": "repeats a phrase",
    "copy_of_original": "is one of the image's own captions",
    "copy_of_generated": "was generated for the image before",
}

_WORD = re.compile(rf"\w[\w{MARK}]*(?:['’]\w[\w{MARK}]*)*")


def words(text: str) -> list[str]:
    """The words of *text*, normalised as in the vocabulary; punctuation, including hyphens, separates them.

    Where spaces do not separate words (Chinese, Japanese, Thai …), they are its letters.
    """
    return segment([text], "char")[0].split() if _joins_words(text) else find_words(_WORD, normalize(text))


def _joins_words(text: str) -> bool:
    return not text.isascii() and count_spacing([text]).joins_words


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All n-grams of *tokens* in order; none if there are fewer tokens."""
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def repeats_phrase(text: str, n: int) -> bool:
    """Whether a sequence of *n* words occurs twice in *text* (overlapping included). Never for n = 0.

    Where spaces do not separate words, two letters count as one: three letters, such as "black" with its particle,
    come twice in captions that repeat nothing.
    """
    if n == 0:
        return False
    phrases = ngrams(words(text), 2 * n if _joins_words(text) else n)
    return len(set(phrases)) < len(phrases)


@dataclass(frozen=True)
class Rules:
    """Rules for dropping captions.

    Attributes:
        key: text → its subwords, separated by spaces (`Vocabulary.encode`): texts with equal keys are the same caption.
        longest: a caption must have fewer subwords than this; otherwise the search stopped before its end.
        repeat_ngram: a sequence of N words must not occur twice (`repeats_phrase`); 0: it may.
    """

    key: Callable[[str], str]
    longest: int
    repeat_ngram: int


class Selection:
    """The captions selected for one image, from captions that are offered one by one.

    Every offered caption is counted once: as kept, dropped for a reason, or surplus (good but no longer needed).

    Args:
        own: the image's own captions.
        wanted: number of captions to keep.
        rules: rules for dropping captions.

    Attributes:
        kept: the kept captions, in the order of the offers.
        dropped: number of dropped captions by reason (`REASONS`).
        surplus: number of surplus captions.
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
        """The number of captions still wanted."""
        return self._wanted - len(self.kept)

    @property
    def drawn(self) -> int:
        """The number of captions offered."""
        return len(self.kept) + self.dropped.total() + self.surplus

    def offer(self, text: str, tokens: int) -> None:
        """Count a generated caption with this number of *tokens*, and keep it if it is good and needed."""
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
