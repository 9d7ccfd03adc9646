"""Two training processes of one thread against one process of one thread, through fairseq-train."""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.directories import data_directory, finish, start_training, updates
from tests.benchmarks.measuring import Line, by_turns, middle

BATCH, UPDATE_FREQ, UPDATES = 4, 4, 2


def measure(rounds: int) -> list[Line]:
    """Both make updates of 16 captions a process, by four batches, and with two the gradients travel between them."""
    with tempfile.TemporaryDirectory() as name:
        store = peers.write_store(Path(name) / "store", images=256)
        data = data_directory(Path(name) / "data", store)
        # a run's first update, which is not measured, warms up
        times = by_turns(lambda: train(data, 1), lambda: train(data, 2), rounds=rounds, warm_up=False)
    one, two = (middle([round_[i] for round_ in times]) for i in (0, 1))
    captions = BATCH * UPDATE_FREQ
    return [
        Line(
            "two training processes of one thread, base, IC",
            "one process of one thread",
            "1.8",
            [2 * alone / together for alone, together in times],
            f"{2 * captions / two:.2f} against {captions / one:.2f} captions per second",
        )
    ]


def train(data: Path, processes: int) -> float:
    """Seconds per update, without the first."""
    shared: list[str] = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"tcp://localhost:{free.getsockname()[1]}"
        shared = ["--distributed-init-method", address, "--distributed-world-size", str(processes),
                  "--distributed-no-spawn", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]  # fmt: skip
    arguments = ["--batch-size", str(BATCH), "--update-freq", str(UPDATE_FREQ), "--max-update", str(UPDATES + 1)]
    started = [
        start_training(data, "xgpt_base", *arguments, *shared, *(["--distributed-rank", str(rank)] if shared else []))
        for rank in range(processes)
    ]
    try:
        log = updates(started[0])
        next(log)
        began = time.perf_counter()
        for _ in range(UPDATES):
            next(log)
        return (time.perf_counter() - began) / UPDATES
    finally:
        finish(started)
