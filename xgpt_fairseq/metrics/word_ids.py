"""Token ids → word ids, for many captions at once: words are compared without making text of them."""

from __future__ import annotations

import string
from typing import Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.hashing import mix
from xgpt_fairseq.metrics.ngrams import Ints, Words
from xgpt_fairseq.text.vocabulary import Vocabulary

# What is no word: punctuation, and what Moses makes of it.
_PUNCTUATION: Final = frozenset(
    [
        *string.punctuation,
        "...",
        "--",
        "``",
        "''",
        "&quot;",
        "&apos;",
        "&amp;",
        "&#124;",
        "&#91;",
        "&#93;",
        "&lt;",
        "&gt;",
    ]
)
_CONTINUED, _BEGIN = "@@", "▁"
END: Final = np.uint64(1)


class WordIds:
    """Joins the subwords of captions to words, and leaves punctuation out, as the metrics' tokenizer does.

    Args:
        vocabulary: whose tokens are joined; both kinds of BPE.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        dictionary = vocabulary.dictionary
        symbols = dictionary.symbols
        self._eos, self._pad = dictionary.eos(), dictionary.pad()
        self._begins_words = vocabulary.bpe == "sentencepiece"
        # sentencepiece: the token begins a word; subword-nmt: the next token does
        self._mark = np.array(
            [s.startswith(_BEGIN) if self._begins_words else not s.endswith(_CONTINUED) for s in symbols]
        )
        # and the mark of a word's beginning, where it stands alone
        self._punctuation = np.array([s.removeprefix(_BEGIN) in _PUNCTUATION or s == _BEGIN for s in symbols])

    def __call__(
        self, tokens: npt.NDArray[np.integer], *, with_end: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Words, Ints]:
        """The words of captions.

        Args:
            tokens: (N, T) ids, padded on the right; the end of sentence counts as padding.
            with_end: (N,) whether the end of sentence is a word of the caption; None: of none.

        Returns:
            tuple: words (W,), concatenated; lengths (N,).
        """
        count, width = tokens.shape
        inside = (tokens != self._eos) & (tokens != self._pad)
        marks = self._mark[tokens]
        begins, ends = np.zeros((2, count, width), dtype=bool)
        if self._begins_words:
            # punctuation is a word of its own; Moses has split it off already
            begins = inside & (marks | self._punctuation[tokens])
            begins[:, 1:] |= inside[:, 1:] & self._punctuation[tokens[:, :-1]]
            begins[:, :1] |= inside[:, :1]
            ends[:, :-1] = inside[:, :-1] & (begins[:, 1:] | ~inside[:, 1:])
            ends[:, -1:] = inside[:, -1:]
        else:
            begins[:, 1:] = inside[:, 1:] & marks[:, :-1]
            begins[:, :1] = inside[:, :1]
            ends[:, :-1] = inside[:, :-1] & (marks[:, :-1] | ~inside[:, 1:])
            ends[:, -1:] = inside[:, -1:]
        ids = mix(tokens.astype(np.uint64) + np.uint64(2))
        words = np.zeros((count, width + 1), dtype=np.uint64)
        running = np.zeros(count, dtype=np.uint64)
        for column in range(width):
            running = np.where(begins[:, column], np.uint64(0), running)
            running = mix(running * np.uint64(0x9E3779B97F4A7C15) + ids[:, column])
            words[:, column] = running
        kept = np.zeros((count, width + 1), dtype=bool)
        kept[:, :-1] = ends & ~(begins & ends & self._punctuation[tokens])
        if with_end is not None:
            words[:, -1], kept[:, -1] = END, with_end
        return words[kept], kept.sum(axis=1)
