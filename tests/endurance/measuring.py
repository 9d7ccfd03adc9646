"""What a training process holds while it runs, from Linux's /proc, and whether that grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")

# The first quarter fills caches and pools; what comes after has to stay level.
WARM_UP = 0.25
# Growth over the rest of a run that is noise: parts of what was there, and at least so much.
MEMORY_PART, MEMORY_MB = 0.05, 24.0
HANDLES = 3
SECONDS_PART = 0.15


@dataclass(frozen=True)
class Sample:
    """A training process after *update* updates.

    Attributes:
        memory: MB of its own, without mapped files; those of the process itself.
        workers: the same of its data loader's workers, together.
        handles: open files, sockets and pipes.
        processes: its children.
        threads: its threads.
        seconds: processor time until now, with that of ended children.
    """

    update: int
    memory: float
    workers: float
    handles: int
    processes: int
    threads: int
    seconds: float


def sample(process: int, update: int) -> Sample:
    """Look at *process*. Raises FileNotFoundError or ProcessLookupError where it has ended."""
    status = _status(process)
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    children = _children(process)
    return Sample(
        update,
        memory=_megabytes(status),
        workers=sum(_megabytes(_status(child)) for child in children),
        handles=len(list(Path(f"/proc/{process}/fd").iterdir())),
        processes=len(children),
        threads=int(status["Threads"]),
        seconds=sum(map(int, fields[11:15])) / _TICKS,  # user and system, of itself and of ended children
    )


def growing(samples: Sequence[Sample]) -> list[str]:
    """What has grown behind the warm-up, in sentences: the middle of the last third is compared with the first's.

    Raises:
        ValueError: fewer than three samples are behind the warm-up.
    """
    last = samples[-1].update
    level = [each for each in samples if each.update >= WARM_UP * last]
    third = len(level) // 3
    if third < 1:
        raise ValueError(f"{len(level)} samples behind the warm-up are too few")

    def middles(value: Callable[[Sample], float]) -> tuple[float, float]:
        return statistics.median(map(value, level[:third])), statistics.median(map(value, level[-third:]))

    found = []
    for name, before, now, most in (
        ("memory in MB", *(pair := middles(lambda each: each.memory)), max(MEMORY_PART * pair[0], MEMORY_MB)),
        ("workers' memory in MB", *(pair := middles(lambda each: each.workers)), max(MEMORY_PART * pair[0], MEMORY_MB)),
        ("open files", *middles(lambda each: each.handles), HANDLES),
        ("threads", *middles(lambda each: each.threads), HANDLES),
    ):
        if now - before > most:
            found.append(f"{name}: {before:.0f}, then {now:.0f}; a growth of {most:.0f} is let pass")
    before, now = (seconds_per_update(part) for part in (level[: third + 1], level[-third - 1 :]))
    if now > (1 + SECONDS_PART) * before:
        found.append(f"processor time: {1000 * before:.1f} ms an update, then {1000 * now:.1f}")
    return found


def seconds_per_update(samples: Sequence[Sample]) -> float:
    """Processor time of an update between the first sample and the last."""
    return (samples[-1].seconds - samples[0].seconds) / max(samples[-1].update - samples[0].update, 1)


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _megabytes(status: dict[str, str]) -> float:
    return int(status.get("RssAnon", "0 kB").split()[0]) / 1024  # a process that has just ended has none


def _children(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(parent) == process:
                found.append(int(entry.name))
    return found
