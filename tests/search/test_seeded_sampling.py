"""Draws of the sampling search: their distribution, and what they depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from xgpt_fairseq.search.seeded_sampling import SeededSampling


def search(seed: int = 1, update: int = 1) -> SeededSampling:
    found = SeededSampling(Dictionary(), seed)
    found.update = update
    return found


def test_tokens_are_drawn_by_their_probability() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    images, samples = 400, 100
    lprobs = probabilities.log().expand(images, samples, -1)
    scores = torch.full((images, samples, 1), -2.0)
    sums, tokens, beams = search().step(1, lprobs, scores, None, torch.arange(images))
    shares = torch.bincount(tokens.flatten(), minlength=7) / (images * samples)
    assert shares[probabilities == 0].sum() == 0
    torch.testing.assert_close(shares, probabilities, atol=0.01, rtol=0)
    torch.testing.assert_close(sums, probabilities.log()[tokens] - 2.0)
    assert torch.equal(beams, torch.arange(samples).expand(images, samples))


def test_log_probabilities_need_not_be_normalised_and_the_last_word_can_be_drawn() -> None:
    lprobs = torch.tensor([-math.inf, -3.0, -3.0]).expand(1000, 5, -1)
    _, tokens, _ = search().step(0, lprobs, None, None, torch.arange(1000))
    assert (tokens == 2).float().mean().item() == pytest.approx(0.5, abs=0.03) and tokens.min() == 1


def test_draws_depend_on_seed_update_image_sample_and_step_alone() -> None:
    ids = np.array([7, 3, 12345])
    draws = search().uniforms(ids, 5, 2)
    assert ((draws >= 0) & (draws < 1)).all() and len(np.unique(draws)) == 15
    np.testing.assert_array_equal(search().uniforms(ids[::-1], 3, 2), draws[::-1, :3])
    others = [search(seed=2).uniforms(ids, 5, 2), search(update=2).uniforms(ids, 5, 2), search().uniforms(ids, 5, 3)]
    assert len(np.unique(np.stack([draws, *others]))) == 60


def test_draws_are_uniform() -> None:
    draws = np.stack([search(update=update).uniforms(np.arange(500), 5, 0) for update in range(40)])
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    expected = draws.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # the 0.1 % quantile of chi squared of 19
    for axis in range(3):
        one, other = np.take(draws, 0, axis=axis).ravel(), np.take(draws, 1, axis=axis).ravel()
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(one))
