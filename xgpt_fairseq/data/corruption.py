"""Masks and spans for the objectives: pure numpy, (tokens, rng, …) → arrays.

In all functions *tokens* (T,) are a caption's ids without the end of sentence, so special symbols are never masked.
"""

from __future__ import annotations

import numpy as np


def replace_masked(
    tokens: np.ndarray, chosen: np.ndarray, rng: np.random.Generator, *, mask: int, words: tuple[int, int]
) -> np.ndarray:
    """Replace the *chosen* (T,) bool of *tokens*: 80 % by *mask*, 10 % by a random word, 10 % not at all.

    BERT's rule (appendix A.2). *words* is the range of ids for random words, first and one past the last.
    """
    draw = rng.random(len(tokens))
    corrupted = np.where(chosen & (draw < 0.8), mask, tokens)
    random_words = rng.integers(words[0], words[1], size=len(tokens))
    return np.where(chosen & (draw >= 0.8) & (draw < 0.9), random_words, corrupted)


def choose_fragment(length: int, rng: np.random.Generator, *, ratio: float) -> tuple[int, int]:
    """One contiguous fragment (start, end) of round(*ratio* · length) of *length* tokens (IMLM, MASS).

    At least 1 token and never all of them (except for a caption of one token). It is at the start with probability
    20 %, at the end with 20 %, anywhere with 60 %.
    """
    size = max(1, min(round(ratio * length), length - 1))
    last_start = length - size
    draw = rng.random()
    if draw < 0.2:
        start = 0
    elif draw < 0.4:
        start = last_start
    else:
        start = int(rng.integers(0, last_start + 1))
    return start, start + size


def choose_tokens(length: int, rng: np.random.Generator, *, ratio: float) -> np.ndarray:
    """(length,) bool: round(*ratio* · length) tokens at random, at least 1 (MLM)."""
    chosen = np.zeros(length, dtype=bool)
    chosen[rng.permutation(length)[: max(1, round(ratio * length))]] = True
    return chosen


def choose_spans(
    length: int, rng: np.random.Generator, *, ratio: float, mean_span: float = 3.0, one_span: bool = False
) -> np.ndarray:
    """Disjoint spans (spans, 2) of start and end, in order, that cover round(*ratio* · length) tokens (IDA).

    They cover at least 1 token and never all of them (except in a caption of one). Lengths are drawn from
    Poisson(*mean_span*) until the budget is used up; the last is cut to the remaining budget, and draws of 0 are
    repeated. *one_span* makes the budget one span, as M3P does. Spans are at least one token apart if the caption has
    room for that.
    """
    budget = max(1, min(round(ratio * length), length - 1))
    sizes = [budget] if one_span else []
    left = budget - sum(sizes)
    while left > 0:
        size = min(int(rng.poisson(mean_span)), left)
        if size > 0:
            sizes.append(size)
            left -= size
    # The uncovered tokens leave length - budget + 1 gaps for spans; two spans in the same gap would touch.
    gaps = length - budget + 1
    apart = len(sizes) <= gaps
    places = np.sort(rng.choice(gaps, size=len(sizes), replace=not apart))
    sizes_array = rng.permutation(sizes)  # otherwise the one that was cut would always be last
    starts = places + np.cumsum(sizes_array) - sizes_array
    return np.stack([starts, starts + sizes_array], axis=1)


def infill(tokens: np.ndarray, spans: np.ndarray, *, mask: int, multi: bool = False) -> np.ndarray:
    """Replace each of *spans* by ONE *mask* (BART's infilling), or with *multi* by one per token (Table 6)."""
    covered = np.zeros(len(tokens), dtype=bool)
    first = np.zeros(len(tokens), dtype=bool)
    for start, end in spans:
        covered[start:end] = True
        first[start] = True
    corrupted = np.where(covered, mask, tokens)
    return corrupted if multi else corrupted[~covered | first]
