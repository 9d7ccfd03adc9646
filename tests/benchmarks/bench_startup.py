"""fairseq-train from its start to its first update, on a store of a million images and on one of a thousand."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.benchmarks.directories import data_directory, finish, sparse_store, start_training, updates
from tests.benchmarks.measuring import Line, by_turns, middle

IMAGES = (1_000_000, 1_000)


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        directories = [
            data_directory(folder / f"data{images}", sparse_store(folder / f"store{images}", images=images))
            for images in IMAGES
        ]
        times = by_turns(*(lambda data=data: first_update(data) for data in directories), rounds=rounds)
    large, small = (middle([round_[i] for round_ in times]) for i in (0, 1))
    return [
        Line(
            "start to first update, 1 000 000 images with one caption each",
            "1 000 images",
            "at most 1.2",
            [large / small for large, small in times],
            f"{large:.2f} against {small:.2f} s",
        )
    ]


def first_update(data: Path) -> float:
    began = time.perf_counter()
    process = start_training(data, "xgpt_demo", "--batch-size", "8", "--max-update", "1")
    try:
        next(updates(process))
        return time.perf_counter() - began
    finally:
        finish([process])
