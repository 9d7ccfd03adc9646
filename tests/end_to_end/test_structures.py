"""The structures of section 6 (`--sharing`) through the real programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.end_to_end.programs import generate, generated, logged, run, train
from xgpt_fairseq.checkpoints import load_checkpoint


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)["model"]


@pytest.mark.parametrize("sharing", ["enc-dec", pytest.param("enc", marks=pytest.mark.thorough)])
def test_a_structure_trains_all_objectives_resumes_averages_and_captions(
    sharing: str, tiny_text_data: Path, tiny_data: Path, tmp_path: Path
) -> None:
    two = ["--layers", "2"]  # of a stack with one layer, less could be shared
    options = ["--sharing", sharing, *two, "--task", "xgpt_pretrain"]
    text = [*options, "--task", "xgpt_text_pretrain", "--batch-size", "8", "--max-update", "2"]
    train(tiny_text_data, tmp_path / "text", *text)
    start = ["--finetune-from-model", tmp_path / "text" / "checkpoint_last.pt"]

    whole = train(tiny_data, tmp_path / "whole", *options, *start, "--max-epoch", "2").stdout
    for name in ("ic_nll_loss", "imlm_nll_loss", "ida_nll_loss", "tifg_mse"):
        losses = logged(whole, name, "train")
        assert losses[1] < losses[0], name
    train(tiny_data, tmp_path / "parts", *options, *start, "--max-epoch", "1")
    again = train(tiny_data, tmp_path / "parts", *options, *start, "--max-epoch", "2").stdout
    assert "Loaded checkpoint" in again
    expected, resumed = (weights(tmp_path / run / "checkpoint_last.pt") for run in ("whole", "parts"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in expected.items())

    average = tmp_path / "average.pt"
    run("xgpt-average-checkpoints", "--checkpoints", tmp_path / "whole", "--last-epochs", "2", "--output", average)
    captions = [
        "--sharing", sharing, *two, "--finetune-from-model", average, "--max-update", "2", "--eval-captions",
    ]  # fmt: skip
    log = train(tiny_data, tmp_path / "captions", *captions).stdout
    assert "parameters new: 0 (none)" in log and logged(log, "cider", "valid")
    generate(tiny_data, tmp_path / "captions" / "checkpoint_last.pt", tmp_path, "--beam", "2")
    assert all(caption for (caption, *_) in generated(tmp_path).values())


@pytest.mark.thorough  # the rules are those of tests/models/test_transfer.py
@pytest.mark.parametrize("sharing", ["enc-dec", "enc"])
def test_another_structure_does_not_resume_and_starts_only_where_parameters_are_the_same(
    sharing: str, tiny_data: Path, tmp_path: Path
) -> None:
    options = ["--layers", "2", "--max-update", "1"]
    train(tiny_data, tmp_path / "run", *options, "--sharing", sharing)
    start = ["--finetune-from-model", tmp_path / "run" / "checkpoint_last.pt"]
    other = train(tiny_data, tmp_path / "run", "--layers", "2", "--max-update", "2", check=False)
    assert other.returncode == 1
    assert other.stderr.splitlines()[-1] == (
        f"error: the checkpoint is a model of --sharing {sharing}, this is one of --sharing enc-dec-share"
    )
    shared = train(tiny_data, tmp_path / "shared", *options, *start, check=False)
    if sharing == "enc":
        assert "a model of --sharing enc: its weights are reused in one of --sharing enc-dec-share" in shared.stdout
    else:
        assert shared.stderr.splitlines()[-1].startswith(
            "error: a model of --sharing enc-dec-share cannot start from one of --sharing enc-dec"
        )
