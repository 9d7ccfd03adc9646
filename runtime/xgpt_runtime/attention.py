"""Where a captioner looks for each word of a caption, as `word_attention` and `word_pieces` of xgpt_fairseq have it."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xgpt_runtime.errors import DataError

Array = npt.NDArray[Any]

# How Unicode's names of letters begin that are written without spaces between words.
_SCRIPTS = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC ITERATION MARK", "HIRAGANA", "KATAKANA",
    "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE",
)  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """Whose attention is averaged: all layers and heads, or chosen ones, counted from 1."""

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    def check(self, *, layers: int, heads: int) -> None:
        """Check them against what a model has.

        Raises:
            DataError: it has no such layer or head.
        """
        for name, chosen, most in (("layer", self.layers, layers), ("head", self.heads, heads)):
            for number in chosen or ():
                if not 1 <= number <= most:
                    raise DataError(f"attention of {name} {number}: the model's are 1 to {most}")


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


@dataclass(frozen=True)
class WordAttention:
    """The words of a caption, and where the model looks for each.

    Attributes:
        words: with their places in the caption's text.
        weights: (words, n) of the photo's n regions; each row sums to 1.
        boxes: (n, 4) of the regions, x1 y1 x2 y2 in 0..1.
    """

    words: Sequence[Word]
    weights: Array
    boxes: Array


def mean_weights(weights: Array, heads: Heads) -> Array:
    """The mean of layers and heads: (layers, I, heads, T, N) → (I, T, N), whose rows sum to 1."""
    if heads.layers is not None:
        weights = weights[[number - 1 for number in heads.layers]]
    if heads.heads is not None:
        weights = weights[:, :, [number - 1 for number in heads.heads]]
    mean = weights.mean(axis=(0, 2))
    result: Array = mean / mean.sum(axis=-1, keepdims=True)
    return result


def word_attention(pieces: Sequence[str], text: str, weights: Array, boxes: Array, *, moses: bool) -> WordAttention:
    """The attention by words of a caption, from that by tokens: a word has the mean of its subwords.

    Args:
        pieces: the subwords, without the end of the sentence.
        text: the caption.
        weights: (T, n), those of *pieces* first.
        boxes: (n, 4).
        moses: whether the subwords are those of subword-nmt, else of sentencepiece.
    """
    words = words_of_pieces(pieces, text, moses=moses)
    means = [weights[word.first : word.last].mean(axis=0) for word in words]
    return WordAttention(words, np.array(means, dtype=np.float32).reshape(len(words), len(boxes)), boxes)


def words_of_pieces(pieces: Sequence[str], text: str, *, moses: bool) -> list[Word]:
    """The words that *pieces* make, in their order.

    A word of the text that is not spelled as its subwords are has no characters: it starts and ends where the word
    before it ended. In scripts without spaces, each subword of sentencepiece is a word.
    """
    words: list[Word] = []
    position = 0
    for first, last in _groups(pieces, moses):
        joined = "".join(pieces[first:last])
        spelled = (joined.replace("@@", "") if moses else joined).replace("\u2581", "").strip()
        if not spelled:
            continue
        start, end = _find(spelled, text, position)
        words.append(Word(text[start:end] or spelled, start, end, first, last))
        position = end
    return words


def _groups(pieces: Sequence[str], moses: bool) -> list[tuple[int, int]]:
    starts: list[int] = []
    for number, piece in enumerate(pieces):
        if moses:
            begins = not (number and pieces[number - 1].endswith("@@"))
        else:
            begins = piece.startswith("\u2581") or any(map(_is_unspaced, piece))
        if begins or not number:
            starts.append(number)
    return list(pairwise([*starts, len(pieces)]))


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


@functools.lru_cache(maxsize=1 << 16)
def _is_unspaced(character: str) -> bool:
    """Whether *character* is a letter, or a mark on one, of a script that is written without spaces."""
    return unicodedata.category(character)[0] in "LM" and unicodedata.name(character, "").startswith(_SCRIPTS)
