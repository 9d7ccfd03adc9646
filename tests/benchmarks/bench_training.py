"""Training xgpt_base on image captioning against fairseq's stock Transformer: captions per second, and memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.measuring import Line, in_a_process, memory_peak_mb, middle, seconds

IMAGES = 8


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=IMAGES)
        lines = speed(store, rounds)
        ratios, ours, stock = [], [], []
        for _ in range(rounds):
            ours.append(in_a_process(memory, str(store.path), method="spawn"))
            stock.append(in_a_process(memory, None, method="spawn"))
            ratios.append(ours[-1] / stock[-1])
    captions = IMAGES * peers.CAPTIONS
    detail = f"{middle(ours) / 1000:.2f} GB against {middle(stock) / 1000:.2f} GB, {captions} captions"
    against = "fairseq's stock `transformer`, same batch"
    return [*lines, Line("peak memory of an update, base", against, "at most 0.6", ratios, detail)]


def speed(store: Any, rounds: int) -> list[Line]:
    ours, stock = peers.XGPT(store), peers.Stock()
    batch, pairs = ours.batch(), stock.batch(IMAGES)
    adam, stock_adam = peers.optimizer(ours.model), peers.optimizer(stock.model)

    def train(bf16: bool) -> float:
        return seconds(lambda: peers.update(ours.model, ours.criterion, batch, adam, bf16=bf16))

    def train_stock() -> float:
        return seconds(lambda: peers.update(stock.model, stock.criterion, pairs, stock_adam, bf16=False))

    return peers.lines_by_precision(
        "training, captions per second, base, IC, 5 captions per image",
        "fairseq's stock `transformer`, float32, same pairs",
        reach={"float32": "3", "bfloat16": "5"},
        captions=IMAGES * peers.CAPTIONS,
        ours=train,
        stock=train_stock,
        rounds=rounds,
    )


def memory(store: str | None) -> float:
    """MB at the peak of two updates (the first makes Adam's state), beyond those before there was a model."""
    if store is not None:
        peer: Any = peers.XGPT(peers.RegionStore(store))
        batch = peer.batch()
    else:
        peer = peers.Stock()
        batch = peer.batch(IMAGES)
    parameters = sum(p.numel() * p.element_size() for p in peer.model.parameters()) / 1e6
    before = current_mb() - parameters
    adam = peers.optimizer(peer.model)
    for _ in range(2):
        peers.update(peer.model, peer.criterion, batch, adam, bf16=False)
    return memory_peak_mb() - before


def current_mb() -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1000 for line in status if line.startswith("VmRSS"))
