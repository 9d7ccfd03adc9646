"""`fairseq-train --region-dropout`: trained without some regions, validated with all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.end_to_end.programs import PLUGIN, run, train
from tests.end_to_end.test_views import weights

OPTIONS = ["--no-epoch-checkpoints", "--captions-per-image", "5", "--max-update", "6"]


def test_training_leaves_out_and_validation_does_not(tiny_data: Path, tmp_path: Path) -> None:
    train(tiny_data, tmp_path / "all", *OPTIONS, "--disable-validation")
    trained = train(
        tiny_data, tmp_path / "half", *OPTIONS, "--validate-interval-updates", "6", "--region-dropout", "0.5"
    )
    all_seen, half = weights(tmp_path / "all"), weights(tmp_path / "half")
    assert any(not half[name].equal(all_seen[name]) for name in half)
    # of the same weights, the run's validation says what fairseq-validate does, which has no such option
    validated = run(
        "fairseq-validate", tiny_data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--criterion", "xgpt",
        "--path", tmp_path / "half/checkpoint_last.pt", "--batch-size", "16", "--cpu", "--log-format", "simple",
        "--num-workers", "0",
    )  # fmt: skip
    losses = [
        re.findall(r"\bvalid\b.* ic_nll_loss ([\d.]+)", done.stdout + done.stderr) for done in (trained, validated)
    ]
    assert losses[0] and losses[0][-1:] == losses[1]


@pytest.mark.parametrize("rate", ["1", "-0.1", "nan"])
def test_a_rate_that_is_none_is_refused(tiny_data: Path, tmp_path: Path, rate: str) -> None:
    done = train(tiny_data, tmp_path / "run", *OPTIONS, f"--region-dropout={rate}", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert f"--region-dropout must be at least 0 and below 1, got {float(rate)}" in said
