"""CIDEr-D and BLEU@4 of many captions at once, in numpy, for rewards in training.

Captions are sequences of word ids, concatenated: `words` (W,) uint64 and `lengths` (N,). An n-gram is a 64-bit hash of
its words, so that a caption's n-grams are compared by sorting and searching; the probability that any two of ten
million n-grams share a hash is 3e-6.

CIDEr-D: Vedantam et al. 2015; BLEU: Papineni et al. 2002; both as pycocoevalcap computes them for single captions.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.hashing import mix

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ORDERS: Final = 4
SIGMA: Final = 6.0  # of CIDEr-D's length penalty
# pycocoevalcap's smoothing of a caption's BLEU (bleu_scorer.py)
_TINY: Final = 1e-15
_SMALL: Final = 1e-9


_ORDER_SALTS: Final = mix(np.arange(1, ORDERS + 1, dtype=np.uint64))


class _Counts(NamedTuple):
    """The n-grams of captions: each n-gram of a caption once.

    Attributes:
        hashes: (E,) of n-grams.
        captions, orders: (E,) which caption, and n - 1.
        counts: (E,) how often the caption has it.
    """

    hashes: Words
    captions: Ints
    orders: Ints
    counts: Floats


def _count(words: Words, lengths: Ints) -> _Counts:
    """The n-grams of captions that are concatenated."""
    caption = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here to the caption's end
    mixed = mix(words + np.uint64(0x9E3779B97F4A7C15))
    hashes, captions, orders = [], [], []
    running = np.zeros_like(mixed)
    for n in range(ORDERS):
        # of the n-gram that begins at each word; at a caption's end it is not used
        running = mix(running * np.uint64(0x9E3779B97F4A7C15) + np.roll(mixed, -n))
        whole = np.flatnonzero(left > n)
        hashes.append(running[whole] ^ _ORDER_SALTS[n])
        captions.append(caption[whole])
        orders.append(np.full(len(whole), n))
    all_hashes, all_captions, all_orders = np.concatenate(hashes), np.concatenate(captions), np.concatenate(orders)
    _, first, counts = np.unique(_keys(all_hashes, all_captions), return_index=True, return_counts=True)
    return _Counts(all_hashes[first], all_captions[first], all_orders[first], counts.astype(np.float64))


def _keys(hashes: Words, captions: Ints) -> Words:
    """A hash of an n-gram in a caption."""
    return mix(hashes + mix(captions.astype(np.uint64) + np.uint64(1)))


class NgramScorer:
    """Scores captions against the references of their images.

    Args:
        words, lengths: the references, concatenated; see the module.
        images: (N,) the image of each reference: 0, 1, … in this order, each with one reference at least.
    """

    def __init__(self, words: Words, lengths: Ints, images: Ints) -> None:
        self._num_images = int(images[-1]) + 1
        self._first = np.searchsorted(images, np.arange(self._num_images))  # an image's first reference
        self._references = np.bincount(images)  # (images,) how many it has
        self._lengths = np.asarray(lengths, dtype=np.int64)
        found = _count(words, self._lengths)
        _, first = np.unique(_keys(found.hashes, images[found.captions]), return_index=True)
        self._known, self._frequencies = np.unique(found.hashes[first], return_counts=True)  # images with each n-gram
        weights = found.counts * self._idf(found.hashes)
        keys = _keys(found.hashes, found.captions)
        by_key = np.argsort(keys)
        self._keys, self._weights, self._counts = keys[by_key], weights[by_key], found.counts[by_key]
        self._norms = _norms(found, weights, len(self._lengths))

    def _idf(self, hashes: Words) -> Floats:
        """(E,) log of images over images with the n-gram; of one that no reference has, as of one image."""
        frequencies = np.ones(len(hashes))
        if len(self._known):
            at = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
            frequencies = np.where(self._known[at] == hashes, self._frequencies[at], 1)
        idf: Floats = np.log(self._num_images) - np.log(frequencies)
        return idf

    def score(self, words: Words, lengths: Ints, images: Ints) -> tuple[Floats, Floats]:
        """CIDEr-D (0 to 10) and BLEU@4 (0 to 1) of captions, (N,) both.

        Args:
            words, lengths: the captions, concatenated.
            images: (N,) the image of each caption.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        found = _count(words, lengths)
        weights = found.counts * self._idf(found.hashes)
        norms = _norms(found, weights, len(lengths))

        # A pair is a caption with one of its references; each n-gram of a caption is looked up in all of those.
        per_caption = self._references[images]  # (N,)
        first_pair = np.cumsum(per_caption) - per_caption
        times = per_caption[found.captions]
        entry = np.repeat(np.arange(len(times)), times)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(times) - times, times)
        reference = self._first[images[found.captions[entry]]] + within
        keys = _keys(found.hashes[entry], reference)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hit = self._keys[at] == keys
        pair = first_pair[found.captions[entry]] + within
        of_reference = np.where(hit, self._weights[at], 0.0)
        product = np.minimum(weights[entry], of_reference) * of_reference
        num_pairs = int(per_caption.sum())
        dots = np.bincount(pair * ORDERS + found.orders[entry], product, num_pairs * ORDERS).reshape(-1, ORDERS)

        caption = np.repeat(np.arange(len(lengths)), per_caption)  # of each pair
        pair_reference = self._first[images[caption]] + np.arange(num_pairs) - first_pair[caption]
        scale = norms[caption] * self._norms[pair_reference]
        similarity = np.divide(dots, scale, out=np.zeros_like(dots), where=dots > 0).mean(axis=1)
        # pycocoevalcap takes the number of bigrams for the length
        bigrams, of_references = (np.maximum(each - 1, 0) for each in (lengths[caption], self._lengths[pair_reference]))
        similarity *= np.exp(-((bigrams - of_references) ** 2) / (2 * SIGMA**2))
        cider = 10.0 * np.bincount(caption, similarity, len(lengths)) / per_caption

        most = np.zeros(len(times))  # how often a reference has the n-gram
        np.maximum.at(most, entry, np.where(hit, self._counts[at], 0.0))
        clipped = np.minimum(found.counts, most)
        places = found.captions * ORDERS + found.orders
        correct = np.bincount(places, clipped, len(lengths) * ORDERS).reshape(-1, ORDERS).astype(np.float64)
        bleu = self._bleu(correct, lengths, caption, self._lengths[pair_reference])
        return cider, bleu

    @staticmethod
    def _bleu(correct: Floats, lengths: Ints, caption: Ints, reference_lengths: Ints) -> Floats:
        guesses = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)
        precision = np.exp(np.log((correct + _TINY) / (guesses + _SMALL)).mean(axis=1))
        # the length of the reference that is nearest; of two, the shorter
        distance = np.abs(reference_lengths - lengths[caption]) * (1 << 20) + reference_lengths
        nearest = np.full(len(lengths), np.iinfo(np.int64).max)
        np.minimum.at(nearest, caption, distance)
        ratio = (lengths + _TINY) / (nearest % (1 << 20) + _SMALL)
        bleu: Floats = precision * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
        return bleu


def _norms(found: _Counts, weights: Floats, captions: int) -> Floats:
    """(N, ORDERS) lengths of captions' vectors of weights."""
    squares = np.bincount(found.captions * ORDERS + found.orders, weights**2, captions * ORDERS)
    norms: Floats = np.sqrt(squares.reshape(captions, ORDERS))
    return norms
