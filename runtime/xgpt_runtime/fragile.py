"""Parts of words that Moses' rules for English would tear apart for good, kept from them behind a letter.

Moses splits combining marks (Thai vowel signs, the dot of a lower-case `İ`), joined emoji and `<mask>` from their
words, and its detokenizer cannot put them together again; and it writes Chinese and Korean words without the spaces
between them. Such a part is tokenized as if it were an English word.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

# Stands for a part: a small letter that Moses knows.
_LETTER = "ɐ"
# Blocks of Latin, Greek, Cyrillic and Armenian: from where to before where.
_EUROPEAN = ((0, 0x590), (0x1E00, 0x2000), (0x2C60, 0x2C80), (0xA720, 0xA800), (0xAB30, 0xAB70))
_TAG = re.compile(r"</?[^\W\d_][\w-]*/?>")


def hide(text: str) -> tuple[str, list[str]]:
    """*text* with a letter in place of each of its fragile parts, and these parts, in their order.

    A part reaches from the first fragile character, or tag such as `<mask>`, of a word to the last one, and over the
    letters and digits around them.
    """
    if text.isascii() and "<" not in text:
        return text, []
    parts: list[str] = []
    words = text.split(" ")
    for place, word in enumerate(words):
        if (span := _span(word)) is not None:
            start, end = span
            parts.append(word[start:end])
            words[place] = f"{word[:start]}{_LETTER}{word[end:]}"
    return " ".join(words), parts


def show(texts: Iterable[str], parts: list[str]) -> Iterator[str]:
    """*texts* with the parts in the place of their letters."""
    left = iter(parts)
    for text in texts:
        yield re.sub(_LETTER, lambda _: next(left), text) if _LETTER in text else text


def has_tag(word: str) -> bool:
    """Whether *word* has a tag, which must be spelled: a subword of the whole of it would be a special symbol."""
    return _TAG.search(word) is not None


@functools.lru_cache(maxsize=1 << 16)
def _span(word: str) -> tuple[int, int] | None:
    """From where to where the fragile part of *word* is."""
    spans = [(match.start(), match.end()) for match in _TAG.finditer(word)]
    if not word.isascii():
        spans += [(place, place + 1) for place, character in enumerate(word) if _is_fragile(character)]
    if not spans:
        return None
    start, end = min(start for start, _ in spans), max(end for _, end in spans)
    while start and word[start - 1].isalnum():
        start -= 1
    while end < len(word) and word[end].isalnum():
        end += 1
    return start, end


@functools.lru_cache(maxsize=1 << 16)
def _is_fragile(character: str) -> bool:
    """Whether *character* is a mark, joins others, is an emoji, or a letter of no European script."""
    code = ord(character)
    category = unicodedata.category(character)
    if code < 0x80:
        return False
    if character == _LETTER or category[0] == "M" or category in ("Cf", "Cn", "Co"):
        return True
    if 0x2000 <= code < 0x2C00:  # punctuation, currencies, symbols
        return code >= 0x2300 and category == "So"
    return not any(first <= code < end for first, end in _EUROPEAN)
