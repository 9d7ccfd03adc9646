"""The program `xgpt-average-checkpoints` as users run it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.preloaded import python
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.cli.average_checkpoints import program


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Epochs 8 to 11 of a run whose CIDEr is best in epoch 9; the parameter is the epoch's number."""
    for epoch, value in {8: 0.9, 9: 1.1, 10: 1.0, 11: 0.8}.items():
        state = {
            "cfg": {"checkpoint": {"best_checkpoint_metric": "cider", "maximize_best_checkpoint_metric": True}},
            "model": {"weight": torch.tensor([float(epoch)])},
            "optimizer_history": [{"num_updates": 100 * epoch}],
            "extra_state": {"val_loss": value},
        }
        (tmp_path / "run").mkdir(exist_ok=True)
        names = [f"checkpoint{epoch}.pt", f"checkpoint_{epoch}_{100 * epoch}.pt"]
        names += ["checkpoint_best.pt"] * (epoch == 9) + ["checkpoint_last.pt"] * (epoch == 11)
        for name in names:
            torch.save(state, tmp_path / "run" / name)
    return tmp_path / "run"


def weight(path: Path) -> float:
    return load_checkpoint(path)["model"]["weight"].item()


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        (["--best", "2"], [9, 10]),
        (["--best", "3"], [9, 10, 8]),
        (["--last-epochs", "2"], [11, 10]),
        (["--last-updates", "3"], [11, 10, 9]),
        (["--last-epochs", "9", "--allow-fewer"], [11, 10, 9, 8]),
        (["--best", "9", "--allow-fewer"], [9, 10, 8, 11]),
    ],
)
def test_choices(
    run_folder: Path, tmp_path: Path, call_program: Callable[..., Any], options: list[str], epochs: list[int]
) -> None:
    output = tmp_path / "mean.pt"
    done = call_program(program, "--checkpoints", run_folder, *options, "--output", output)
    assert done.status == 0, done.stderr
    if "--allow-fewer" in options:
        what = "checkpoints saved by epochs" if "--last-epochs" in options else "validated checkpoints"
        reason = f"{run_folder} has 4 {what}"
        assert done.stderr.splitlines()[-1] == f"warning: 9 checkpoints are asked for, 4 averaged: {reason}"
    else:
        assert "warning" not in done.stderr
    assert weight(output) == pytest.approx(sum(epochs) / len(epochs))
    *lines, last = done.stdout.splitlines()
    assert last == f"average of {len(epochs)} written to {output}"
    updates = "--last-updates" in options
    expected = [f"checkpoint_{e}_{100 * e}.pt" if updates else f"checkpoint{e}.pt" for e in epochs]
    assert lines == [str(run_folder / name) for name in expected]


def test_what_is_left_out_is_said(run_folder: Path, tmp_path: Path, call_program: Callable[..., Any]) -> None:
    for file in run_folder.iterdir():
        state = torch.load(file, weights_only=True)
        state["cfg"]["lr_scheduler"] = {"_name": "inverse_sqrt", "warmup_updates": 900}
        torch.save(state, file)
    options = ["--checkpoints", run_folder, "--best", "4", "--output", tmp_path / "mean.pt"]
    assert call_program(program, *options).status == 1
    done = call_program(program, *options, "--allow-fewer")
    assert weight(tmp_path / "mean.pt") == 10.5
    left_out = [f"left out: {run_folder / f'checkpoint{e}.pt'}: update {e}00 is within the warm-up of 900 updates"
                for e in (8, 9)]  # fmt: skip
    averaged = [str(run_folder / f"checkpoint{epoch}.pt") for epoch in (10, 11)]
    assert done.stdout.splitlines()[:-1] == left_out + averaged
    assert done.stderr == (
        f"warning: 4 checkpoints are asked for, 2 averaged: {run_folder} has 2 validated checkpoints from after the "
        "warm-up (and 2 from within it)\n"
    )


def test_checkpoints_without_validation_are_averaged_and_not_compared(
    run_folder: Path, tmp_path: Path, call_program: Callable[..., Any]
) -> None:
    """As a stage with --disable-validation leaves them."""
    for file in run_folder.iterdir():
        state = torch.load(file, weights_only=True)
        state["extra_state"]["val_loss"] = None
        torch.save(state, file)
    command = ["--checkpoints", run_folder, "--output", tmp_path / "mean.pt", "--validate"]
    done = call_program(program, *command, "--last-updates", "2")
    assert done.status == 0 and weight(tmp_path / "mean.pt") == 10.5
    assert done.stderr.splitlines()[-1] == (
        "warning: --validate: none of the checkpoints was validated, so the average is compared with none"
    )
    assert "of the average:" not in done.stdout
    (tmp_path / "mean.pt").unlink()
    assert call_program(program, *command, "--best", "2").status == 1 and not (tmp_path / "mean.pt").exists()


def test_as_a_command(run_folder: Path, tmp_path: Path) -> None:
    command = [python(), "-m", "xgpt_fairseq.cli.average_checkpoints", "--inputs"]
    command += [str(run_folder / f"checkpoint{epoch}.pt") for epoch in (8, 11)]
    command += ["--output", str(tmp_path / "mean.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert weight(tmp_path / "mean.pt") == 9.5
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'mean.pt'} exists; pass --overwrite to replace it\n"


def test_inputs_can_be_given_one_by_one(run_folder: Path, tmp_path: Path, call_program: Callable[..., Any]) -> None:
    each = [part for epoch in (8, 11) for part in ("--inputs", run_folder / f"checkpoint{epoch}.pt")]
    assert call_program(program, *each, "--output", tmp_path / "mean.pt").status == 0
    assert weight(tmp_path / "mean.pt") == 9.5


def test_what_inputs_would_make_useless(run_folder: Path, tmp_path: Path, call_program: Callable[..., Any]) -> None:
    inputs = ["--inputs", run_folder / "checkpoint8.pt", "--output", tmp_path / "mean.pt"]
    refused = call_program(program, *inputs, "--checkpoints", run_folder)
    assert refused.error == "--checkpoints has no effect with --inputs"
    refused = call_program(program, *inputs, "--checkpoints", run_folder, "--allow-fewer")
    assert refused.error == "--checkpoints, --allow-fewer have no effect with --inputs"
    assert not (tmp_path / "mean.pt").exists()


def test_overwrite(run_folder: Path, tmp_path: Path, call_program: Callable[..., Any]) -> None:
    output = tmp_path / "mean.pt"
    output.write_text("old")
    arguments = ["--checkpoints", run_folder, "--best", "1", "--output", output]
    assert "exists; pass --overwrite" in call_program(program, *arguments).error
    assert output.read_text() == "old"
    assert call_program(program, *arguments, "--overwrite").status == 0
    assert weight(output) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--checkpoints", "run", "--best", "5"],
            "run has 4 validated checkpoints, 5 are asked for; pass --allow-fewer",
        ),
        (["--checkpoints", "run", "--last-epochs", "5"], "run has 4 checkpoints saved by epochs, 5 are asked for"),
        (["--checkpoints", "run", "--last-updates", "0"], "must be at least 1, got 0"),
        (["--checkpoints", "none", "--best", "1"], "none is not a folder"),
        (["--inputs", "run/checkpoint8.pt", "run/none.pt"], "checkpoint run/none.pt does not exist"),
        (["--inputs", "run/checkpoint8.pt", "run/../run/checkpoint8.pt"], "checkpoint8.pt twice, which would give it"),
        (["--inputs", "text.pt"], "text.pt is not a checkpoint"),
    ],
)
def test_errors_leave_nothing_behind(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_program: Callable[..., Any],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    done = call_program(program, *options, "--output", "mean.pt")
    assert done.status == 1
    assert message in done.error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("options", [[], ["--best", "1"], ["--best", "1", "--last-epochs", "1"], ["--best", "two"]])
def test_usage(tmp_path: Path, call_program: Callable[..., Any], options: list[str]) -> None:
    done = call_program(program, *options, "--output", tmp_path / "mean.pt")
    assert done.status == 2
    assert " error: " in done.stderr and done.stderr.endswith(" --help lists all options\n")
    assert not (tmp_path / "mean.pt").exists()
