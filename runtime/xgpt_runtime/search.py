"""Beam search in numpy over the step graph: fairseq's, with the same scores, limits and order of candidates.

Beams are never moved. The rows of an image keep their keys and values in one array, and a mask of ancestors says which
of them are a row's own history (`SearchCache` of xgpt_fairseq).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from xgpt_runtime.errors import DataError, check_between

LENPEN: Final = 10  # beyond, powers of a caption's length are no numbers of 32 bits
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SearchOptions:
    """Options of the search, with fairseq's names and xgpt_fairseq's defaults.

    With *no_early_stop*, an image is not done when it has as many captions as beams, but when no unfinished caption can
    become better than these.

    Raises:
        DataError: *lenpen* is beyond `LENPEN`; or *no_early_stop* comes with *no_repeat_ngram_size*, which xgpt_fairseq
            does not search together, either.
    """

    beam: int = 2
    lenpen: float = 1.0
    max_len_b: int = 200
    min_len: int = 1
    no_repeat_ngram_size: int = 0
    no_early_stop: bool = False

    def __post_init__(self) -> None:
        check_between("--lenpen", self.lenpen, -LENPEN, LENPEN)
        if self.no_early_stop and self.no_repeat_ngram_size:
            raise DataError("--no-early-stop is for plain beam search: leave out --no-repeat-ngram-size")

    def divisor(self, length: int) -> float:
        """What the log-probability of a caption of *length* tokens with the end of sentence is divided by."""
        return float(length**self.lenpen)


@dataclass(frozen=True)
class Hypothesis:
    """A caption that the search found.

    Attributes:
        tokens: its ids, without the end of the sentence.
        score: its log-probability, the end included, divided by its length with the end to the power of `lenpen`.
    """

    tokens: tuple[int, ...]
    score: float


class Decoder(Protocol):
    """The step graph with the keys and values of images, and those of their captions so far."""

    def step(self, tokens: Array, position: int, mask: Array, count: int) -> tuple[Array, Array, Array]:
        """Compute the next step of the images that are left.

        Args:
            tokens: (I, B) int64, the newest token of each row.
            position: t, from 0.
            mask: (I, 1, B, (t + 1) · B) bool.
            count: k.

        Returns:
            tuple: the best log-probabilities (I, B, k), descending, their ids, and that of the end (I, B).
        """

    def keep(self, images: Array) -> None:
        """Forget all images but those of these indices."""


def search(
    decoder: Decoder, images: int, *, symbols: int, eos: int, max_positions: int, options: SearchOptions
) -> list[list[Hypothesis]]:
    """Search captions of *images*.

    Args:
        decoder: of these images.
        symbols: the size of the vocabulary.
        eos: the id of the end of a sentence, which is also the first token.
        max_positions: the longest caption in tokens that the model knows, with the end of the sentence.
        options: of the search.

    Returns:
        list: the hypotheses of each image, best first; up to `options.beam`.

    Raises:
        DataError: the beam is below 1 or too large for the vocabulary, or the least length above the longest.
    """
    beam, longest = options.beam, min(options.max_len_b, max_positions - 1)
    if not 1 <= beam <= (symbols - 1) // 2:
        raise DataError(f"the beam size is {beam}; with {symbols} symbols, 1 to {(symbols - 1) // 2} are allowed")
    if options.min_len > longest:
        raise DataError(f"captions of at least {options.min_len} tokens, but at most {longest}")
    found: list[list[Hypothesis]] = [[] for _ in range(images)]
    left = np.arange(images)  # (I,) the images that are not finished
    rows = np.arange(beam)
    tokens = np.full((images, beam, 1), eos)  # (I, B, t + 1)
    scores = np.zeros((images, beam), dtype=np.float32)
    ancestors = np.empty((images, beam, 0), dtype=np.int64)  # (I, B, t) of which row of the image each position is
    for step in range(longest + 1):
        own = np.broadcast_to(rows[:, None], (len(left), beam, 1))
        ancestors = np.concatenate([ancestors, own], axis=2)
        mask = (ancestors[..., None] == rows).reshape(len(left), 1, beam, -1)
        repeats = _repeats(tokens, options.no_repeat_ngram_size) if step < longest else {}
        # Of a row, 2 · beam tokens may be wanted, besides those among the best that may not come.
        count = min(2 * beam + 1 + max(map(len, repeats.values()), default=0), symbols)
        best, ids, end = decoder.step(tokens[..., -1], step, mask, count)
        if step >= longest:
            best, ids = end[..., None], np.full((len(left), beam, 1), eos)
        else:
            best = _allowed(best, ids, repeats, eos if step < options.min_len else None)
        if step == 0:
            best, ids = best[:, :1], ids[:, :1]  # all rows are equal
        values, which, row = _candidates(best + scores[:, : best.shape[1], None], ids, 2 * beam)
        ended = (which == eos) & (values != -np.inf)
        keep = np.ones(len(left), dtype=bool)
        for image in np.flatnonzero(ended[:, :beam].any(axis=1)):
            hypotheses = found[left[image]]
            for candidate in np.flatnonzero(ended[image, :beam]):
                score = values[image, candidate] / np.float32(options.divisor(step + 1))
                words = tokens[image, row[image, candidate], 1:]
                hypotheses.append(Hypothesis(tuple(words.tolist()), float(score)))
            if options.no_early_stop:
                hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
            del hypotheses[beam:]
            keep[image] = len(hypotheses) < beam
        if step >= longest:
            break
        # the best candidates that go on, in their order
        going = np.argsort(ended, axis=1, kind="stable")[:, :beam]
        place = np.arange(len(left))[:, None]
        scores, next_tokens, row = values[place, going], which[place, going], row[place, going]
        if options.no_early_stop:
            keep = _can_improve([found[image] for image in left], scores[:, 0], step + 1, longest, options)
        if not keep.any():
            break
        tokens = np.concatenate([tokens[place, row], next_tokens[..., None]], axis=2)
        ancestors = ancestors[place, row]
        if not keep.all():
            kept = np.flatnonzero(keep)
            decoder.keep(kept)
            left, tokens, scores, ancestors = left[kept], tokens[kept], scores[kept], ancestors[kept]
    return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in found]


def _can_improve(
    found: Sequence[Sequence[Hypothesis]], best: Array, length: int, longest: int, options: SearchOptions
) -> Array:
    """Of each image, whether a caption that goes on may still come among the best that are found, best first.

    A sum of log-probabilities only falls, and is negative: it is divided by the longest length that a caption may have,
    or by the next one where lengths are punished.

    Args:
        best: (I,) float32, the best sum of what goes on after *length* tokens.
        longest: the longest caption, without the end of the sentence.
    """
    worst = [each[-1].score if len(each) == options.beam else -np.inf for each in found]
    reach = best / np.float32(max(options.divisor(length + 1), options.divisor(longest + 1)))
    result: Array = np.array(worst, dtype=np.float32) < reach
    return result


def _candidates(totals: Array, ids: Array, most: int) -> tuple[Array, Array, Array]:
    """The best of all rows of an image: totals (I, R, k) → values, ids and rows (I, most or fewer), descending."""
    images, _, count = totals.shape
    flat = totals.reshape(images, -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, :most]
    place = np.arange(images)[:, None]
    return flat[place, order], ids.reshape(images, -1)[place, order], order // count


def _allowed(best: Array, ids: Array, repeats: dict[tuple[int, int], list[int]], end: int | None) -> Array:
    """*best* (I, B, k) with minus infinity at the tokens that may not come: repeats by image and row, and *end*."""
    barred = np.zeros(ids.shape, dtype=bool) if end is None else ids == end
    for (image, row), tokens in repeats.items():
        barred[image, row] |= np.isin(ids[image, row], tokens)
    return np.where(barred, np.float32(-np.inf), best)


def _repeats(tokens: Array, size: int) -> dict[tuple[int, int], list[int]]:
    """By image and row, the tokens that would complete a sequence of *size* tokens that has been there; 0: none.

    tokens: (I, B, t + 1), the end of sentence at the start included, which counts but for single tokens.
    """
    length = tokens.shape[2]
    found: dict[tuple[int, int], list[int]] = {}
    if size < 1 or length < size:
        return found
    for image, of_image in enumerate(tokens.tolist()):
        for row, given in enumerate(of_image):
            barred = given[1:] if size == 1 else _following(given, size)
            if barred:
                found[image, row] = barred
    return found


def _following(tokens: Sequence[int], size: int) -> list[int]:
    """What followed the last size - 1 *tokens* where they came before."""
    last = tokens[len(tokens) - size + 1 :]
    return [tokens[at + size - 1] for at in range(len(tokens) - size + 1) if tokens[at : at + size - 1] == last]
