"""What the benchmarks share: measuring by turns, processes of their own, and the table."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

HEAD = "| measured | against, in the same run | target | median | lowest to highest | detail |\n" + "|---" * 6 + "|"


clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Line:
    """A line of the table: a ratio of ours to a peer's, in several rounds.

    Attributes:
        measured, against: what is compared with what.
        reach: what the ratio should be, such as "3" or "at most 0.6".
        ratios: one per round.
        detail: absolute numbers of this machine.
    """

    measured: str
    against: str
    reach: str
    ratios: Sequence[float]
    detail: str = ""

    def __str__(self) -> str:
        return (
            f"| {self.measured} | {self.against} | {self.reach} | {number(statistics.median(self.ratios))} | "
            f"{number(min(self.ratios))} to {number(max(self.ratios))} | {self.detail} |"
        )


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def by_turns(*runs: Callable[[], float], rounds: int, warm_up: bool = True) -> list[tuple[float, ...]]:
    """What each of *runs* returns, measured one after the other, *rounds* times, after a round that does not count."""
    for run in runs if warm_up else ():
        run()
    return [tuple(run() for run in runs) for _ in range(rounds)]


def seconds(run: Callable[[], Any]) -> float:
    """How long *run* takes, by `clock`."""
    began = clock()
    run()
    return clock() - began


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def in_a_process(function: Callable[..., Any], *arguments: object, method: str = "fork") -> Any:
    """What *function* returns in a process of its own, whose memory is its own, too."""
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} failed in its process, see above") from None
    finally:
        receiver.close()
        process.join()


def _send(sender: Connection, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    sender.send(function(*arguments))


def memory_peak_mb() -> float:
    """The most memory that this process has had so far."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith("VmHWM"))


def cores() -> int:
    return len(os.sched_getaffinity(0))
