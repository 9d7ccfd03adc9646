"""Beam search with a model of 3 layers of width 64, where a step is nothing but calls of operators.

Our model in our search and in fairseq's generator, against fairseq's stock Transformer in fairseq's generator.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fairseq.sequence_generator import SequenceGenerator

from tests.benchmarks import peers
from tests.benchmarks.bench_generation import generator, search
from tests.benchmarks.measuring import Line, by_turns, middle, seconds

IMAGES = 4


def measure(rounds: int) -> list[Line]:
    sizes = peers.SMALL
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=IMAGES, regions=sizes.regions, width=sizes.hidden)
        ours = peers.XGPT(store, sizes=sizes)
        run_ours, run_in_fairseq_s = search(ours), search(ours, SequenceGenerator)
    stock = peers.Stock(sizes)
    sources, stock_generator = stock.batch(IMAGES, captions=1), generator(stock, SequenceGenerator)
    runs = (run_ours, run_in_fairseq_s, lambda: stock_generator.generate([], sources))
    times = by_turns(*(lambda run=run: seconds(run) for run in runs), rounds=5 * rounds)
    speed = [IMAGES / middle([round_[place] for round_ in times]) for place in range(len(runs))]
    measured, against = (
        f"beam-2 captions per second, 3 layers of width 64, {IMAGES} images",
        "fairseq's stock `transformer` and generator",
    )
    return [
        Line(
            measured + name,
            against,
            "1",
            [round_[-1] / round_[place] for round_ in times],
            f"{speed[place]:.0f} against {speed[-1]:.0f} per second",
        )
        for place, name in enumerate(("", ", our model in fairseq's generator"))
    ]
