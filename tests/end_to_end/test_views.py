"""`fairseq-train --views`: regions from several stores of the same images, resumed bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.test_views import shifted
from tests.end_to_end.programs import train
from xgpt_fairseq.checkpoints import load_checkpoint

OPTIONS = ["--disable-validation", "--no-epoch-checkpoints", "--captions-per-image", "5"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = load_checkpoint(folder / "checkpoint_last.pt")["model"]
    return model


def test_all_stores_are_trained_on(tiny_data: Path, tiny_store: Path, tmp_path: Path) -> None:
    views = [str(shifted(tiny_store, tmp_path / f"view{number}", 0.5, {"view": number})) for number in (1, 2)]
    train(tiny_data, tmp_path / "without", *OPTIONS, "--max-update", "8")
    train(tiny_data, tmp_path / "whole", *OPTIONS, "--max-update", "8", "--views", ":".join(views))
    train(tiny_data, tmp_path / "parts", *OPTIONS, "--max-update", "5", "--views", ":".join(views))
    train(tiny_data, tmp_path / "parts", *OPTIONS, "--max-update", "8", "--views", ":".join(views))
    without, whole, parts = (weights(tmp_path / name) for name in ("without", "whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(not torch.equal(whole[name], without[name]) for name in whole)


@pytest.mark.parametrize("name", ["nowhere", "other"])
def test_what_is_wrong_is_said_before_training(tiny_data: Path, tiny_store: Path, tmp_path: Path, name: str) -> None:
    shifted(tiny_store, tmp_path / "other", 0.0, fewer_images=1)
    done = train(tiny_data, tmp_path / "run", *OPTIONS, "--max-update", "8", "--views", tmp_path / name, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert str(tmp_path / name) in last and "Traceback" not in done.stderr
    assert "train_inner" not in done.stdout
