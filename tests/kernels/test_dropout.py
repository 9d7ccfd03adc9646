"""Dropout: what is dropped, how often, and what is left of the rest and of its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.kernels.dropout import Dropout, dropout

LEVEL = 1 / 65536  # what a probability is rounded to


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 9), max_size=4),
    p=st.floats(0, 0.95),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_each_element_and_its_gradient_are_dropped_or_scaled(
    shape: list[int], p: float, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x = (torch.rand(shape, dtype=torch.float64) + 1).to(dtype).requires_grad_()
    weight = (torch.rand(shape, dtype=torch.float64) + 1).to(dtype)
    y = dropout(x, p, training=True)
    assert y.dtype == dtype and y.shape == x.shape
    (y * weight).sum().backward()
    assert x.grad is not None
    tolerance = {"rel": 1e-2 if dtype == torch.bfloat16 else 1e-3}
    for before, after, scale, gradient in zip(*(t.flatten().tolist() for t in (x, y, weight, x.grad)), strict=True):
        if after == 0:
            assert gradient == 0
        else:
            assert after == pytest.approx(before / (1 - p), **tolerance)
            assert gradient == pytest.approx(scale / (1 - p), **tolerance)


@pytest.mark.parametrize("p", [LEVEL, 0.1, 0.3, 0.5, 0.9, 1 - LEVEL])
def test_as_often_as_asked_at_every_place_and_the_mean_stays(p: float) -> None:
    """Elements come in fours, of 64 bits that are drawn at once: none of the four is different."""
    torch.manual_seed(1)
    count = 400_000
    y = dropout(torch.ones(count, 4), p, training=True)
    spread = math.sqrt(p * (1 - p) / count)
    for place in range(4):
        dropped = float((y[:, place] == 0).double().mean())
        assert abs(dropped - p) < 5 * spread + LEVEL
    pairs = (y == 0).double()
    together = pairs.T @ pairs / count  # how often two of the four are dropped at once
    for one in range(4):
        for other in range(one):
            assert abs(float(together[one, other]) - p * p) < 5 * math.sqrt(p * p * (1 - p * p) / count) + 2 * LEVEL
    assert float(y.double().mean()) == pytest.approx(1, abs=5 * spread / (1 - p) + 1e-9)


def test_a_seed_repeats_and_the_generator_moves_on() -> None:
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5, training=True), first)
    assert not torch.equal(first, second)


def test_nothing_and_everything() -> None:
    x = torch.rand(5)
    assert dropout(x, 0.0, training=True) is x
    assert dropout(x, 0.9, training=False) is x
    assert dropout(x, 1.0, training=True).tolist() == [0.0] * 5
    assert dropout(torch.tensor([math.inf] * 64), 0.5, training=True).tolist().count(0.0) > 0  # not nan
    assert dropout(torch.empty(0, 3), 0.5, training=True).shape == (0, 3)


def test_module() -> None:
    x = torch.ones(1000)
    module = Dropout(0.5)
    torch.manual_seed(1)
    assert set(module(x).tolist()) == {0.0, 2.0}
    assert module.eval()(x) is x
    assert str(module) == "Dropout(p=0.5)"


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(p: float) -> None:
    for refused in (lambda: Dropout(p), lambda: dropout(torch.ones(2), p, training=True)):
        with pytest.raises(ValueError, match=f"dropout {p} is not a probability"):
            refused()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu() -> None:
    y = dropout(torch.ones(10_000, device="cuda"), 0.5, training=True)
    assert set(y.tolist()) == {0.0, 2.0}
