"""An epoch of CIDEr optimisation against one of cross-entropy: the same images, five captions each, one thread."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.directories import data_directory, finish, start_training, updates
from tests.benchmarks.measuring import Line, by_turns, middle

IMAGES, CAPTIONS, UPDATES, STORE = 8, 5, 2, 64
CROSS_ENTROPY = ["--batch-size", str(IMAGES * CAPTIONS), "--captions-per-image", str(CAPTIONS)]
# an untrained model's captions end by the limit: it is the length of the others
SCST = ["--criterion", "xgpt_scst", "--batch-size", str(IMAGES), "--scst-samples", str(CAPTIONS),
        "--scst-max-len", str(peers.TOKENS - 1), "--dropout", "0", "--attention-dropout", "0"]  # fmt: skip


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        store = peers.write_store(Path(name) / "store", images=STORE)
        data = data_directory(Path(name) / "data", store, captions=CAPTIONS)
        lines = []
        for candidates in ("beam", "sample"):
            parts: list[list[float]] = []  # of each update of SCST: sampling and rewards
            times = by_turns(
                lambda c=candidates, p=parts: train(data, p, *SCST, "--scst-candidates", c),
                lambda: train(data, [], *CROSS_ENTROPY),
                rounds=rounds,
                warm_up=False,  # a run's first update, which is not measured, warms up
            )
            optimised, trained = (middle([round_[i] for round_ in times]) for i in (0, 1))
            sampling, rewards = (middle([part[i] for part in parts]) for i in (0, 1))
            lines.append(
                Line(
                    f"CIDEr optimisation of {CAPTIONS} captions per image, base ({candidates})",
                    "cross-entropy on the same images",
                    "at most 4",
                    [ours / theirs for ours, theirs in times],
                    f"{optimised:.2f} against {trained:.2f} s for {IMAGES} images: search {sampling:.2f}, rewards "
                    f"{rewards:.3f} with the references of {STORE} images, the rest is the update",
                )
            )
        return lines


def train(data: Path, parts: list[list[float]], *arguments: str) -> float:
    """Seconds per update, without the first; what is said of its parts is added to *parts*."""
    process = start_training(data, "xgpt_base", "--max-update", str(UPDATES + 1), *arguments)
    try:
        log = updates(process)
        next(log)
        began = time.perf_counter()
        for _ in range(UPDATES):
            line = next(log)
            if found := re.findall(r"(?:sampling|reward)_s=([\d.]+)", line):
                parts.append([float(value) for value in found])
        return (time.perf_counter() - began) / UPDATES
    finally:
        finish([process])
