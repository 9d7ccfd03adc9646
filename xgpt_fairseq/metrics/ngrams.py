"""CIDEr-D and BLEU@4 of many captions at once, in numpy, for rewards in training and for validation.

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
# Of millions of references, so many captions, and so many n-grams, are sorted at once: as memory for millions is not
# needed thrice, and what fits into a cache is sorted faster.
_CAPTIONS: Final = 4096
_NGRAMS: Final = 1 << 19


class _Counts(NamedTuple):
    """The n-grams of captions: each n-gram of a caption once, one caption behind the other.

    Attributes:
        hashes: (E,) of n-grams.
        captions, orders: (E,) which caption, and n - 1.
        counts: (E,) how often the caption has it.
    """

    hashes: Words
    captions: Ints
    orders: npt.NDArray[np.integer]
    counts: npt.NDArray[np.integer]


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
    order = np.lexsort((all_hashes, all_captions))
    all_hashes, all_captions = all_hashes[order], all_captions[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (all_hashes[1:] != all_hashes[:-1]) | (all_captions[1:] != all_captions[:-1])
    first = np.flatnonzero(new)
    counts = np.diff(np.append(first, len(order)))
    return _Counts(all_hashes[first], all_captions[first], all_orders[order[first]], counts)


def _keys(hashes: Words, captions: Ints) -> Words:
    """A hash of an n-gram in a caption."""
    return mix(hashes + mix(captions.astype(np.uint64) + np.uint64(1)))


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """The concatenation of starts[i], …, starts[i] + sizes[i] - 1 for each i."""
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)


def _places(keys: Words, wanted: Words) -> Ints:
    """Where each of *wanted* is in *keys*, sorted; of one that is not there, the number of keys."""
    at = np.searchsorted(keys, wanted)
    inside = np.flatnonzero(at < len(keys))
    at[inside[keys[at[inside]] != wanted[inside]]] = len(keys)
    return at


class Comparison(NamedTuple):
    """Captions, each against the references of its image.

    Attributes:
        cider: (N,) CIDEr-D, 0 to 10.
        correct: (N, ORDERS) n-grams that a reference has, too: as often as the one that has it most often.
        guesses: (N, ORDERS) n-grams of the caption.
        nearest: (N,) words of the reference whose length is nearest; of two, the shorter.
    """

    cider: Floats
    correct: Floats
    guesses: Ints
    nearest: Ints


class NgramScorer:
    """Scores captions against the references of their images.

    It keeps 14 bytes of each reference's n-grams, reference by reference, so that captions are compared with the few
    thousand of their images alone.

    Args:
        words, lengths: the references, concatenated; see the module.
        images: (N,) the image of each reference: 0, 1, … in this order, each with one reference at least.
    """

    def __init__(self, words: Words, lengths: Ints, images: Ints) -> None:
        self._log_images = np.log(int(images[-1]) + 1)
        self._references = np.bincount(images)  # (images,) how many it has
        self._first = np.cumsum(self._references) - self._references  # an image's first reference
        self._lengths = np.asarray(lengths, dtype=np.int64)
        # at most: an n-gram that a caption has twice is one
        room = sum(int(np.maximum(self._lengths - n, 0).sum()) for n in range(ORDERS))
        self._hashes = np.empty(room, dtype=np.uint64)
        self._orders = np.empty(room, dtype=np.uint8)
        self._counts = np.empty(room, dtype=np.min_scalar_type(int(self._lengths.max(initial=0))))
        self._bounds = np.zeros(len(self._lengths) + 1, dtype=np.int64)  # reference i has bounds[i] to bounds[i + 1]
        ends = np.append(0, np.cumsum(self._lengths))
        for start in range(0, len(self._lengths), _CAPTIONS):
            stop = min(start + _CAPTIONS, len(self._lengths))
            found = _count(words[ends[start] : ends[stop]], self._lengths[start:stop])
            begin = self._bounds[start]
            self._bounds[start + 1 : stop + 1] = begin + np.cumsum(np.bincount(found.captions, minlength=stop - start))
            entries = slice(begin, self._bounds[stop])
            self._hashes[entries], self._orders[entries], self._counts[entries] = (
                found.hashes,
                found.orders,
                found.counts,
            )
        of_image = np.repeat(images.astype(np.int32), np.diff(self._bounds))
        self._frequencies, self._known, known_frequencies = _images_with(self._hashes[: self._bounds[-1]], of_image)
        # of one that no reference has: as of one image
        self._known_frequencies = np.append(known_frequencies, 1)

    def _idf(self, frequencies: npt.NDArray[np.integer]) -> Floats:
        """(E,) log of images over images with the n-gram."""
        idf: Floats = self._log_images - np.log(frequencies.astype(np.float64))
        return idf

    def _of_references(self, references: Ints) -> tuple[_Counts, Floats]:
        """The n-grams of *references* (R,), which are numbered from 0 as they are given, and their weights."""
        sizes = self._bounds[references + 1] - self._bounds[references]
        entries = _ranges(self._bounds[references], sizes)
        captions = np.repeat(np.arange(len(references)), sizes)
        found = _Counts(self._hashes[entries], captions, self._orders[entries], self._counts[entries])
        return found, found.counts * self._idf(self._frequencies[entries])

    def score(self, words: Words, lengths: Ints, images: Ints) -> tuple[Floats, Floats]:
        """CIDEr-D (0 to 10) and BLEU@4 (0 to 1) of captions, (N,) both.

        Args:
            words, lengths, images: see `compare`.
        """
        found = self.compare(words, lengths, images)
        precision = np.exp(np.log((found.correct + _TINY) / (found.guesses + _SMALL)).mean(axis=1))
        ratio = (found.guesses[:, 0] + _TINY) / (found.nearest + _SMALL)
        bleu: Floats = precision * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
        return found.cider, bleu

    def compare(self, words: Words, lengths: Ints, images: Ints) -> Comparison:
        """What CIDEr-D and BLEU are made of.

        Args:
            words, lengths: the captions, concatenated.
            images: (N,) the image of each caption.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        found = _count(words, lengths)
        once, again = np.unique(found.hashes, return_inverse=True)
        weights = found.counts * self._idf(self._known_frequencies[_places(self._known, once)])[again]
        norms = _norms(found, weights, len(lengths))

        # the references of these images alone, numbered anew
        distinct, image = np.unique(images, return_inverse=True)
        per_image = self._references[distinct]
        first_of_image = np.cumsum(per_image) - per_image
        near = _ranges(self._first[distinct], per_image)  # (R,)
        theirs, their_weights = self._of_references(near)
        their_norms, their_lengths = _norms(theirs, their_weights, len(near)), self._lengths[near]
        their_keys = _keys(theirs.hashes, theirs.captions)
        by_key = np.argsort(their_keys)

        # A pair is a caption with one of its references; each n-gram of a caption is looked up in all of those.
        per_caption = per_image[image]  # (N,)
        first_pair = np.cumsum(per_caption) - per_caption
        times = per_caption[found.captions]
        first_entry = np.cumsum(times) - times
        entry = np.repeat(np.arange(len(times)), times)
        within = np.arange(len(entry)) - np.repeat(first_entry, times)
        caption_of_entry = found.captions[entry]
        keys = _keys(found.hashes[entry], first_of_image[image[caption_of_entry]] + within)
        at = _places(their_keys[by_key], keys)
        of_reference = np.append(their_weights[by_key], 0.0)[at]
        product = np.minimum(weights[entry], of_reference) * of_reference
        num_pairs = int(per_caption.sum())
        place = (first_pair[caption_of_entry] + within) * ORDERS + found.orders[entry]
        # bincount of nothing, captions without words, is of integers
        dots = np.bincount(place, product, num_pairs * ORDERS).reshape(-1, ORDERS).astype(np.float64)

        caption = np.repeat(np.arange(len(lengths)), per_caption)  # of each pair
        pair_reference = first_of_image[image[caption]] + np.arange(num_pairs) - first_pair[caption]
        scale = norms[caption] * their_norms[pair_reference]
        similarity = np.divide(dots, scale, out=np.zeros_like(dots), where=dots > 0).mean(axis=1)
        # pycocoevalcap takes the number of bigrams for the length
        bigrams, of_references = (np.maximum(each - 1, 0) for each in (lengths[caption], their_lengths[pair_reference]))
        similarity *= np.exp(-((bigrams - of_references) ** 2) / (2 * SIGMA**2))
        cider = 10.0 * np.bincount(caption, similarity, len(lengths)) / per_caption

        # how often a reference has the n-gram, of all its references
        most = np.maximum.reduceat(np.append(theirs.counts[by_key], 0)[at], first_entry) if len(entry) else times
        clipped = np.minimum(found.counts, most)
        places = found.captions * ORDERS + found.orders
        correct = np.bincount(places, clipped, len(lengths) * ORDERS).reshape(-1, ORDERS).astype(np.float64)
        guesses = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)
        of_pair = their_lengths[pair_reference]
        distance = np.abs(of_pair - lengths[caption]) * (1 << 20) + of_pair
        nearest = np.full(len(lengths), np.iinfo(np.int64).max)
        np.minimum.at(nearest, caption, distance)
        return Comparison(cider, correct, guesses, nearest % (1 << 20))


def _images_with(
    hashes: Words, images: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], Words, npt.NDArray[np.int32]]:
    """How many images have each n-gram.

    Args:
        hashes, images: (E,) n-grams, and the image of each, in order.

    Returns:
        tuple: the images with each of them (E,); those that two images at least have, sorted (K,); the images with
        each of these (K,).
    """
    frequencies = np.empty(len(hashes), dtype=np.int32)
    known, of_known = [], []
    # Equal n-grams are in one part: hashes look random, so that any byte of theirs parts them evenly.
    byte = np.ascontiguousarray(hashes.view(np.uint8)[:: hashes.itemsize])
    parts = 1
    while parts < 256 and parts * _NGRAMS < len(hashes):
        parts *= 2
    for part in range(parts):
        at = np.flatnonzero((byte & np.uint8(parts - 1)) == part)
        at = at[np.argsort(hashes[at], kind="stable")]  # an n-gram's images stay in order
        of_part, image = hashes[at], images[at]
        new = np.ones(len(at), dtype=bool)
        new[1:] = of_part[1:] != of_part[:-1]
        first_in_image = new.copy()
        first_in_image[1:] |= image[1:] != image[:-1]
        which = np.cumsum(new) - 1
        count = np.bincount(which[first_in_image]).astype(np.int32)
        frequencies[at] = count[which]
        known.append(of_part[new][count > 1])
        of_known.append(count[count > 1])
    every = np.concatenate(known)
    order = np.argsort(every)
    return frequencies, every[order], np.concatenate(of_known)[order]


def _norms(found: _Counts, weights: Floats, captions: int) -> Floats:
    """(N, ORDERS) lengths of captions' vectors of weights."""
    squares = np.bincount(found.captions * ORDERS + found.orders, weights**2, captions * ORDERS)
    norms: Floats = np.sqrt(squares.reshape(captions, ORDERS))
    return norms
