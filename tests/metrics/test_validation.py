"""The validation of a checkpoint beside that of the run that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end.programs import train, train_in_two_processes
from xgpt_fairseq.averaging import average
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.cli.average_checkpoints import program
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.validation import validation_metric

RUNS = {
    "ic": ["--best-checkpoint-metric", "ic_nll_loss"],
    "captions": ["--eval-captions", "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric"],
    "pre-training": ["--task", "xgpt_pretrain", "--objectives", "ic,imlm,tifg"],
}
ONCE = ["--max-update", "12", "--validate-interval", "1000", "--save-interval", "1000", "--seed", "3"]


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind → save dir of a run with one validation, at its end."""
    folders = {kind: tmp_path_factory.mktemp("run") for kind in RUNS}
    for kind, options in RUNS.items():
        train(tiny_data, folders[kind], *ONCE, *options)
    return folders


@pytest.mark.parametrize("kind", RUNS)
def test_it_is_the_value_that_the_run_wrote_down(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = runs[kind] / "checkpoint_last.pt"
    before = sorted(runs[kind].iterdir())
    value = validation_metric(checkpoint)
    assert value == load_checkpoint(checkpoint)["extra_state"]["val_loss"]
    assert sorted(runs[kind].iterdir()) == before
    average([checkpoint], tmp_path / "averaged.pt")
    assert validation_metric(tmp_path / "averaged.pt") == value


def test_one_process_has_the_batches_of_all_of_the_run_s(tiny_data: Path, tmp_path: Path) -> None:
    """--max-valid-steps is each process's, and here ends in the midst of an iteration of the objectives."""
    train_in_two_processes(tiny_data, tmp_path, *ONCE, "--task", "xgpt_pretrain", "--objectives", "ic,imlm",
                           "--batch-size", "3", "--max-valid-steps", "1")  # fmt: skip
    checkpoint = tmp_path / "checkpoint_last.pt"
    value = load_checkpoint(checkpoint)["extra_state"]["val_loss"]
    assert validation_metric(checkpoint) == pytest.approx(value, abs=2e-3)  # fairseq rounds each to a thousandth


def test_a_worse_average_is_named(runs: dict[str, Path], tmp_path: Path, call_program: Callable[..., Any]) -> None:
    good = runs["ic"] / "checkpoint_last.pt"
    state = dict(load_checkpoint(good))
    torch.manual_seed(1)
    state["model"] = {
        name: torch.randn_like(value) if value.is_floating_point() else value for name, value in state["model"].items()
    }
    state["extra_state"] = {**state["extra_state"], "val_loss": 99.0}
    torch.save(state, bad := tmp_path / "bad.pt")
    done = call_program(program, "--inputs", good, bad, "--output", tmp_path / "averaged.pt", "--validate")
    assert done.status == 0, done.stderr
    best = state["cfg"]["checkpoint"]["best_checkpoint_metric"]
    value = load_checkpoint(good)["extra_state"]["val_loss"]
    assert f"of the best of its members, checkpoint_last.pt: {value:g}" in done.stdout
    assert done.stderr.splitlines()[-1].startswith(f"warning: the average is worse than {good} ({best} ")
    done = call_program(program, "--inputs", good, "--output", tmp_path / "one.pt", "--validate")
    assert "ic_nll_loss of the average" in done.stdout and "warning" not in done.stderr


def test_no_file_without_its_validation(
    runs: dict[str, Path], tmp_path: Path, call_program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage whose average is there counts as done, so one that could not be validated is not there."""
    good, average_file = runs["ic"] / "checkpoint_last.pt", tmp_path / "averaged.pt"

    def fails(path: Path) -> float:
        assert path.is_file()
        raise DataError("no data")

    monkeypatch.setattr("xgpt_fairseq.metrics.validation.validation_metric", fails)
    done = call_program(program, "--inputs", good, "--output", average_file, "--validate")
    assert (done.status, done.error) == (1, "no data")
    assert not list(tmp_path.iterdir())


def test_what_is_no_training_cannot_be_validated(tmp_path: Path) -> None:
    torch.save({"model": {}, "cfg": {"checkpoint": {}}}, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt has no configuration of its training"):
        validation_metric(tmp_path / "x.pt")
