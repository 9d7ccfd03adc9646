"""The four objectives' training step against the matrix products that it is made of, run by themselves."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import peers
from tests.benchmarks.measuring import Line, by_turns, middle, seconds

IMAGES = 8  # with 5 captions each, as in `training`
OBJECTIVES = ("ic", "imlm", "ida", "tifg")
Product = tuple[tuple[int, ...], tuple[int, ...]]

aten = torch.ops.aten


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=IMAGES)
        ours = peers.XGPT(store, objectives=OBJECTIVES)
        batches = [ours.batch(number) for number in range(len(OBJECTIVES))]
        lines = []
        for name, batch in zip(OBJECTIVES, batches, strict=True):
            step = training_step(ours, batch)
            with Products() as products:
                step()
            replay = replayed(products.counts)
            times = by_turns(lambda step=step: seconds(step), lambda replay=replay: seconds(replay), rounds=rounds)
            flops = products.flops()
            step_s, replay_s = (middle([round_[i] for round_ in times]) for i in (0, 1))
            lines.append(
                Line(
                    f"loss and gradient of {name.upper()}, base, floating-point operations per second",
                    "the step's own matrix products, in the same shapes, alone",
                    "0.85",
                    [alone / whole for whole, alone in times],
                    f"{flops / step_s / 1e9:.0f} against {flops / replay_s / 1e9:.0f} GFLOP/s",
                )
            )
    return lines


def training_step(ours: peers.XGPT, batch: dict[str, Any]) -> Callable[[], None]:
    def step() -> None:
        ours.model.train()
        ours.model.zero_grad(set_to_none=True)  # as FairseqOptimizer.zero_grad
        loss, size, _ = ours.criterion(ours.model, batch)
        (loss / size).backward()

    return step


class Products(TorchDispatchMode):
    """Counts the matrix products that run, by their shapes: (batch, m, k) times (batch, k, n).

    Attention counts as its products: scores and sums forwards, and four of the kind backwards. (What a kernel computes
    again in the backward pass is not work that was asked for.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[tuple[int, int, int, int]] = collections.Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = function.overloadpacket
        if packet in (aten.mm, aten.bmm):
            self._add(args[0], args[1])
        elif packet in (aten.addmm, aten.baddbmm):
            self._add(args[1], args[2])
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu:
            self._attention(args[0], args[1], scores=1, sums=1)
        elif packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self._attention(args[1], args[2], scores=2, sums=2)
        return function(*args, **(kwargs or {}))

    def _add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        batch = a.size(0) if a.dim() == 3 else 1
        self.counts[batch, a.size(-2), a.size(-1), b.size(-1)] += 1

    def _attention(self, q: torch.Tensor, k: torch.Tensor, *, scores: int, sums: int) -> None:
        batch, heads, queries, width = q.shape
        self.counts[batch * heads, queries, width, k.size(2)] += scores
        self.counts[batch * heads, queries, k.size(2), width] += sums

    def flops(self) -> int:
        return sum(2 * b * m * k * n * times for (b, m, k, n), times in self.counts.items())


def replayed(counts: collections.Counter[tuple[int, int, int, int]]) -> Callable[[], None]:
    """Run these products, and nothing else."""
    operands = [
        (torch.randn(b, m, k), torch.randn(b, k, n), torch.empty(b, m, n), times)
        for (b, m, k, n), times in counts.items()
    ]
    operands = [tuple(t[0] for t in ops[:3]) + ops[3:] if ops[0].size(0) == 1 else ops for ops in operands]

    def run() -> None:
        for a, b, out, times in operands:
            for _ in range(times):
                torch.matmul(a, b, out=out)

    return run
