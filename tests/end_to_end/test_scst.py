"""SCST through fairseq-train: started from a captioner, it raises the reward, and goes on bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.end_to_end.programs import generate, train, train_in_two_processes
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.precision import cpu_has_bfloat16

PLAIN = ["--dropout", "0", "--attention-dropout", "0"]


@pytest.fixture(scope="module")
def start(tiny_data: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A captioner."""
    options = [*PLAIN, "--max-update", "30", "--disable-validation", "--no-epoch-checkpoints"]
    return once("cross-entropy", lambda folder: train(tiny_data, folder, *options)) / "checkpoint_last.pt"


def test_it_raises_the_reward(tiny_data: Path, start: Path, tmp_path: Path) -> None:
    scst = [
        "--criterion", "xgpt_scst", "--finetune-from-model", start, *PLAIN, "--batch-size", "4", "--lr", "2e-3",
        "--scst-max-len", "16", "--save-interval", "100", "--no-epoch-checkpoints", "--eval-captions",
        "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric", "--validate-interval", "100",
    ]  # fmt: skip
    whole = train(tiny_data, tmp_path / "whole", *scst, "--max-update", "18", "--validate-interval-updates", "18")
    rewards = [float(value) for value in re.findall(r"train_inner .* reward=([\d.]+)", whole.stdout)]
    assert len(rewards) == 18 and np.mean(rewards[-4:]) > 1.2 * np.mean(rewards[:4])
    assert re.search(r"valid .* nll_loss [\d.]+ .*cider [\d.]+ .*repeats [\d.]+ \| bad_ends [\d.]+", whole.stdout)
    generate(tiny_data, tmp_path / "whole" / "checkpoint_last.pt", tmp_path, "--gen-subset", "test", "--beam", "2")


def test_it_goes_on_where_it_stopped_and_is_kept_near_the_same_start(
    tiny_data: Path, start: Path, tmp_path: Path
) -> None:
    """Bit for bit, in mid-epoch; `--scst-kl`: near the captioner of --finetune-from-model, not of the resumption."""
    scst = [
        "--criterion", "xgpt_scst", "--finetune-from-model", start, *PLAIN, "--batch-size", "4", "--lr", "2e-3",
        "--scst-max-len", "8", "--scst-kl", "0.3", "--dropout", "0.1", "--no-epoch-checkpoints", "--disable-validation",
    ]  # fmt: skip
    train(tiny_data, tmp_path / "whole", *scst, "--max-update", "6")
    train(tiny_data, tmp_path / "parts", *scst, "--max-update", "5")
    again = train(tiny_data, tmp_path / "parts", *scst, "--max-update", "6")
    assert re.search(r"Loaded checkpoint .*checkpoint_last\.pt \(epoch 3 @ 5 updates\)", again.stdout)
    one, other = (load_checkpoint(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this CPU has no bfloat16 arithmetic")
def test_in_half_precision(tiny_data: Path, start: Path, tmp_path: Path) -> None:
    log = train(
        tiny_data, tmp_path, "--criterion", "xgpt_scst", "--finetune-from-model", start, *PLAIN, "--batch-size", "4",
        "--scst-max-len", "12", "--max-update", "12", "--disable-validation", "--no-epoch-checkpoints", "--lr", "2e-3",
        "--scst-kl", "0.01", "--cpu-bf16",
    ).stdout  # fmt: skip
    rewards = [float(value) for value in re.findall(r"train_inner .* reward=([\d.]+)", log)]
    assert len(rewards) == 12 and np.mean(rewards[-4:]) > 1.1 * np.mean(rewards[:4])


def test_two_processes_equal_one_with_update_freq_2(tiny_data: Path, start: Path, tmp_path: Path) -> None:
    options = [
        "--criterion", "xgpt_scst", "--finetune-from-model", start, *PLAIN, "--batch-size", "2", "--scst-max-len", "12",
        "--max-update", "3", "--disable-validation", "--no-epoch-checkpoints",
    ]  # fmt: skip
    train(tiny_data, tmp_path / "one", *options, "--update-freq", "2")
    train_in_two_processes(tiny_data, tmp_path / "two", *options)
    before, one, two = (
        load_checkpoint(path)["model"]
        for path in (start, tmp_path / "one" / "checkpoint_last.pt", tmp_path / "two" / "checkpoint_last.pt")
    )
    assert any(not torch.equal(one[name], before[name]) for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], atol=1e-5, rtol=1e-5, msg=name)


def test_other_tasks_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    done = train(
        tiny_data, tmp_path, "--task", "xgpt_pretrain", "--criterion", "xgpt_scst", "--max-update", "1", check=False
    )
    assert done.returncode != 0 and "--criterion xgpt_scst trains image captioning alone" in done.stderr + done.stdout
