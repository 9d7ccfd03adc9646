"""How captions are corrupted for the objectives: pure numpy, (tokens, rng, …) → arrays.

Everywhere, *tokens* (T,) are a caption's ids without its end of sentence: special symbols are never masked, because
they are never there.
"""

from __future__ import annotations

import numpy as np


def replace_masked(
    tokens: np.ndarray, chosen: np.ndarray, rng: np.random.Generator, *, mask: int, words: tuple[int, int]
) -> np.ndarray:
    """*tokens* with the *chosen* ones (T,) bool replaced: by *mask* 80 %, a random word 10 %, unchanged 10 %.

    BERT's rule (appendix A.2). *words* is the range of ids, first and one past the last, that random words come from.
    """
    draw = rng.random(len(tokens))
    corrupted = np.where(chosen & (draw < 0.8), mask, tokens)
    random_words = rng.integers(words[0], words[1], size=len(tokens))
    return np.where(chosen & (draw >= 0.8) & (draw < 0.9), random_words, corrupted)


def choose_fragment(length: int, rng: np.random.Generator, *, ratio: float) -> tuple[int, int]:
    """One contiguous fragment (start, end) of round(*ratio* · length) of *length* tokens (IMLM, MASS).

    At least 1 token and never all of them (but for a caption of one token). It lies at the start with probability
    20 %, at the end 20 %, anywhere 60 %.
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
    """Spans (spans, 2) of start and end, in order and apart, that cover round(*ratio* · length) tokens (IDA).

    At least 1 token is covered, and never all of them (but in a caption of one). Lengths are drawn from
    Poisson(*mean_span*) until the budget is used up; the last is cut to what is left of it, and a draw of 0, which
    would cover nothing, is drawn again. *one_span* takes the budget as one span, as M3P does. Spans are at least one
    token apart where the caption has room for that.
    """
    budget = max(1, min(round(ratio * length), length - 1))
    sizes = [budget] if one_span else []
    left = budget - sum(sizes)
    while left > 0:
        size = min(int(rng.poisson(mean_span)), left)
        if size > 0:
            sizes.append(size)
            left -= size
    # The uncovered tokens leave length - budget + 1 gaps to put spans into; two spans in one gap would touch.
    gaps = length - budget + 1
    apart = len(sizes) <= gaps
    places = np.sort(rng.choice(gaps, size=len(sizes), replace=not apart))
    sizes_array = rng.permutation(sizes)  # or the one that was cut would always be the last
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
