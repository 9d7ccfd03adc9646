"""CIDEr-D and BLEU@4 of single captions, against pycocoevalcap's own scorers."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

from tests.thorough import examples
from xgpt_fairseq.metrics import ngrams
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


@examples(25, max_examples=50)
@given(st.data(), st.lists(st.lists(caption, min_size=1, max_size=5), min_size=2, max_size=6))
def test_the_same_as_pycocoevalcap(data: st.DataObject, references: list[list[str]]) -> None:
    images = data.draw(st.lists(st.integers(0, len(references) - 1), min_size=1, max_size=6))
    captions = [data.draw(st.one_of(caption, st.sampled_from(references[image]))) for image in images]
    cider, bleu = scorer_of(references).score(*packed(captions), np.array(images))
    expected = pycoco(references, images, captions)
    np.testing.assert_allclose(cider, expected[0], atol=1e-9)
    np.testing.assert_allclose(bleu, expected[1], atol=1e-9)


def sentence(random: np.random.Generator) -> str:
    return " ".join(map(str, random.zipf(1.4, random.integers(1, 16)) % 50))


@pytest.mark.parametrize("at_once", [None, (7, 100), (1, 1)])
def test_two_thousand_captions(at_once: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where references are more than are sorted at once."""
    if at_once:
        monkeypatch.setattr(ngrams, "_CAPTIONS", at_once[0])
        monkeypatch.setattr(ngrams, "_NGRAMS", at_once[1])
    random = np.random.default_rng(0)
    references = [[sentence(random) for _ in range(random.integers(1, 6))] for _ in range(100)]
    images = random.integers(0, 100, 2000)
    captions = [sentence(random) if random.random() < 0.5 else references[image][0] for image in images]
    cider, bleu = scorer_of(references).score(*packed(captions), images)
    expected = pycoco(references, images.tolist(), captions)
    assert max(expected[0]) > 5
    np.testing.assert_allclose(cider, expected[0], atol=1e-9)
    np.testing.assert_allclose(bleu, expected[1], atol=1e-9)


def test_a_caption_may_have_an_n_gram_more_than_255_times() -> None:
    references = [["1 " * 300, "2 3"], ["1 4"]]
    captions = ["1 " * 299, "1 4 1"]
    cider, bleu = scorer_of(references).score(*packed(captions), np.array([0, 1]))
    expected = pycoco(references, [0, 1], captions)
    np.testing.assert_allclose(cider, expected[0], atol=1e-9)
    np.testing.assert_allclose(bleu, expected[1], atol=1e-9)


def test_captions_are_searched_for_in_their_own_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the n-grams of all, once for each that the captions have, in order: pairs are far more, and random."""
    random = np.random.default_rng(0)
    references = [[sentence(random) for _ in range(5)] for _ in range(500)]
    scorer, images = scorer_of(references), np.repeat([7, 250, 499], 5)
    words, lengths = packed([sentence(random) for _ in images])
    calls: list[tuple[np.ndarray, np.ndarray]] = []
    search = np.searchsorted

    def spied(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        calls.append((keys, wanted))
        return search(keys, wanted)

    monkeypatch.setattr(np, "searchsorted", spied)
    scorer.score(words, lengths, images)
    of_images = 4 * packed([text for image in set(images.tolist()) for text in references[image]])[1].sum()
    [of_all] = [wanted for keys, wanted in calls if len(keys) > of_images]
    assert (np.diff(of_all.astype(object)) > 0).all() and len(of_all) <= 4 * len(words)
    assert len(calls) == 2 and max(len(wanted) for _, wanted in calls) > 4 * len(of_all)


def test_memory_per_n_gram(monkeypatch: pytest.MonkeyPatch) -> None:
    """COCO has 22 million: 133 bytes for each, as they were once needed, are 3 GB in each process."""
    monkeypatch.setattr(ngrams, "_CAPTIONS", 256)
    monkeypatch.setattr(ngrams, "_NGRAMS", 1 << 14)
    words = np.random.default_rng(0).integers(0, 3000, 5000 * 12).astype(np.uint64)
    arguments = words, np.full(5000, 12), np.repeat(np.arange(1000), 5)
    tracemalloc.start()
    try:
        scorer = NgramScorer(*arguments)
        kept, peak = (size / (5000 * (12 + 11 + 10 + 9)) for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert peak < 40 and 13 < kept < 17, scorer


def test_a_caption_without_words_scores_nothing() -> None:
    cider, bleu = scorer_of([["1 2 3 4 5"], ["6 7"]]).score(*packed(["", "1 2 3 4 5"]), np.array([0, 0]))
    assert (cider[0], bleu[0]) == (0, pytest.approx(0, abs=1e-6))
    assert cider[1] == pytest.approx(10) and bleu[1] == pytest.approx(1)
    assert math.isfinite(bleu[0])


def test_captions_without_words_alone() -> None:
    cider, bleu = scorer_of([["1 2"], [""]]).score(*packed(["", ""]), np.array([0, 1]))
    np.testing.assert_allclose([cider, bleu], 0, atol=1e-6)
