"""Moses' detokenizer for English (moses-smt/mosesdecoder, scripts/tokenizer/detokenizer.perl), as sacremoses has it."""

from __future__ import annotations

import unicodedata

# Scripts without spaces between words, as sacremoses lists them: the first and the last of each block.
_CJK = (
    (4352, 4607), (11904, 42191), (43072, 43135), (44032, 55215), (63744, 64255), (65072, 65103), (65381, 65500),
    (94208, 101119), (110592, 110895), (110960, 111359), (131072, 196607),
)  # fmt: skip
_OPENING = frozenset("([{¿¡")
_CLOSING = frozenset(",.?!:;\\%}])")
_QUOTES = frozenset("'\"„“`")
_DOUBLE = frozenset("„“")

# sacremoses' lists of letters and currencies are of an older Unicode. What they lack among European scripts (words of
# others never begin with an apostrophe here, see `fragile`), and Roman numerals, which they count as letters.
_NEWER_LETTERS = (
    (0x560, 0x560), (0x588, 0x588), (0xA78F, 0xA78F), (0xA7AE, 0xA7AF), (0xA7B2, 0xA7CA), (0xA7D0, 0xA7D9),
    (0xA7F2, 0xA7F6), (0xAB60, 0xAB63), (0xAB66, 0xAB69),
)  # fmt: skip
_ROMAN = (0x2160, 0x2188)
_NEWER_CURRENCIES = frozenset("₾₿⃀")


def detokenize(words: list[str]) -> str:
    """The text of tokenized *words*: spaces between them, but where punctuation, contractions and quotes stand."""
    tokens = f" {' '.join(words)} ".replace(" @-@ ", "-").split()
    opened: dict[str, int] = {}  # quotes so far, by kind
    text, space = "", " "
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else ""
        if _is_cjk(token[0]):
            text += token if before and _is_cjk(before[-1]) else space + token
            space = " "
        elif all(character in _OPENING or _is_currency(character) for character in token):
            text += space + token
            space = ""
        elif _CLOSING.issuperset(token) or (before and token[0] == "'" and _is_letter(token[1:2])):
            text += token
            space = " "
        elif _QUOTES.issuperset(token):
            kind = '"' if _DOUBLE.issuperset(token) else token
            if opened.get(kind, 0) % 2:
                text += token
                space = " "
                opened[kind] += 1
            elif token == "'" and before.endswith("s"):  # the Jones' house
                text += token
                space = " "
            else:
                text += space + token
                space = ""
                opened[kind] = opened.get(kind, 0) + 1
        else:
            text += space + token
            space = " "
    return text.strip()


def _is_letter(character: str) -> bool:
    """Whether it is one; an empty text is none."""
    if character.isascii():
        return character.isalpha()
    code = ord(character)
    if unicodedata.category(character) == "Nl":
        return _ROMAN[0] <= code <= _ROMAN[1]
    return character.isalpha() and not any(first <= code <= last for first, last in _NEWER_LETTERS)


def _is_currency(character: str) -> bool:
    return unicodedata.category(character) == "Sc" and character not in _NEWER_CURRENCIES


def _is_cjk(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _CJK)
