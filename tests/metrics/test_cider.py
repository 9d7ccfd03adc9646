"""CIDEr against pycocoevalcap, which scores a whole split at once."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider as Pycocoevalcap

from tests.thorough import examples
from xgpt_fairseq.metrics.cider import Cider

# few words, so that n-grams are shared; some of no reference
WORDS = ["a", "dog", "cat", "runs", "in", "the", "of", "ü", "7"]
captions = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def by_pycocoevalcap(references: list[list[str]], candidates: list[str]) -> list[float]:
    truth = dict(enumerate(references))
    _, per_image = Pycocoevalcap().compute_score(truth, {index: [text] for index, text in enumerate(candidates)})
    return [float(score) for score in per_image]


@examples(50, max_examples=200)
@given(st.lists(st.tuples(st.lists(captions, min_size=1, max_size=4), captions), min_size=1, max_size=6))
def test_scores_are_those_of_pycocoevalcap(split: list[tuple[list[str], str]]) -> None:
    references, candidates = [each for each, _ in split], [each for _, each in split]
    if not any(text for of_image in references for text in of_image):  # pycocoevalcap fails without a word
        return
    cider = Cider(references)
    scores = [cider.score(index, text) for index, text in enumerate(candidates)]
    assert scores == pytest.approx(by_pycocoevalcap(references, candidates), abs=1e-9)


def test_a_large_split() -> None:
    rng = random.Random(0)
    words = [f"w{rank}" for rank in range(300)]

    def caption() -> str:
        return " ".join(rng.choices(words, weights=[1 / (rank + 1) for rank in range(300)], k=rng.randint(4, 15)))

    references = [[caption() for _ in range(5)] for _ in range(400)]
    candidates = [rng.choice([caption(), rng.choice(of_image)]) for of_image in references]
    cider = Cider(references)
    scores = [cider.score(index, text) for index, text in enumerate(candidates)]
    assert scores == pytest.approx(by_pycocoevalcap(references, candidates), abs=1e-9)
    assert max(scores) > 2 and min(scores) < 0.5


def test_a_caption_like_its_only_reference_has_all_ten() -> None:
    cider = Cider([["a dog runs home fast"], ["the cat sits there now"]])
    assert cider.score(0, "a dog runs home fast") == pytest.approx(10)
    assert cider.score(1, "a dog runs home fast") == 0
    assert cider.score(0, "") == 0


@given(st.lists(st.lists(captions, min_size=1, max_size=3), min_size=2, max_size=4), captions)
def test_the_rewards_of_ngrams_sum_up_to_the_score(references: list[list[str]], caption: str) -> None:
    cider = Cider(references)
    values = cider.explain(0, caption)
    assert sum(value.reward for value in values) == pytest.approx(cider.score(0, caption), abs=1e-9)
    assert all(value.reward >= 0 and value.cost >= 0 for value in values)
    assert len({value.ngram for value in values}) == len(values)


def test_the_cost_of_an_ngram_is_what_the_others_would_have_without_it() -> None:
    """By a plain cosine over one-word n-grams, with an n-gram's weight set to 0."""
    references = [["dog beach"], ["cat"], ["a cat"], ["boat"]]
    values = {value.ngram: value for value in Cider(references).explain(0, "dog boat")}
    dog = boat = beach = math.log(4)  # each is said of one image in four
    penalty = 1.0  # of equal lengths

    def cosine(of_boat: float) -> float:
        return dog * dog / (math.hypot(dog, of_boat) * math.hypot(dog, beach))

    scale = 10 * penalty / 4
    assert values["dog",].reward == pytest.approx(scale * cosine(boat))
    assert values["boat",].reward == 0 and values["dog",].cost == 0
    assert values["boat",].cost == pytest.approx(scale * (cosine(0) - cosine(boat)))
