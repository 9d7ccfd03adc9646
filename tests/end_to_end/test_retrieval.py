"""Retrieval through the real programs: a captioning checkpoint, a model of retrieval, its recall."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.end_to_end.programs import generate, logged, run, train
from xgpt_fairseq.checkpoints import load_checkpoint


def test_from_captions_to_recall(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path / "captions", "--max-update", "1")
    start = tmp_path / "captions" / "checkpoint_last.pt"
    retrieval = [
        "--task", "xgpt_retrieval", "--finetune-from-model", start, "--hard-negative-pool", "2", "--num-workers", "1",
        "--lr", "3e-3", "--max-epoch", "8", "--batch-size", "8", "--dropout", "0",
        "--best-checkpoint-metric", "matching_accuracy", "--maximize-best-checkpoint-metric",
    ]  # fmt: skip
    said = train(tiny_data, tmp_path / "retrieval", *retrieval).stdout
    assert "parameters new: 6 (heads.matching.regions.weight, heads.matching.regions.bias, heads.matching.te" in said
    losses, accuracies = (logged(said, f"matching_{name}", "train") for name in ("nll_loss", "accuracy"))
    assert losses[0] == pytest.approx(2, abs=0.2)  # bits: a choice of four
    assert losses[-1] < 1.6 and accuracies[-1] > 45
    assert len(logged(said, "matching_accuracy", "valid")) == 8

    best, output = tmp_path / "retrieval" / "checkpoint_best.pt", tmp_path / "recall.json"
    run("xgpt-evaluate", "--retrieval", "--path", best, "--data", tiny_data, "--splits", "train", "--output", output)
    found = json.loads(output.read_text())["image_retrieval"]
    assert found["R@1"] > 2 * found["chance"]["R@1"]

    # it does not caption; but a model that does starts from it
    refused = generate(tiny_data, best, tmp_path, check=False)
    assert refused.stderr.splitlines()[-1].startswith("error: the checkpoint has a matching head, this model has none")
    weights = load_checkpoint(best)["model"]
    assert torch.equal(weights["structure"], load_checkpoint(start)["model"]["structure"])
