"""Beam search with xgpt_base against fairseq's stock Transformer and generator."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.sequence_generator import SequenceGenerator

from tests.benchmarks import peers
from tests.benchmarks.measuring import Line, by_turns, seconds
from xgpt_fairseq.kernels import switch
from xgpt_fairseq.models.encoder import IMAGE_INPUTS
from xgpt_fairseq.search.beam_search import CaptionGenerator

IMAGES = 16


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=IMAGES)
        ours, stock = peers.XGPT(store), peers.Stock()
        our_search = search(ours)
        sources, stock_generator = stock.batch(IMAGES, captions=1), generator(stock, SequenceGenerator)

        def caption(bf16: bool) -> float:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return seconds(our_search)

        lines = peers.lines_by_precision(
            "beam-2 captions per second, base, 100 regions",
            "fairseq's stock `transformer` and generator, float32",
            reach={"float32": "1.6", "bfloat16": "3"},
            captions=IMAGES,
            ours=caption,
            stock=lambda: seconds(lambda: stock_generator.generate([], sources)),
            rounds=rounds,
        )
        switches = (
            (
                "packed weights",
                "with torch's plain matrix products",
                lambda: torch.backends.mkldnn.flags(enabled=False),
            ),
            ("all of kernels/", "with XGPT_KERNELS=plain", switch.plain),
        )
        return [*lines, *(what_it_brings(*each, lambda: caption(False), rounds) for each in switches)]


def what_it_brings(
    what: str, without: str, off: Callable[[], AbstractContextManager[None]], search: Callable[[], float], rounds: int
) -> Line:
    """A search against itself with something turned *off*: at 1, that can go."""

    def plainly() -> float:
        with off():
            return search()

    times = by_turns(search, plainly, rounds=rounds)
    return Line(f"the same with {what}, float32", without, "over 1", [plain / fast for fast, plain in times])


def search(ours: peers.XGPT, kind: type[SequenceGenerator] = CaptionGenerator) -> Callable[[], object]:
    """Caption all images of its store."""
    net_input = ours.batch()["net_input"]
    images = {"net_input": {name: net_input[name] for name in IMAGE_INPUTS}}
    beams = generator(ours, kind)
    return lambda: beams.generate([], images)


def generator(peer: Any, kind: type[SequenceGenerator]) -> SequenceGenerator:
    """Beam 2, captions of exactly so many tokens as the training's: the models have learned nothing."""
    peer.model.prepare_for_inference_(SimpleNamespace(common_eval=None, generation=None))
    peer.model.eval()
    length = peers.TOKENS - 1
    return kind([peer.model], peer.words, beam_size=2, max_len_a=0, max_len_b=length, min_len=length)
