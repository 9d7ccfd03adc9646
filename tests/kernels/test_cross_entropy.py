"""Cross entropy in the memory of the logits: sums and gradients against a loop in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.kernels import cross_entropy as module
from xgpt_fairseq.kernels import switch
from xgpt_fairseq.kernels.cross_entropy import cross_entropy

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}


def by_a_loop(
    logits: list[list[float]], target: list[int], smoothing: float
) -> tuple[float, float, int, list[list[float]]]:
    """The loss, the loss without smoothing, how many are right, and the gradient of the loss, row by row."""
    loss = unsmoothed = 0.0
    right, gradient = 0, []
    for row, word in zip(logits, target, strict=True):
        highest = max(row)
        total = sum(math.exp(x - highest) for x in row)
        log_p = [x - highest - math.log(total) for x in row]
        wanted = [smoothing / len(row) + (1 - smoothing) * (v == word) for v in range(len(row))]
        loss -= sum(w * p for w, p in zip(wanted, log_p, strict=True))
        unsmoothed -= log_p[word]
        right += row.index(highest) == word
        gradient.append([math.exp(p) - w for p, w in zip(log_p, wanted, strict=True)])
    return loss, unsmoothed, right, gradient


@settings(max_examples=80)
@given(
    rows=st.integers(0, 9),
    words=st.integers(1, 20),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    dtype=st.sampled_from(list(TOLERANCE)),
    at_once=st.integers(1, 100),
    factor=st.sampled_from([1.0, -0.5, 128.0]),
    kernels=st.sampled_from(["fast", "plain"]),
    seed=st.integers(0, 1000),
)
def test_against_a_loop(
    rows: int, words: int, smoothing: float, dtype: torch.dtype, at_once: int, factor: float, kernels: str, seed: int
) -> None:
    torch.manual_seed(seed)
    x = (3 * torch.randn(rows, words)).to(dtype).requires_grad_()
    target = torch.randint(words, (rows,))
    expected = by_a_loop(x.detach().double().tolist(), target.tolist(), smoothing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_PASS", at_once)
        if kernels == "plain":
            with switch.plain():
                loss, unsmoothed, correct = cross_entropy(x * 1, target, label_smoothing=smoothing)
        else:
            loss, unsmoothed, correct = cross_entropy(x * 1, target, label_smoothing=smoothing)
    # sums are of log-probabilities in float32 also where logits are less exact
    near = 1e-12 if dtype == torch.float64 and kernels == "fast" else 1e-5
    assert float(loss.detach()) == pytest.approx(expected[0], rel=near, abs=near)
    assert float(unsmoothed) == pytest.approx(expected[1], rel=near, abs=near)
    assert int(correct) == expected[2]
    assert loss.requires_grad and not unsmoothed.requires_grad and not correct.requires_grad

    (factor * loss).backward()
    assert x.grad is not None and x.grad.dtype == dtype
    gradient = factor * torch.tensor(expected[3], dtype=torch.float64).view(rows, words)
    near = max(TOLERANCE[dtype], near)
    torch.testing.assert_close(x.grad.double(), gradient, rtol=near, atol=near * abs(factor) * 5e-2)


def test_the_gradient_lies_where_the_logits_lay() -> None:
    """No second array of their size is there, from the logits to the product's gradient."""
    states, weight = torch.randn(50, 8, requires_grad=True), torch.randn(1000, 8, requires_grad=True)
    logits = torch.nn.functional.linear(states, weight)
    before, place = logits.detach().clone(), logits.data_ptr()
    seen = []
    logits.register_hook(lambda gradient: seen.append(gradient.data_ptr()))
    target = torch.randint(1000, (50,))
    loss, _, _ = cross_entropy(logits, target, label_smoothing=0.1)
    loss.backward()
    assert seen == [place]
    expected = torch.nn.functional.cross_entropy(
        before.requires_grad_(), target, label_smoothing=0.1, reduction="sum"
    )  # fmt: skip
    expected.backward()
    assert before.grad is not None
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(weight.grad, before.grad.T @ states.detach())
    torch.testing.assert_close(states.grad, before.grad @ weight.detach())


def test_logits_stay_where_no_gradient_is_wanted() -> None:
    logits, target = torch.randn(6, 9), torch.randint(9, (6,))
    kept = logits.clone()
    found = cross_entropy(logits, target, label_smoothing=0.1)
    assert torch.equal(logits, kept)
    with torch.no_grad():
        again = cross_entropy(logits.requires_grad_() * 1, target, label_smoothing=0.1)
    assert [float(a) for a in found] == [float(b) for b in again]
    assert not again[0].requires_grad


def test_improbable_words_have_a_gradient_in_half_precision() -> None:
    """float16 has nothing between 0 and 6e-8, and multiples of that up to 6e-5."""
    logits = torch.tensor([[0.0, -17.0, -9.0]], dtype=torch.float16, requires_grad=True)
    loss, _, _ = cross_entropy(logits * 1, torch.tensor([0]), label_smoothing=0.0)
    (1024 * loss).backward()
    assert logits.grad is not None
    expected = [1024 * math.exp(-17), 1024 * math.exp(-9)]
    assert logits.grad[0, 1:].tolist() == pytest.approx(expected, rel=2e-3)


def test_backwards_a_second_time_is_an_error() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss, _, _ = cross_entropy(logits * 1, torch.tensor([0, 1, 2]), label_smoothing=0.1)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="do not go backwards a second time"):
        loss.backward()
