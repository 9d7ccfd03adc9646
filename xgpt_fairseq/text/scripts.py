"""Scripts whose words are not separated by spaces: Chinese, Japanese, Thai and others."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

# How Unicode's names of their letters begin.
_SCRIPTS = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC ITERATION MARK", "HIRAGANA", "KATAKANA",
    "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE",
)  # fmt: skip
# Text in which words are separated has a space between one in two (Chinese) to one in six letters (Thai).
_SEPARATED = 0.1


@functools.lru_cache(maxsize=1 << 16)
def is_unspaced(character: str) -> bool:
    """Whether *character* is a letter, or a mark on one, of a script that is written without spaces."""
    return unicodedata.category(character)[0] in "LM" and unicodedata.name(character, "").startswith(_SCRIPTS)


class Spacing(NamedTuple):
    """What `count_spacing` counts.

    Attributes:
        letters: letters and marks in all.
        unspaced: those of scripts that are written without spaces.
        neighbours: of these, how many follow another one, with a space between them or without.
        spaces: the spaces between such.
    """

    letters: int
    unspaced: int
    neighbours: int
    spaces: int

    @property
    def share(self) -> float:
        """The share of letters of scripts that are written without spaces, 0 to 1."""
        return self.unspaced / max(self.letters, 1)

    @property
    def is_separated(self) -> bool:
        """Whether spaces separate the words all the same, as in text that was cut into words."""
        return self.spaces > _SEPARATED * self.neighbours

    @property
    def joins_words(self) -> bool:
        """Whether spaces alone do not tell words apart: scores that compare words need characters or a segmentation."""
        return self.share > 0.5 and not self.is_separated


def count_spacing(texts: Iterable[str]) -> Spacing:
    """Count letters, and the spaces between those of scripts that are written without them."""
    letters = unspaced = neighbours = spaces = 0
    for text in texts:
        if text.isascii():
            letters += sum(map(str.isalpha, text))
            continue
        before, space = False, 0  # whether the last character but a space is of such a script; whether a space follows
        for character in text:
            if character == " ":
                space = 1
                continue
            found = is_unspaced(character)
            letters += found or unicodedata.category(character)[0] in "LM"
            unspaced += found
            if found and before:
                neighbours += 1
                spaces += space
            before, space = found, 0
    return Spacing(letters, unspaced, neighbours, spaces)
