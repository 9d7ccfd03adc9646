"""Recall and ranks of retrieval, from any model's matrix of scores (captions, images).

The reported values are expectations over random orders of ties: a scorer with equal scores for all pairs gets the
values of chance, not 100, and the order of the files has no effect. Let e be the number of candidates with the score of
the best right one, r the number of right ones among them, and g the number of wrong ones with higher scores. Then

    P(a right one among the first k) = 1 - C(e - j, r) / C(e, r)    j = k - g, within 0 … e
    expected rank of the first right one = g + (e + 1) / (r + 1)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xgpt_fairseq.errors import DataError

RANKS = (1, 5, 10)
BLOCK_VALUES = 1 << 24  # scores in memory at once


@dataclass(frozen=True)
class Recall:
    """Recall over a set of queries.

    Attributes:
        at: k → the share of queries (0 to 1) with a right one among the k best candidates.
        chance: the same for random scores.
        median_rank: median over queries of the (expected) rank of the first right candidate; 1 is the best.
        queries, candidates: their numbers.
    """

    at: dict[int, float]
    chance: dict[int, float]
    median_rank: float
    queries: int
    candidates: int


def image_retrieval(scores: np.ndarray, image_of_caption: np.ndarray, ranks: Sequence[int] = RANKS) -> Recall:
    """Retrieve the image of each caption: R@k and median rank.

    Args:
        scores: (C, I) of each caption and image, higher is better; may be memory-mapped, and is read in blocks.
        image_of_caption: (C,) the column of each caption's image.

    Raises:
        DataError: a score is not a number, or shapes do not agree.
    """
    _check(scores, image_of_caption)
    step = max(1, BLOCK_VALUES // scores.shape[1])
    columns = np.arange(scores.shape[1])
    blocks = (
        (_finite(scores[i : i + step], i, columns), image_of_caption[i : i + step, None] == columns)
        for i in range(0, len(scores), step)
    )
    return _recall(blocks, ranks, candidates=scores.shape[1])


def caption_retrieval(scores: np.ndarray, image_of_caption: np.ndarray, ranks: Sequence[int] = RANKS) -> Recall:
    """Retrieve a caption of each image that has one; any of its captions is right. See `image_retrieval`."""
    _check(scores, image_of_caption)
    step = max(1, BLOCK_VALUES // scores.shape[0])
    images = np.unique(image_of_caption)
    blocks = (
        (_finite(scores[:, images[i : i + step]], 0, images[i:]).T, images[i : i + step, None] == image_of_caption)
        for i in range(0, len(images), step)
    )
    return _recall(blocks, ranks, candidates=scores.shape[0])


def _recall(blocks: Iterator[tuple[np.ndarray, np.ndarray]], ranks: Sequence[int], *, candidates: int) -> Recall:
    """Blocks of scores (Q, T) with right (Q, T) bool → recall over all queries Q."""
    found: dict[int, list[np.ndarray]] = {k: [] for k in ranks}
    by_chance: dict[int, list[np.ndarray]] = {k: [] for k in ranks}
    first = []
    for scores, right in blocks:
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)  # (Q, 1)
        higher = (scores > best).sum(axis=1)  # (Q,), all of them wrong
        equal, right_equal = (scores == best).sum(axis=1), (right & (scores == best)).sum(axis=1)
        first.append(higher + (equal + 1) / (right_equal + 1))
        total = right.sum(axis=1)
        for k in ranks:
            found[k].append(_among_first(k - higher, equal, right_equal))
            by_chance[k].append(_among_first(np.full_like(total, k), np.full_like(total, candidates), total))
    rank = np.concatenate(first)
    return Recall(
        at={k: float(np.concatenate(values).mean()) for k, values in found.items()},
        chance={k: float(np.concatenate(values).mean()) for k, values in by_chance.items()},
        median_rank=float(np.median(rank)),
        queries=len(rank),
        candidates=candidates,
    )


def _among_first(places: np.ndarray, equal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """P(one of *right* is among the first *places* of *equal* in random order), all (Q,)."""
    places = places.clip(0, equal)
    none = np.ones(len(places))
    for number in range(int(right.max(initial=0))):  # C(e - j, r) / C(e, r), factor by factor
        some = number < right
        factor = (equal - places - number).clip(0) / np.where(some, equal - number, 1)
        none *= np.where(some, factor, 1.0)
    return 1 - none


def _check(scores: np.ndarray, image_of_caption: np.ndarray) -> None:
    if scores.ndim != 2 or len(scores) != len(image_of_caption) or not scores.size:
        raise DataError(
            f"scores have shape {tuple(scores.shape)}; for {len(image_of_caption)} captions they must be "
            f"({len(image_of_caption)}, images)"
        )
    if image_of_caption.min() < 0 or image_of_caption.max() >= scores.shape[1]:
        raise DataError(
            f"a caption's image is number {image_of_caption.max()}, but there are scores of {scores.shape[1]} images"
        )


def _finite(scores: np.ndarray, first: int, columns: np.ndarray) -> np.ndarray:
    """*scores*, checked to be finite; rows are the captions from *first* on, columns the images *columns*."""
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        caption, image = bad[0]
        raise DataError(f"the score of caption {first + caption} and image {columns[image]} is not a finite number")
    return scores
