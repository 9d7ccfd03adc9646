"""Diversity against plain computations, self-BLEU against the captions' metric."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu_scorer import BleuScorer

from xgpt_fairseq.augmentation.diversity import diversity, new_ngrams, sample, self_bleu

caption = st.lists(st.sampled_from("abcde"), min_size=1, max_size=12).map(" ".join)


def test_by_hand() -> None:
    measured = diversity(["A cat sits.", "a cat, a dog", "!"])
    assert measured == {
        "captions": 3,
        "mean_length": 7 / 3,
        "vocabulary": 4,
        "distinct_1": 4 / 7,
        "distinct_2": 4 / 5,  # a cat (twice), cat sits, cat a, a dog
        "distinct_3": 3 / 3,
    }
    assert set(diversity([]).values()) == {0} == set(diversity([""]).values()) - {1}


@settings(max_examples=60)
@given(st.lists(caption, min_size=2, max_size=8))
def test_self_bleu_is_the_metric_s_bleu_of_each_against_the_others(captions: list[str]) -> None:
    scorer = BleuScorer(n=4)
    for number, text in enumerate(captions):
        scorer += (text, captions[:number] + captions[number + 1 :])
    (*_, expected), _ = scorer.compute_score(option="closest")
    found = self_bleu(captions)
    if found == 0:  # the metric has a small number, at most (1e-15 / 1e-9) ** (1 / 4), where no 4-gram matches
        assert expected < 0.032
    else:
        assert found == pytest.approx(expected, rel=1e-6)


def test_self_bleu_s_ends() -> None:
    assert self_bleu(["a red cat sits here"] * 3) == 1
    assert self_bleu(["a red cat sits here", "some dogs run over there"]) == 0
    assert self_bleu(["a red cat sits here"]) == self_bleu([]) == 0


def test_new_ngrams() -> None:
    found = new_ngrams(["a red cat", "A red dog."], ["the red cat"])
    assert found == {"1": 3 / 6, "2": 3 / 4, "3": 2 / 2}
    assert new_ngrams([], ["a"]) == {"1": 0, "2": 0, "3": 0}


@given(st.lists(caption, max_size=30, unique=True), st.integers(0, 40), st.integers(0, 3))
def test_a_sample_is_part_of_the_whole_in_order(captions: list[str], size: int, seed: int) -> None:
    chosen = sample(captions, size, seed)
    assert len(chosen) == min(size, len(captions))
    places = [captions.index(text) for text in chosen]
    assert places == sorted(set(places))
    assert chosen == sample(captions, size, seed)
