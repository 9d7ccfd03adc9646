"""The checkpoint that a training starts from or goes on from, each rule by its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.dataclass.configs import FairseqConfig
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.early_stop import BEST, RUNS
from xgpt_fairseq.tasks.start import check_start, last_checkpoint


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """start({"group.name": value, …}): check the start of a training into tmp_path / "run"; its configuration."""

    def start(changes: dict[str, object]) -> Any:
        root = OmegaConf.structured(FairseqConfig)
        right = {"task": {"_name": "xgpt_caption"}, "criterion": {"_name": "xgpt"},
                 "checkpoint.save_dir": str(tmp_path / "run")}  # fmt: skip
        for name, value in {**right, **changes}.items():
            OmegaConf.update(root, name, value, force_add=True)
        check_start(root)
        return root

    return start


def save(path: Path, updates: int, *, began_with: str = "", optimizer: bool = True, **extra_state: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    checkpoint = {"reset_optimizer": False, "reset_dataloader": False}
    state = {"model": {}, "cfg": {"checkpoint": {**checkpoint, began_with: True}}, "extra_state": extra_state,
             "optimizer_history": [{"num_updates": updates}]}  # fmt: skip
    torch.save({**state, "last_optimizer_state": {}} if optimizer else state, path)
    return path


@pytest.mark.parametrize(
    ("made", "changes", "begin"),
    [
        (None, {}, None),  # nothing was trained yet
        (5, {}, None),
        (20, {}, None),  # it is the last one of that folder
        (30, {}, 20),
        (30, {"checkpoint.no_save": True}, None),
        (5, {"checkpoint.reset_optimizer": True}, 0),
    ],
    ids=str,
)
def test_another_checkpoint_than_the_last(
    start: Any, tmp_path: Path, made: int | None, changes: dict[str, object], begin: int | None
) -> None:
    """fairseq begins with --restore-file at every start, also of the same command after an interruption."""
    other, last = save(tmp_path / "other.pt", 20), tmp_path / "run" / "checkpoint_last.pt"
    if made is not None:
        save(last, made)
    options = {"checkpoint.restore_file": str(other), **changes}
    if begin is None:
        start(options)
        return
    with pytest.raises(DataError) as caught:
        start(options)
    assert f"{other} would begin at update {begin}, and overwrite {last}, which has made {made}: " in str(caught.value)


def test_an_average_counts_from_0(start: Any, tmp_path: Path) -> None:
    """fairseq reads the number of updates with the optimizer's state, which an average has not."""
    average, last = save(tmp_path / "averaged.pt", 20, optimizer=False), tmp_path / "run" / "checkpoint_last.pt"
    start({"checkpoint.restore_file": str(average), "optimization.max_update": 10})
    with pytest.raises(DataError, match=r"other\.pt has made 20 updates already: --max-update 10 leaves nothing"):
        start({"checkpoint.restore_file": str(save(tmp_path / "other.pt", 20)), "optimization.max_update": 10})
    save(last, 5)
    with pytest.raises(DataError, match=r"averaged\.pt would begin at update 0, and overwrite .*, which has made 5: "):
        start({"checkpoint.restore_file": str(average)})


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [
        ({}, False),
        ({"optimization.max_epoch": 3}, False),
        ({"optimization.max_epoch": 2}, True),  # fairseq makes none
        ({"checkpoint.reset_optimizer": True}, True),
    ],
    ids=str,
)
def test_a_last_checkpoint_without_the_optimizer(
    start: Any, tmp_path: Path, changes: dict[str, object], goes_on: bool
) -> None:
    """That of --no-save-optimizer-state: each start would begin at update 0."""
    position = {"epoch": 3, "iterations_in_epoch": 0}
    save(tmp_path / "run" / "checkpoint_last.pt", 30, optimizer=False, train_iterator=position)
    if goes_on:
        start(changes)
        return
    with pytest.raises(DataError, match=r"checkpoint_last\.pt has no state of the optimizer \(--no-save-optimizer-sta"):
        start(changes)
    with pytest.raises(SystemExit):
        start({**changes, "optimization.max_update": 30})


def test_a_last_checkpoint_that_is_damaged_is_replaced(start: Any, tmp_path: Path) -> None:
    save(tmp_path / "run" / "checkpoint_last.pt", 30).write_bytes(b"PK")
    start({"checkpoint.restore_file": str(save(tmp_path / "run" / "checkpoint1.pt", 20))})


def test_the_suffix_of_checkpoints(start: Any, tmp_path: Path) -> None:
    """fairseq adds it to the name of --restore-file as well; where no such file is, it would train from scratch."""
    other = save(tmp_path / "other.pt", 20)
    save(tmp_path / "run" / "checkpoint_last_b.pt", 30)
    changes: dict[str, object] = {"checkpoint.checkpoint_suffix": "_b", "checkpoint.restore_file": str(other)}
    with pytest.raises(DataError, match=r"--restore-file .*other_b\.pt does not exist"):
        start(changes)
    save(tmp_path / "other_b.pt", 10)
    with pytest.raises(DataError, match=r"other_b\.pt would begin at update 10, and overwrite .*_last_b\.pt, "):
        start(changes)
    by_name = str(tmp_path / "run" / "checkpoint_last.pt")
    with pytest.raises(SystemExit):
        start({**changes, "checkpoint.restore_file": by_name, "optimization.max_update": 30})
    assert last_checkpoint({"save_dir": "run", "checkpoint_suffix": "_b"}) == Path("run/checkpoint_last_b.pt")
    assert last_checkpoint({"save_dir": "run"}) == Path("run/checkpoint_last.pt")


@pytest.mark.parametrize("name", ["reset_optimizer", "reset_dataloader"])
def test_a_training_counts_anew_once(start: Any, tmp_path: Path, name: str) -> None:
    last, changes = tmp_path / "run" / "checkpoint_last.pt", {f"checkpoint.{name}": True}
    save(last, 30)
    start(changes)
    save(last, 10, began_with=name)
    start({})
    with pytest.raises(DataError, match=f"began with --{name.replace('_', '-')}, and would begin once more: leave"):
        start(changes)


def test_a_run_whose_patience_is_over(start: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It ends with status 0, and changes nothing; fairseq would begin to count anew."""
    last = save(tmp_path / "run" / "checkpoint_last.pt", 30, XGPTCaptionTask={BEST: 1.5, RUNS: 2})
    before = last.read_bytes()
    start({"checkpoint.patience": 3})
    with caplog.at_level("INFO"), pytest.raises(SystemExit) as ended:
        start({"checkpoint.patience": 2})
    assert not ended.value.code
    assert f"{last} has ended 2 validations after the best one: --patience is over" in caplog.text
    assert [file.name for file in last.parent.iterdir()] == [last.name] and last.read_bytes() == before


HOUR = {"previous_training_time": 3601.0}


def test_a_run_whose_time_is_over(start: Any, tmp_path: Path) -> None:
    """fairseq sees it after one more update, at each start."""
    last = save(tmp_path / "run" / "checkpoint_last.pt", 30, **HOUR)
    start({"optimization.stop_time_hours": 2})
    with pytest.raises(SystemExit) as ended:
        start({"optimization.stop_time_hours": 1})
    assert not ended.value.code
    with pytest.raises(DataError, match=f"{last} was trained for 1.00 hours, which fairseq counts: --stop-time-hours"):
        start({"optimization.stop_time_hours": 1, "checkpoint.reset_optimizer": True})


@pytest.mark.parametrize("name", ["restore_file", "finetune_from_model", "continue_once"])
def test_the_time_of_another_training_counts(start: Any, tmp_path: Path, name: str) -> None:
    changes = {f"checkpoint.{name}": str(save(tmp_path / "other.pt", 20, **HOUR))}
    start({**changes, "optimization.stop_time_hours": 2})
    with pytest.raises(DataError, match=r"--[a-z-]+ .*other\.pt was trained for 1.00 hours, which fairseq counts: "):
        start({**changes, "optimization.stop_time_hours": 1})


@pytest.mark.parametrize("job", [{"num": 1}, {"num": "???"}], ids=["sweep", "one"])
def test_a_sweep_goes_on_after_a_run_that_is_finished(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, object]
) -> None:
    """Its trainings run in one process, which the first one that is finished would end."""
    save(tmp_path / "run" / "checkpoint_last.pt", 30)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"job": job}}))
    changes: dict[str, object] = {"optimization.max_update": 30, "optimization.max_epoch": 4}
    if job["num"] == "???":
        with pytest.raises(SystemExit):
            start(changes)
        return
    assert start(changes).optimization.max_epoch < 1  # the number of the next epoch is 1 at least


@pytest.mark.parametrize("changes", [
    {"checkpoint.patience": 2}, {"optimization.stop_time_hours": 1}, {"optimization.max_update": 30},
], ids=str)  # fmt: skip
def test_the_last_checkpoint_by_its_name(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    """--restore-file SAVE_DIR/checkpoint_last.pt, as scripts of clusters have it: a finished run ends as without."""
    save(tmp_path / "run" / "checkpoint_last.pt", 30, XGPTCaptionTask={BEST: 1.5, RUNS: 2}, **HOUR)
    monkeypatch.chdir(tmp_path)
    start({"checkpoint.restore_file": "run/checkpoint_last.pt"})
    with pytest.raises(SystemExit) as ended:
        start({"checkpoint.restore_file": "run/checkpoint_last.pt", **changes})
    assert not ended.value.code
    with pytest.raises(DataError, match="--finetune-from-model starts a new training"):
        start({"checkpoint.restore_file": "run/checkpoint_last.pt", "checkpoint.finetune_from_model": "run/other.pt"})


@pytest.mark.parametrize("name", ["restore_file", "continue_once"])
def test_the_patience_of_another_training_counts(start: Any, tmp_path: Path, name: str) -> None:
    other = save(tmp_path / "other.pt", 20, XGPTCaptionTask={BEST: 1.5, RUNS: 2})
    changes: dict[str, object] = {f"checkpoint.{name}": str(other), "checkpoint.patience": 2}
    with pytest.raises(DataError, match=r"--[a-z-]+ .*other\.pt has ended 2 validations after the best one, which co"):
        start(changes)
    start({**changes, "checkpoint.patience": 3})
    start({**changes, "checkpoint.reset_meters": True})


def test_a_model_s_weights_have_no_patience(start: Any, tmp_path: Path) -> None:
    other = save(tmp_path / "other.pt", 20, XGPTCaptionTask={BEST: 1.5, RUNS: 2})
    start({"checkpoint.finetune_from_model": str(other), "checkpoint.patience": 2})
