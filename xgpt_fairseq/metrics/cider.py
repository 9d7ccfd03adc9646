"""CIDEr-D (Vedantam et al. 2015) of single captions, as pycocoevalcap computes it for a whole split at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # of the length penalty

Ngram = tuple[str, ...]


class _Weighted(NamedTuple):
    """A caption's TF-IDF weights of n-grams and their norm, for each order, and its length."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


class NgramValue(NamedTuple):
    """What an n-gram of a caption does for its CIDEr.

    Attributes:
        ngram: its words.
        reward: what it adds. The rewards of a caption's n-grams sum up to its score.
        cost: what the other n-grams of its length would add more without it, which makes the caption's vector longer.
    """

    ngram: Ngram
    reward: float
    cost: float


class Cider:
    """Scores captions against the references of their image; document frequencies are over images.

    Args:
        references: the tokenized captions of each image of the split, words separated by spaces.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._log_images = math.log(len(references))
        self._images_with = Counter(
            ngram
            for captions in references
            for ngram in {ngram for caption in captions for n in ORDERS for ngram in _ngrams(caption.split(), n)}
        )
        self._references = [[self._weighted(caption) for caption in captions] for captions in references]

    def score(self, image_index: int, caption: str) -> float:
        """CIDEr-D of the tokenized *caption* of an image, 0 to 10 (papers print 100 times the mean)."""
        references = self._references[image_index]
        candidate = self._weighted(caption)
        return 10.0 * sum(_similarity(candidate, reference) for reference in references) / len(references)

    def explain(self, image_index: int, caption: str) -> list[NgramValue]:
        """What each n-gram of *caption*, tokenized, does for `score`, in the caption's order, the shortest first."""
        references = self._references[image_index]
        candidate = self._weighted(caption)
        values: list[NgramValue] = []
        for order, weights in enumerate(candidate.weights):
            norm = candidate.norms[order]
            rewards = dict.fromkeys(weights, 0.0)
            for reference in references:
                scale = 10.0 * _penalty(candidate, reference) / (len(ORDERS) * len(references))
                for ngram, weight in reference.weights[order].items():
                    if (ours := weights.get(ngram, 0.0)) and weight:
                        rewards[ngram] += scale * min(ours, weight) * weight / (norm * reference.norms[order])
            whole = sum(rewards.values())
            for ngram, weight in weights.items():
                others, rest = whole - rewards[ngram], math.sqrt(max(norm**2 - weight**2, 0.0))
                # without others that are rewarded there is nothing to lose
                cost = others * (norm / rest - 1) if others > 0 and rest > 0 else 0.0
                values.append(NgramValue(ngram, rewards[ngram], cost))
        return values

    def _weighted(self, caption: str) -> _Weighted:
        words = caption.split()
        weights = [
            {
                ngram: count * (self._log_images - math.log(max(1, self._images_with[ngram])))
                for ngram, count in Counter(_ngrams(words, n)).items()
            }
            for n in ORDERS
        ]
        norms = [math.sqrt(sum(weight**2 for weight in of_order.values())) for of_order in weights]
        return _Weighted(weights, norms, max(len(words) - 1, 0))  # pycocoevalcap counts bigrams


def _ngrams(words: Sequence[str], n: int) -> list[Ngram]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _similarity(candidate: _Weighted, reference: _Weighted) -> float:
    """The mean over orders of the cosine, with weights clipped to the reference's, times the length penalty."""
    total = 0.0
    for order in range(len(ORDERS)):
        weights = candidate.weights[order]
        of_reference = reference.weights[order].items()
        product = sum(min(weights[ngram], weight) * weight for ngram, weight in of_reference if ngram in weights)
        if product:
            total += product / (candidate.norms[order] * reference.norms[order])
    return _penalty(candidate, reference) * total / len(ORDERS)


def _penalty(candidate: _Weighted, reference: _Weighted) -> float:
    return math.exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
