"""Diversity of a set of captions: distinct n-grams, self-BLEU, vocabulary, and new n-grams compared with another set.

All of these except the mean length depend on the size of the set: larger sets repeat themselves more, and have more
words. Compare sets of equal size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from xgpt_fairseq.augmentation.filters import ngrams, words

ORDERS = (1, 2, 3)
_BLEU_ORDERS = (1, 2, 3, 4)


def diversity(captions: Sequence[str]) -> dict[str, float]:
    """The measures that do not compare captions with each other.

    Returns:
        dict: `captions`, their number; `mean_length` in words; `vocabulary`, the number of distinct words; and
        `distinct_1`, `distinct_2`, `distinct_3`: distinct n-grams divided by all n-grams, 0 to 1 (Li et al. 2016; 0 if
        there are none).
    """
    tokens = [words(text) for text in captions]
    result: dict[str, float] = {"captions": len(tokens)}
    result["mean_length"] = sum(map(len, tokens)) / len(tokens) if tokens else 0.0
    for n in ORDERS:
        different = {phrase for each in tokens for phrase in ngrams(each, n)}
        total = sum(max(0, len(each) - n + 1) for each in tokens)
        if n == 1:
            result["vocabulary"] = len(different)
        result[f"distinct_{n}"] = len(different) / total if total else 0.0
    return result


def self_bleu(captions: Sequence[str]) -> float:
    """BLEU@4 of every caption against all others as its references (Zhu et al. 2018): 0 (varied) to 1.

    As in the caption metric, counts are summed over the corpus before the ratio, and the brevity penalty uses the
    reference nearest in length (of two, the shorter). Linear in the number of captions: the maximal count of an n-gram
    in the other captions follows from the two captions that have it most often.

    Returns:
        float: also 0 with fewer than two captions.
    """
    counts = [{n: Counter(ngrams(tokens, n)) for n in _BLEU_ORDERS} for tokens in map(words, captions)]
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}  # n-gram → most often, by which caption, next most often
    for number, of_caption in enumerate(counts):
        for phrase, count in _all(of_caption):
            first, owner, second = most.get(phrase, (0, -1, 0))
            most[phrase] = (count, number, first) if count > first else (first, owner, max(second, count))
    correct, guessed = dict.fromkeys(_BLEU_ORDERS, 0), dict.fromkeys(_BLEU_ORDERS, 0)
    for number, of_caption in enumerate(counts):
        for phrase, count in _all(of_caption):
            first, owner, second = most[phrase]
            correct[len(phrase)] += min(count, second if owner == number else first)
            guessed[len(phrase)] += count
    if not all(correct.values()):
        return 0.0
    lengths = np.array([of_caption[1].total() for of_caption in counts])
    brevity = min(0.0, 1 - _nearest_lengths(lengths).sum() / lengths.sum())
    return math.exp(brevity + sum(math.log(correct[n] / guessed[n]) for n in _BLEU_ORDERS) / len(_BLEU_ORDERS))


def _all(of_caption: Mapping[int, Counter[tuple[str, ...]]]) -> Iterable[tuple[tuple[str, ...], int]]:
    return (item for counter in of_caption.values() for item in counter.items())


def _nearest_lengths(lengths: np.ndarray) -> np.ndarray:
    """(captions,) → for each, the nearest length among the others, the shorter one of two."""
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order].astype(np.float64)
    before = np.concatenate([[-np.inf], ascending[:-1]])
    after = np.concatenate([ascending[1:], [np.inf]])
    nearest = np.empty(len(lengths))
    nearest[order] = np.where(ascending - before <= after - ascending, before, after)
    return nearest


def new_ngrams(captions: Iterable[str], known: Iterable[str]) -> dict[str, float]:
    """The share of n-grams in *captions*, counted with repetitions, that are nowhere in *known*.

    Returns:
        dict: n as a string, "1" to "3" → 0 to 1.
    """
    tokens, known_tokens = [words(text) for text in captions], [words(text) for text in known]
    shares = {}
    for n in ORDERS:
        before = {phrase for each in known_tokens for phrase in ngrams(each, n)}
        total = [phrase not in before for each in tokens for phrase in ngrams(each, n)]
        shares[str(n)] = sum(total) / len(total) if total else 0.0
    return shares


def sample(captions: Sequence[str], size: int, seed: int) -> list[str]:
    """*size* random captions, in their order; all, if there are not more."""
    if len(captions) <= size:
        return list(captions)
    chosen = np.random.default_rng([seed, len(captions), size]).choice(len(captions), size, replace=False)
    return [captions[index] for index in np.sort(chosen)]
