"""Moses tokens of normalised text, the same as sacremoses gives them, several times as fast.

Most words of a corpus are plain, letters a to z and nothing else, and Moses leaves these unchanged. So only the spans
between plain words are tokenized, and the results are cached. This is safe because the Moses rules look at most one
character past a space, and only ask whether it is a small letter or a digit: any plain word can stand for a neighbour.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

from sacremoses import MosesTokenizer

# Words, and likewise stretches of text, that are remembered at most: some 35 MB each. When they are too many all are
# forgotten, and the frequent ones are soon back.
CACHE_SIZE = 1 << 17
# Longer stretches seldom come again.
_LONGEST_REMEMBERED = 40
# Stands for a plain word.
_PLAIN = "a"


class CachedMosesTokenizer:
    """Normalised text → strings, made of its Moses tokens one by one.

    Args:
        split: token → strings, such as its subwords; None for the tokens themselves. It is called once for tokens
            that come often.
    """

    def __init__(self, split: Callable[[str], Sequence[str]] | None = None) -> None:
        self._split = split
        self._tokenizer = _Tokenizer()
        self._words: dict[str, tuple[str, ...]] = {}
        self._stretches: dict[str, tuple[str, ...]] = {}

    def __call__(self, text: str) -> list[str]:
        """*text* must be as `normalize` leaves it: single spaces, none around it, lower case."""
        out: list[str] = []
        stretch = ""  # words that are not plain; a space at an end of it stands for a plain word there
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
    """sacremoses' tokenizer for English without its costliest detours; its rules stay its own."""

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

    # the base class makes sets of all letters, over a hundred thousand, at each call of these two

    def islower(self, text: str) -> bool:
        return self._LOWER.issuperset(text)

    def isanyalpha(self, text: str) -> bool:
        return not self._ALPHA.isdisjoint(text)


class _Needing:
    """A pattern that can match only where *needed* is: most texts need not be searched."""

    def __init__(self, needed: str, pattern: re.Pattern[str]) -> None:
        self._needed = needed
        self._pattern = pattern

    def sub(self, replacement: str, text: str) -> str:
        return self._pattern.sub(replacement, text) if self._needed in text else text
