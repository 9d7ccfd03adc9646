"""CIDEr and BLEU@4 during validation, from statistics that are summed over batches and workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from xgpt_fairseq.metrics.degeneration import Degeneration, ends_badly, has_repeat, words_of
from xgpt_fairseq.metrics.ngrams import ORDERS, Ints, NgramScorer, Words
from xgpt_fairseq.metrics.ptb import PtbTokenizer
from xgpt_fairseq.metrics.segmentation import segment
from xgpt_fairseq.text.scripts import count_spacing

logger = logging.getLogger(__name__)

_ORDERS = range(1, ORDERS + 1)

STATISTICS = (
    "_cider_sum",
    "_caption_images",
    *(f"_bleu_correct_{n}" for n in _ORDERS),
    *(f"_bleu_guess_{n}" for n in _ORDERS),
    "_bleu_test_length",
    "_bleu_reference_length",
    "_repeats",
    "_bad_ends",
)
"""The keys of the result of `ValidationScorer.add`."""


class ValidationScorer:
    """Scores the captions of a split batch by batch.

    The sums over all batches and workers give pycocoevalcap's results for the whole split: CIDEr uses the document
    frequencies of the whole split in every batch, and BLEU is a ratio of sums. Of captions without spaces between
    words, they are those of characters, as `xgpt-evaluate --segment char` has them.

    Args:
        references: the raw captions of each image of the split; the position of an image is its index.

    Raises:
        DataError: no Java, or the PTB tokenizer failed.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if not references or not all(references):
            raise ValueError("every image of the split needs at least one reference caption")
        spacing = count_spacing(caption for of_image in references for caption in of_image)
        self._by_characters = spacing.joins_words
        # models repeat captions, within an epoch and between epochs
        self._tokenize: Callable[[Sequence[str]], list[str]] = PtbTokenizer()
        if self._by_characters:
            self._tokenize = partial(segment, by="char")
            logger.info("captions without spaces between words: cider and bleu4 are of characters (--segment char)")
        self._words: dict[str, int] = {}  # numbered, as they come
        tokenized = self._tokenize([caption for of_image in references for caption in of_image])
        images = np.repeat(np.arange(len(references)), [len(of_image) for of_image in references])
        self._scorer = NgramScorer(*self._numbered(tokenized), images)

    def _numbered(self, captions: Sequence[str]) -> tuple[Words, Ints]:
        """The words of tokenized captions, concatenated, and how many each has."""
        split = [caption.split() for caption in captions]
        words = [self._words.setdefault(word, len(self._words)) for caption in split for word in caption]
        return np.array(words, dtype=np.uint64), np.array([len(caption) for caption in split])

    def add(self, image_indices: Sequence[int], captions: Sequence[str]) -> dict[str, float]:
        """Score *captions* (raw text) of the images *image_indices*, each against its image's references.

        Returns:
            The summands, by the names in `STATISTICS`: sum them over batches and workers, then call `cider` and `bleu4`
            on the result.
        """
        if len(image_indices) != len(captions):
            raise ValueError(f"{len(image_indices)} images but {len(captions)} captions")
        sums = dict.fromkeys(STATISTICS, 0.0)
        if not captions:
            return sums
        tests = self._tokenize(captions)
        found = self._scorer.compare(*self._numbered(tests), np.asarray(image_indices))
        sums["_caption_images"] = float(len(tests))
        sums["_cider_sum"] = float(found.cider.sum())
        for n in _ORDERS:
            sums[f"_bleu_correct_{n}"] = float(found.correct[:, n - 1].sum())
            sums[f"_bleu_guess_{n}"] = float(found.guesses[:, n - 1].sum())
        sums["_bleu_test_length"] = float(found.guesses[:, 0].sum())
        sums["_bleu_reference_length"] = float(found.nearest.sum())
        for raw, test in zip(captions, tests, strict=True):
            words = words_of(raw if self._by_characters else test)  # characters repeat in any text
            sums["_repeats"] += has_repeat(words)
            sums["_bad_ends"] += ends_badly(words)
        return sums

    @staticmethod
    def cider(sums: Mapping[str, float]) -> float:
        """CIDEr of the captions in *sums*, at least one, on pycocoevalcap's scale (papers print 100 times that)."""
        return float(sums["_cider_sum"]) / float(sums["_caption_images"])

    @staticmethod
    def degeneration(sums: Mapping[str, float]) -> Degeneration:
        """Of the captions in *sums*, at least one."""
        images = float(sums["_caption_images"])
        return Degeneration(float(sums["_repeats"]) / images, float(sums["_bad_ends"]) / images)

    @staticmethod
    def bleu4(sums: Mapping[str, float]) -> float:
        """Corpus BLEU@4 (0 to 1) of the captions in *sums*."""
        # The corpus's counts are those of one long sentence, so pycocoevalcap's own formula applies.
        scorer = BleuScorer(n=len(_ORDERS))
        scorer.ctest = [
            {
                "correct": [float(sums[f"_bleu_correct_{n}"]) for n in _ORDERS],
                "guess": [float(sums[f"_bleu_guess_{n}"]) for n in _ORDERS],
                "testlen": float(sums["_bleu_test_length"]),
                "reflen": [float(sums["_bleu_reference_length"])],
            }
        ]
        scores, _ = scorer.compute_score(option="closest")
        return float(scores[-1])
