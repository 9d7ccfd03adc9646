"""Recall and ranks against a plain computation over all ways to break ties."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.retrieval import recall
from xgpt_fairseq.retrieval.recall import caption_retrieval, image_retrieval

KS = (1, 2, 5)


def rank_of_the_first_right(scores: list[float], right: set[int], order: tuple[int, ...]) -> int:
    """Sort candidates by score, equal ones as they come in *order*; the place of the first right one."""
    ranking = sorted(order, key=lambda candidate: -scores[candidate])
    return min(place for place, candidate in enumerate(ranking, start=1) if candidate in right)


def plain(queries: list[tuple[list[float], set[int]]]) -> tuple[dict[int, float], float]:
    """Each query's mean over all orders of its candidates; then over the queries (recall) or their median (rank)."""
    recalls: dict[int, list[float]] = {k: [] for k in KS}
    expected = []
    for scores, right in queries:
        ranks = [rank_of_the_first_right(scores, right, order) for order in itertools.permutations(range(len(scores)))]
        expected.append(statistics.mean(ranks))
        for k in KS:
            recalls[k].append(statistics.mean(rank <= k for rank in ranks))
    return {k: statistics.mean(values) for k, values in recalls.items()}, statistics.median(expected)


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    captions, images = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    value = st.sampled_from([-1.5, 0.0, 0.25, 2.0])  # few values, many ties
    scores = [[draw(value) for _ in range(images)] for _ in range(captions)]
    image_of_caption = [draw(st.integers(0, images - 1)) for _ in range(captions)]
    return np.array(scores, dtype=np.float32), np.array(image_of_caption)


@settings(max_examples=60)
@given(pools())
def test_equals_a_plain_computation_with_ties(pool: tuple[np.ndarray, np.ndarray]) -> None:
    scores, image_of_caption = pool
    found = image_retrieval(scores, image_of_caption, KS)
    at, median = plain([(row.tolist(), {image}) for row, image in zip(scores, image_of_caption.tolist(), strict=True)])
    assert found.at == pytest.approx(at) and found.median_rank == pytest.approx(median)
    assert (found.queries, found.candidates) == scores.shape

    found = caption_retrieval(scores, image_of_caption, KS)
    images = sorted(set(image_of_caption.tolist()))
    right = {image: set(np.flatnonzero(image_of_caption == image).tolist()) for image in images}
    at, median = plain([(scores[:, image].tolist(), right[image]) for image in images])
    assert found.at == pytest.approx(at) and found.median_rank == pytest.approx(median)
    assert (found.queries, found.candidates) == (len(images), len(scores))


@given(st.integers(2, 60), st.integers(1, 5))
def test_a_perfect_scorer_gets_100_and_a_constant_one_chance(images: int, per_image: int) -> None:
    image_of_caption = np.repeat(np.arange(images), per_image)
    perfect = (image_of_caption[:, None] == np.arange(images)).astype(np.float32)
    for retrieve in (image_retrieval, caption_retrieval):
        found = retrieve(perfect, image_of_caption)
        assert found.at == {1: 1.0, 5: 1.0, 10: 1.0}
        assert found.median_rank == 1
        constant = retrieve(np.zeros_like(perfect), image_of_caption)
        assert constant.at == pytest.approx(constant.chance)
        assert constant.chance[1] == pytest.approx(1 / images)
    assert image_retrieval(np.zeros_like(perfect), image_of_caption).median_rank == pytest.approx((images + 1) / 2)
    worst = image_retrieval(-perfect, image_of_caption)
    assert worst.at[1] == 0 and worst.median_rank == images


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    scores, image_of_caption = random.integers(0, 9, (70, 30)).astype(np.float16), random.integers(0, 30, 70)
    whole = image_retrieval(scores, image_of_caption), caption_retrieval(scores, image_of_caption)
    monkeypatch.setattr(recall, "BLOCK_VALUES", 150)
    assert (image_retrieval(scores, image_of_caption), caption_retrieval(scores, image_of_caption)) == whole


def test_what_is_no_score_is_refused() -> None:
    scores = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(DataError, match=r"scores have shape \(3, 2\); for 2 captions they must be \(2, images\)"):
        image_retrieval(scores, np.array([0, 1]))
    with pytest.raises(DataError, match="a caption's image is number 2, but there are scores of 2 images"):
        caption_retrieval(scores, np.array([0, 1, 2]))
    scores[2, 1] = np.nan
    for retrieve in (image_retrieval, caption_retrieval):
        with pytest.raises(DataError, match="the score of caption 2 and image 1 is not a finite number"):
            retrieve(scores, np.array([0, 0, 1]))
