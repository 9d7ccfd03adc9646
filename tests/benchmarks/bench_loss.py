"""Cross entropy over the vocabulary and its gradient: ours against torch's operators on the same logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.benchmarks.measuring import Line, by_turns, in_a_process, memory_peak_mb, middle, seconds
from xgpt_fairseq.kernels.cross_entropy import cross_entropy

ROWS = 560  # predicted words of 40 captions
SMOOTHING = 0.1
Loss = Callable[[Tensor, Tensor], Tensor]


def ours(logits: Tensor, target: Tensor) -> Tensor:
    """It overwrites *logits*."""
    return cross_entropy(logits, target, label_smoothing=SMOOTHING)[0]


def peer(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), target, label_smoothing=SMOOTHING, reduction="sum")


def measure(rounds: int) -> list[Line]:
    lines = []
    for name in ("float32", "bfloat16"):
        lines += [time_of(rounds, words, name) for words in (8_000, 30_000)]
        lines.append(memory_of(30_000, name))
    return lines


def made_up(rows: int, words: int, dtype: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    logits = torch.randn(rows, words, dtype=getattr(torch, dtype)).requires_grad_()
    return logits, torch.randint(words, (rows,))


def time_of(rounds: int, words: int, dtype: str) -> Line:
    logits, target = made_up(ROWS, words, dtype)

    def run(loss: Loss) -> float:
        logits.grad = None
        given = logits * 1
        return seconds(lambda: loss(given, target).backward())

    times = by_turns(*(lambda loss=loss: min(run(loss) for _ in range(3)) for loss in (ours, peer)), rounds=rounds)
    milliseconds = [1000 * middle([round_[i] for round_ in times]) for i in (0, 1)]
    return Line(
        f"loss of {ROWS} words of {words}, {dtype}, and its gradient",
        "torch's `cross_entropy`, in float32",
        "at most 1",
        [own / other for own, other in times],
        f"{milliseconds[0]:.0f} against {milliseconds[1]:.0f} ms",
    )


def memory_of(words: int, dtype: str) -> Line:
    megabytes = [in_a_process(peak, loss, words, dtype, method="spawn") for loss in (ours, peer)]
    return Line(
        f"memory of it, 3 000 words of {words}, {dtype}, logits included",
        "the same",
        "at most 0.4",
        [megabytes[0] / megabytes[1]],
        f"{megabytes[0]:.0f} against {megabytes[1]:.0f} MB",
    )


def peak(loss: Loss, words: int, dtype: str) -> float:
    """How many MB more a process takes for a product, its *loss*, and the gradients of both."""
    states, target = made_up(3_000, 64, dtype)[0], torch.randint(words, (3_000,))
    weight = made_up(words, 64, dtype)[0]
    loss(F.linear(states[:1], weight[:8]), target[:1] % 8).backward()  # what is loaded at the first time does not count
    states.grad = weight.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes what there is now
    before = memory_peak_mb()
    loss(F.linear(states, weight), target).backward()
    return memory_peak_mb() - before
