"""Marks, such as the vowel signs of Hindi: no letters by themselves, they belong to the letter before them."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

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
