"""Beam search with xgpt_base against fairseq's stock Transformer in the same generator."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peers
import torch
from fairseq.sequence_generator import SequenceGenerator
from measuring import Line, by_turns, middle, seconds

from xgpt_fairseq.precision import cpu_has_bfloat16

IMAGES = 16


def measure(rounds: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=IMAGES)
        ours, stock = peers.XGPT(store), peers.Stock()
        net_input = ours.batch()["net_input"]
        images = {"net_input": {name: net_input[name] for name in ("features", "boxes", "padding_mask")}}
        sources = stock.batch(IMAGES, captions=1)
        generators = {peer: generator(peer) for peer in (ours, stock)}

        def caption(bf16: bool) -> float:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                return seconds(lambda: generators[ours].generate([], images))

        precisions = [("float32", "1.6", False)] + [("bfloat16", "3", True)] * cpu_has_bfloat16()
        times = by_turns(
            lambda: seconds(lambda: generators[stock].generate([], sources)),
            *(lambda bf16=bf16: caption(bf16) for _, _, bf16 in precisions),
            rounds=rounds,
        )
    lines = []
    for place, (name, reach, _) in enumerate(precisions, start=1):
        speeds = [IMAGES / middle([round_[i] for round_ in times]) for i in (place, 0)]
        lines.append(
            Line(
                f"beam-2 captions per second, base, 100 regions, {name}",
                "fairseq's stock `transformer` and generator, float32",
                reach,
                [round_[0] / round_[place] for round_ in times],
                f"{speeds[0]:.2f} against {speeds[1]:.2f} a second",
            )
        )
    return lines


def generator(peer: Any) -> SequenceGenerator:
    """Beam 2, captions of exactly so many tokens as the training's: the models have learned nothing."""
    peer.model.prepare_for_inference_(SimpleNamespace(common_eval=None, generation=None))
    peer.model.eval()
    length = peers.TOKENS - 1
    return SequenceGenerator([peer.model], peer.words, beam_size=2, max_len_a=0, max_len_b=length, min_len=length)
