"""The rules of corruption, as properties over lengths and seeds, and their frequencies over many draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.data.corruption import choose_fragment, choose_spans, choose_tokens, infill, replace_masked

MASK, WORDS = 99, (4, 99)
lengths = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)
ratios = st.sampled_from([0.15, 0.3, 0.5, 0.9, 1.0])


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def tokens_of(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(WORDS[0], WORDS[1], size=length)


@given(length=lengths, seed=seeds, ratio=ratios)
def test_fragment_is_never_empty_and_never_the_whole_sentence(length, seed, ratio):
    start, end = choose_fragment(length, rng(seed), ratio=ratio)
    assert 0 <= start < end <= length
    assert end - start < length or length == 1
    if 1 <= round(ratio * length) < length:
        assert end - start == round(ratio * length)


def test_fragments_lie_at_the_start_at_the_end_and_anywhere():
    draws, generator = 20_000, rng(0)
    starts = np.array([choose_fragment(20, generator, ratio=0.5)[0] for _ in range(draws)])
    # "anywhere" has 11 places, the first and the last among them
    assert np.mean(starts == 0) == pytest.approx(0.2 + 0.6 / 11, abs=0.01)
    assert np.mean(starts == 10) == pytest.approx(0.2 + 0.6 / 11, abs=0.01)
    for inside in range(1, 10):
        assert np.mean(starts == inside) == pytest.approx(0.6 / 11, abs=0.01)


@given(length=lengths, seed=seeds, ratio=ratios)
def test_chosen_tokens_are_as_many_as_asked_for(length, seed, ratio):
    assert choose_tokens(length, rng(seed), ratio=ratio).sum() == max(1, round(ratio * length))


@given(length=lengths, seed=seeds, data=st.data())
def test_only_chosen_tokens_change(length, seed, data):
    tokens = tokens_of(length)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    before = tokens.copy()
    corrupted = replace_masked(tokens, chosen, rng(seed), mask=MASK, words=WORDS)
    assert (tokens == before).all()
    assert (corrupted[~chosen] == tokens[~chosen]).all()
    assert ((corrupted == MASK) | ((corrupted >= WORDS[0]) & (corrupted < WORDS[1]))).all()


def test_masks_are_80_10_10():
    tokens = tokens_of(100_000)
    corrupted = replace_masked(tokens, np.ones(len(tokens), dtype=bool), rng(1), mask=MASK, words=WORDS)
    assert np.mean(corrupted == MASK) == pytest.approx(0.8, abs=0.01)
    # a random word is the same one in 1 of 95 draws
    assert np.mean(corrupted == tokens) == pytest.approx(0.1 + 0.1 / 95, abs=0.01)
    random_words = corrupted[(corrupted != MASK) & (corrupted != tokens)]
    times = np.bincount(random_words - WORDS[0], minlength=95)  # some 104 each, the first and the last among them
    assert len(times) == 95 and (np.abs(times - times.mean()) < 5 * np.sqrt(times.mean())).all()


@given(length=lengths, seed=seeds, ratio=ratios, one_span=st.booleans())
def test_spans_use_their_budget_and_stay_apart(length, seed, ratio, one_span):
    spans = choose_spans(length, rng(seed), ratio=ratio, one_span=one_span)
    budget = max(1, min(round(ratio * length), length - 1))
    assert (spans[:, 1] - spans[:, 0]).sum() == budget
    assert (spans[:, 1] > spans[:, 0]).all() and spans[0, 0] >= 0 and spans[-1, 1] <= length
    apart = len(spans) <= length - budget + 1
    assert (spans[1:, 0] - spans[:-1, 1] >= (1 if apart else 0)).all()
    assert not one_span or len(spans) == 1


def test_span_lengths_are_poisson():
    """With a budget that no draw exceeds, lengths are Poisson(3) without 0; those at both ends are like any other."""
    from math import exp, factorial

    generator, captions = rng(2), 400
    spans = [choose_spans(1000, generator, ratio=0.3) for _ in range(captions)]  # 100 in each, one of them cut
    sizes = [each[:, 1] - each[:, 0] for each in spans]
    found = np.concatenate(sizes)
    for size in range(1, 8):
        expected = exp(-3) * 3**size / factorial(size) / (1 - exp(-3))
        assert np.mean(found == size) == pytest.approx(expected, abs=0.012)
    for place in (0, -1):  # their mean has a standard error of 0.08
        assert np.mean([each[place] for each in sizes]) == pytest.approx(3 / (1 - exp(-3)), abs=0.3)


def test_spans_lie_anywhere():
    generator, draws = rng(3), 4000
    covered = np.zeros(10)
    for _ in range(draws):
        for start, end in choose_spans(10, generator, ratio=0.3):
            covered[start:end] += 1
    assert covered[::-1] / draws == pytest.approx(covered / draws, abs=0.035)
    assert (covered / draws > 0.15).all()  # fewer spans can reach the ends than the middle
    assert covered.sum() / draws == pytest.approx(3)


@given(length=lengths, seed=seeds, ratio=ratios)
def test_single_and_multi_placeholders(length, seed, ratio):
    tokens = tokens_of(length)
    spans = choose_spans(length, rng(seed), ratio=ratio)
    inside = {i for start, end in spans.tolist() for i in range(start, end)}
    single, multi = [], []
    for i, token in enumerate(tokens.tolist()):
        multi.append(MASK if i in inside else token)
        if i not in inside:
            single.append(token)
        elif i in spans[:, 0]:
            single.append(MASK)
    assert infill(tokens, spans, mask=MASK).tolist() == single
    assert infill(tokens, spans, mask=MASK, multi=True).tolist() == multi
    assert single.count(MASK) == len(spans)


@given(length=lengths, seed=seeds)
def test_the_same_generator_gives_the_same_corruption(length, seed):
    assert choose_fragment(length, rng(seed), ratio=0.5) == choose_fragment(length, rng(seed), ratio=0.5)
    assert (choose_spans(length, rng(seed), ratio=0.3) == choose_spans(length, rng(seed), ratio=0.3)).all()
