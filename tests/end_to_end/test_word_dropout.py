"""`fairseq-train --ic-word-dropout`: it changes what is learned, and a resumed run goes on to the same weights."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.programs import train
from tests.end_to_end.test_views import weights

OPTIONS = ["--no-epoch-checkpoints", "--disable-validation", "--captions-per-image", "5"]


def test_it_is_learned_from_and_resumed_bit_for_bit(tiny_data: Path, tmp_path: Path) -> None:
    masking = [*OPTIONS, "--ic-word-dropout", "0.3"]
    train(tiny_data, tmp_path / "without", *OPTIONS, "--max-update", "5")
    train(tiny_data, tmp_path / "whole", *masking, "--max-update", "5")
    train(tiny_data, tmp_path / "parts", *masking, "--max-update", "3")
    train(tiny_data, tmp_path / "parts", *masking, "--max-update", "5")
    without, whole, parts = (weights(tmp_path / name) for name in ("without", "whole", "parts"))
    assert all(whole[name].equal(parts[name]) for name in whole)
    assert any(not whole[name].equal(without[name]) for name in whole)
