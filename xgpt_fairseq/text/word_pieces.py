"""Subwords put together to the words that a reader sees, with their places in the text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from xgpt_fairseq.text.scripts import is_unspaced


class Word(NamedTuple):
    """A word of a text.

    Attributes:
        text: the word.
        start, end: its characters in the text.
        first, last: its subwords, those before *last*.
    """

    text: str
    start: int
    end: int
    first: int
    last: int


def words_of_pieces(pieces: Sequence[str], text: str, bpe: str) -> list[Word]:
    """The words that *pieces* make, in their order.

    Args:
        pieces: subwords, without the end of sentence.
        text: what `Vocabulary.decode` makes of them.
        bpe: `subword_nmt` or `sentencepiece`.

    A word of the text that is not spelled as its subwords are has no characters: it starts and ends where the word
    before it ended. In scripts without spaces, each subword is a word.
    """
    words: list[Word] = []
    position = 0
    for first, last in _groups(pieces, bpe):
        spelled = "".join(pieces[first:last]).replace("@@", "") if bpe == "subword_nmt" else "".join(pieces[first:last])
        spelled = spelled.replace("\u2581", "").strip()
        if not spelled:
            continue
        start, end = _find(spelled, text, position)
        words.append(Word(text[start:end] or spelled, start, end, first, last))
        position = end
    return words


def _groups(pieces: Sequence[str], bpe: str) -> list[tuple[int, int]]:
    starts: list[int] = []
    for number, piece in enumerate(pieces):
        before = pieces[number - 1] if number else ""
        if bpe == "subword_nmt":
            begins = not before.endswith("@@")
        else:
            begins = piece.startswith("\u2581") or any(map(is_unspaced, piece))
        if begins or not number:
            starts.append(number)
    return list(itertools.pairwise([*starts, len(pieces)]))


def _find(word: str, text: str, position: int) -> tuple[int, int]:
    """Where *word* is in *text* from *position* on, spaces within it left out; an empty place if it is not next."""
    start = position
    while start < len(text) and text[start].isspace():
        start += 1
    end = start
    for character in word:
        while end < len(text) and text[end].isspace() and not character.isspace():
            end += 1
        if end == len(text) or text[end] != character:
            found = text.find(word, position)
            return (found, found + len(word)) if found >= 0 else (position, position)
        end += 1
    return start, end
