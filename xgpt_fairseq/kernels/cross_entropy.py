"""Cross entropy of word predictions without further copies of the logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from xgpt_fairseq.kernels.switch import fast

# Logits of a pass: of a CPU, as many as stay in a core's cache; of a GPU, enough to keep it busy.
CPU_PASS = 1 << 18
GPU_PASS = 1 << 25

# Gradients of logits are at most 1 in size. Half precision keeps them times this, to have small ones, too.
HALF_SCALE = 1 << 14


def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of M word predictions, computed in float32 (float64 stays).

    Where a gradient is wanted, it is computed at once, some rows at a time, in the memory of *logits*, which must not
    be used any more. Torch's operators have three arrays of that size, in float32 also where the logits are not.

    Args:
        logits: (M, V), the result of an operator that does not need it for its gradient, as a product does not.
        target: (M,) the right words.
        label_smoothing: weight of the uniform distribution over all V words in the target.

    Returns:
        tuple: scalars: the sum of the losses, which has the gradient; their sum without smoothing; and how many of
        the most probable words are right, int64.
    """
    if not fast():
        return _plain(logits, target, label_smoothing)
    if torch.is_grad_enabled() and logits.requires_grad:
        loss, unsmoothed, correct = _CrossEntropy.apply(logits, target, label_smoothing)
        return loss, unsmoothed, correct
    return _by_passes(logits, target, label_smoothing, None)


def _plain(logits: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    log_probabilities = F.log_softmax(_wide(logits), dim=-1)  # (M, V), once for both
    nll = F.nll_loss(log_probabilities, target, reduction="sum")
    loss = nll
    if label_smoothing > 0:
        uniform = -log_probabilities.sum() / logits.size(-1)
        loss = (1 - label_smoothing) * nll + label_smoothing * uniform
    correct = (logits.detach().argmax(dim=-1) == target).sum()
    return loss, nll.detach(), correct


class _CrossEntropy(Function):
    """`cross_entropy` with its gradient in the memory of the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        ctx.scale = HALF_SCALE if logits.dtype.itemsize == 2 else 1
        ctx.gradient = logits.detach()
        loss, unsmoothed, correct = _by_passes(ctx.gradient, target, label_smoothing, ctx.scale)
        ctx.mark_non_differentiable(unsmoothed, correct)
        return loss, unsmoothed, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("the gradient of a cross entropy is there once: do not go backwards a second time")
        factor = loss_gradient / ctx.scale
        if gradient.is_cuda:
            # of no dimension, it would be rounded to the gradient's precision: float16 has only multiples of 6e-8
            factor = factor.view(1, 1)  # against (M, V)
        return gradient.mul_(factor), None, None


def _by_passes(
    logits: Tensor, target: Tensor, label_smoothing: float, gradient_scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums, some rows at a time; with *gradient_scale*, *logits* become their gradients times it."""
    words = logits.size(-1)
    at_once = min(len(logits), max(1, (CPU_PASS if logits.device.type == "cpu" else GPU_PASS) // words))
    # one array for all passes: new ones, freed between small tensors that stay, are not found again by malloc
    memory = _wide(logits[:0]).new_empty(at_once, words)  # (R, V), in the wide type
    passes = range(0, len(logits), max(1, at_once))
    sums = memory.new_zeros(2, len(passes))  # of the right words' log-probabilities, and of all
    correct = target.new_zeros(len(passes))
    for number, start in enumerate(passes):
        rows = logits[start : start + at_once]  # (R, V)
        right = target[start : start + at_once].unsqueeze(1)  # (R, 1)
        log_probabilities, wide = memory[: len(rows)], _wide(rows)  # (R, V)
        correct[number] = (wide.argmax(dim=-1, keepdim=True) == right).sum()
        torch.log_softmax(wide, dim=-1, out=log_probabilities)
        sums[0, number] = log_probabilities.gather(1, right).sum()
        if label_smoothing > 0:
            sums[1, number] = log_probabilities.sum()
        if gradient_scale is not None:
            gradient = log_probabilities.exp_()
            if label_smoothing > 0:
                gradient.sub_(label_smoothing / words)
            gradient.scatter_add_(1, right, gradient.new_full(right.shape, label_smoothing - 1))
            rows.copy_(gradient if gradient_scale == 1 else gradient.mul_(gradient_scale))
    nll, uniform = -sums.sum(dim=1)
    return (1 - label_smoothing) * nll + label_smoothing / words * uniform, nll, correct.sum()


def _wide(x: Tensor) -> Tensor:
    """Half precision as float32; others as they are."""
    return x.float() if x.dtype.itemsize == 2 else x
