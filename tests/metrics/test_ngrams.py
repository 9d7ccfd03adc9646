"""CIDEr-D and BLEU@4 of single captions, against pycocoevalcap's own scorers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

from xgpt_fairseq.metrics.ngrams import NgramScorer


def packed(captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The words of captions, which are the numbers that they are called by, and the captions' lengths."""
    words = [[int(word) for word in caption.split()] for caption in captions]
    return np.array([each for of_one in words for each in of_one], np.uint64), np.array([len(each) for each in words])


def scorer_of(references: Sequence[Sequence[str]]) -> NgramScorer:
    images = np.repeat(np.arange(len(references)), [len(captions) for captions in references])
    return NgramScorer(*packed([caption for captions in references for caption in captions]), images)


def pycoco(references: Sequence[Sequence[str]], images: Sequence[int], captions: Sequence[str]) -> tuple[list, list]:
    """Both scores of each caption, by pycocoevalcap, with the document frequencies of all images."""
    frequencies, cider, bleu = CiderScorer(), CiderScorer(), BleuScorer(n=4)
    for of_image in references:
        frequencies += (None, list(of_image))
    frequencies.compute_doc_freq()
    for image, caption in zip(images, captions, strict=True):
        cider += (caption, list(references[image]))
        bleu += (caption, list(references[image]))
    cider.document_frequency = frequencies.document_frequency

    class OfAllImages(list):
        def __len__(self) -> int:  # of which compute_cider takes the logarithm
            return len(references)

    cider.crefs = OfAllImages(cider.crefs)
    return cider.compute_cider(), bleu.compute_score(option="closest")[1][3]


caption = st.lists(st.integers(0, 6), min_size=1, max_size=12).map(lambda words: " ".join(map(str, words)))


@settings(max_examples=50, deadline=None)
@given(st.data(), st.lists(st.lists(caption, min_size=1, max_size=5), min_size=2, max_size=6))
def test_the_same_as_pycocoevalcap(data: st.DataObject, references: list[list[str]]) -> None:
    images = data.draw(st.lists(st.integers(0, len(references) - 1), min_size=1, max_size=6))
    captions = [data.draw(st.one_of(caption, st.sampled_from(references[image]))) for image in images]
    cider, bleu = scorer_of(references).score(*packed(captions), np.array(images))
    expected = pycoco(references, images, captions)
    np.testing.assert_allclose(cider, expected[0], atol=1e-9)
    np.testing.assert_allclose(bleu, expected[1], atol=1e-9)


def test_two_thousand_captions() -> None:
    random = np.random.default_rng(0)

    def sentence() -> str:
        return " ".join(map(str, random.zipf(1.4, random.integers(1, 16)) % 50))

    references = [[sentence() for _ in range(random.integers(1, 6))] for _ in range(100)]
    images = random.integers(0, 100, 2000)
    captions = [sentence() if random.random() < 0.5 else references[image][0] for image in images]
    cider, bleu = scorer_of(references).score(*packed(captions), images)
    expected = pycoco(references, images.tolist(), captions)
    assert max(expected[0]) > 5
    np.testing.assert_allclose(cider, expected[0], atol=1e-9)
    np.testing.assert_allclose(bleu, expected[1], atol=1e-9)


def test_a_caption_without_words_scores_nothing() -> None:
    cider, bleu = scorer_of([["1 2 3 4 5"], ["6 7"]]).score(*packed(["", "1 2 3 4 5"]), np.array([0, 0]))
    assert (cider[0], bleu[0]) == (0, pytest.approx(0, abs=1e-6))
    assert cider[1] == pytest.approx(10) and bleu[1] == pytest.approx(1)
    assert math.isfinite(bleu[0])
