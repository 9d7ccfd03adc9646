"""Holds out lines for validation in one pass over a corpus.

The N distinct lines with the smallest token hash form the validation set (a min-hash sample): a uniform sample of the
distinct lines, spread over the whole corpus, that depends only on the set of lines.
"""

from __future__ import annotations

import base64
import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# What is passed on to training: the tokens of some sentences, and the number of tokens of each.
Sentences = tuple[npt.NDArray[Any], npt.NDArray[np.int32]]


@dataclass
class _Line:
    """A held-out line, its split into sentences, and its number of copies."""

    sizes: npt.NDArray[np.int32]
    copies: int


class HeldOut:
    """The *limit* lines with the lowest hashes among those processed so far.

    All copies of such a line are kept from training. When a line with a lower hash arrives, the held-out line with the
    highest hash goes to training, with all its copies.

    Args:
        limit: number of held-out lines.
        dtype: type of the tokens.
        state: a result of `to_json`, to resume from there.
    """

    def __init__(self, limit: int, dtype: npt.DTypeLike, state: list[Any] | None = None) -> None:
        self.limit = limit
        self._dtype = np.dtype(dtype)
        self._keys: list[tuple[int, bytes]] = []  # hash and tokens, ascending
        self._lines: dict[tuple[int, bytes], _Line] = {}
        for number, tokens, sizes, copies in state or []:
            key = (number, base64.b64decode(tokens))
            self._keys.append(key)
            self._lines[key] = _Line(np.array(sizes, dtype=np.int32), copies)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def copies(self) -> int:
        """The number of held-out lines, copies included."""
        return sum(line.copies for line in self._lines.values())

    def process(
        self,
        tokens: npt.NDArray[Any],
        sizes: npt.NDArray[np.int32],
        pieces: npt.NDArray[np.int32],
        hashes: npt.NDArray[np.uint64],
    ) -> Iterator[Sentences]:
        """Process some lines, and yield what goes to training, in order.

        Args:
            tokens: (sum of *sizes*,) of all lines.
            sizes: (sentences,) tokens of each sentence.
            pieces: (lines,) sentences of each line.
            hashes: (lines,) of each line's tokens.
        """
        if not self.limit:
            yield tokens, sizes
            return
        sentence_at = np.concatenate([[0], np.cumsum(pieces)])
        token_at = np.concatenate([[0], np.cumsum(sizes)])[sentence_at]

        def lines(begin: int, end: int) -> Sentences:
            return tokens[token_at[begin] : token_at[end]], sizes[sentence_at[begin] : sentence_at[end]]

        begin = 0
        for line in np.flatnonzero(hashes <= np.uint64(self._highest)).tolist():
            number = int(hashes[line])
            if number > self._highest:  # which may have decreased meanwhile
                continue
            yield lines(begin, line)
            begin = line + 1
            yield from self._hold(number, *lines(line, line + 1))
        yield lines(begin, len(pieces))

    def sentences(self) -> Sentences:
        """The held-out lines without copies, by ascending hash."""
        tokens = np.frombuffer(b"".join(tokens for _, tokens in self._keys), dtype=self._dtype)
        sizes = [self._lines[key].sizes for key in self._keys]
        return tokens, np.concatenate(sizes) if sizes else np.empty(0, np.int32)

    def to_json(self) -> list[Any]:
        """The state from which a run can resume."""
        return [
            [number, base64.b64encode(tokens).decode("ascii"), line.sizes.tolist(), line.copies]
            for (number, tokens), line in zip(self._keys, map(self._lines.__getitem__, self._keys), strict=True)
        ]

    @property
    def _highest(self) -> int:
        return self._keys[-1][0] if len(self._keys) == self.limit else 2**64 - 1

    def _hold(self, number: int, tokens: npt.NDArray[Any], sizes: npt.NDArray[np.int32]) -> Iterator[Sentences]:
        key = (number, tokens.tobytes())
        if key in self._lines:
            self._lines[key].copies += 1
            return
        bisect.insort(self._keys, key)
        self._lines[key] = _Line(sizes.copy(), 1)
        if len(self._keys) > self.limit:
            highest = self._keys.pop()
            line = self._lines.pop(highest)
            yield np.frombuffer(highest[1] * line.copies, dtype=self._dtype), np.tile(line.sizes, line.copies)
