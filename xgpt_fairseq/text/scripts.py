"""Letters and words of scripts other than Latin.

Scripts whose words are not separated by spaces: Chinese, Japanese, Thai and others. And marks, such as the vowel signs
of Hindi, which are no letters by themselves, and belong to the letter before them.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Final, NamedTuple

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


# Unicode's categories of marks on a letter; and the joiners, which are within words of Indic and Persian spelling.
_MARKS = ("Mn", "Mc")
_JOINERS = "\u200c\u200d"
# What stands for each mark in the patterns of `find_words`, where it has no meaning of its own.
MARK: Final = "\u0300"


@functools.lru_cache(maxsize=1 << 16)
def is_mark(character: str) -> bool:
    """Whether *character* belongs to the letter before it: a vowel sign, an accent, a joiner."""
    return unicodedata.category(character) in _MARKS or character in _JOINERS


class _Folding(dict[int, int]):
    """For `str.translate`: marks become `MARK`, all else stays. Filled as characters come."""

    def __missing__(self, code: int) -> int:
        self[code] = found = ord(MARK) if is_mark(chr(code)) else code
        return found


_FOLDING = _Folding()


def find_words(pattern: re.Pattern[str], text: str) -> list[str]:
    """All matches of *pattern*, which has no groups, in *text*; in the pattern, `MARK` stands for any mark.

    Python's `re` has no class of marks, and its `\\w` none of them: Hindi's words would be cut at their vowel signs.
    """
    if text.isascii():
        return pattern.findall(text)
    return [text[match.start() : match.end()] for match in pattern.finditer(text.translate(_FOLDING))]


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
