"""A Moses tokenizer for normalised text with the results of sacremoses, several times as fast.

Most words of a corpus are plain, only letters a to z, and Moses leaves these unchanged. So only the spans between plain
words are tokenized, and the results are cached. This is safe because the Moses rules look at most one character past a
space, and only check whether it is a lower-case letter or a digit: any plain word can stand for a neighbour.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

from sacremoses import MosesTokenizer

# Size limit of the caches of words and of spans: some 35 MB each. A full cache is cleared, and the frequent entries are
# soon back.
CACHE_SIZE = 1 << 17
# Longer spans seldom recur.
_LONGEST_REMEMBERED = 40
# Stands for a plain word.
_PLAIN = "a"


class CachedMosesTokenizer:
    """Splits normalised text into Moses tokens, and each token into strings.

    Args:
        split: token → strings, such as its subwords; None for the tokens themselves. Called once for frequent tokens.
    """

    def __init__(self, split: Callable[[str], Sequence[str]] | None = None) -> None:
        self._split = split
        self._tokenizer = _Tokenizer()
        self._words: dict[str, tuple[str, ...]] = {}
        self._stretches: dict[str, tuple[str, ...]] = {}

    def __call__(self, text: str) -> list[str]:
        """Tokenize *text*, the output of `normalize`: single spaces, none around it, lower case."""
        out: list[str] = []
        stretch = ""  # a span of words that are not plain; a space at its end stands for a plain neighbour
        after_plain = False
        words = self._words
        for word in text.split(" "):
            known = words.get(word)
            if known is None:
                if not (word.isascii() and word.isalpha()):
                    stretch = f"{stretch} {word}" if stretch or after_plain else word
                    continue
                known = self._remember(words, word, [word])
            if stretch:
                out += self._stretch(f"{stretch} ")
                stretch = ""
            out += known
            after_plain = True
        if stretch:
            out += self._stretch(stretch)
        return out

    def _stretch(self, stretch: str) -> tuple[str, ...]:
        known = self._stretches.get(stretch)
        if known is not None:
            return known
        before, after = stretch[0] == " ", stretch[-1] == " "
        text = f"{_PLAIN if before else ''}{stretch}{_PLAIN if after else ''}"
        tokens = self._tokenizer.tokenize(text, escape=False)
        return self._remember(self._stretches, stretch, tokens[before : len(tokens) - after])

    def _remember(self, memory: dict[str, tuple[str, ...]], text: str, tokens: list[str]) -> tuple[str, ...]:
        strings = tokens if self._split is None else [string for token in tokens for string in self._split(token)]
        known = tuple(map(sys.intern, strings))
        if len(text) <= _LONGEST_REMEMBERED:
            if len(memory) >= CACHE_SIZE:
                memory.clear()
            memory[text] = known
        return known


class _Tokenizer(MosesTokenizer):
    """sacremoses' English tokenizer and rules, without its slowest parts."""

    _LOWER = frozenset(MosesTokenizer.IsLower)
    _ALPHA = frozenset(MosesTokenizer.IsAlpha)

    def __init__(self) -> None:
        super().__init__(lang="en")
        for name, needed in {
            "COMMA_SEPARATE_1": ",",
            "COMMA_SEPARATE_2": ",",
            "COMMA_SEPARATE_3": ",",
            "TRAILING_DOT_APOSTROPHE": "'",
        }.items():
            pattern, replacement = getattr(self, name)
            setattr(self, name, (_Needing(needed, pattern), replacement))
        self.ENGLISH_SPECIFIC_APOSTROPHE = [
            (_Needing("'", pattern), replacement) for pattern, replacement in MosesTokenizer.ENGLISH_SPECIFIC_APOSTROPHE
        ]

    # the base class builds sets of all letters, over a hundred thousand, at each call of these two

    def islower(self, text: str) -> bool:
        return self._LOWER.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        return not self._ALPHA.isdisjoint(text)


class _Needing:
    """A pattern that can only match a text with *needed* in it, so that most texts need not be searched."""

    def __init__(self, needed: str, pattern: re.Pattern[str]) -> None:
        self._needed = needed
        self._pattern = pattern

    def sub(self, replacement: str, text: str) -> str:
        return self._pattern.sub(replacement, text) if self._needed in text else text
