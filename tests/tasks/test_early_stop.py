"""--patience counts over starts, by fairseq's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.checkpoint_utils import load_checkpoint, save_checkpoint
from fairseq.dataclass.configs import FairseqConfig
from fairseq_cli.train import should_stop_early
from omegaconf import OmegaConf

from xgpt_fairseq.tasks import early_stop
from xgpt_fairseq.tasks.base import XGPTTask


@pytest.fixture(autouse=True)
def no_other_training() -> Iterator[None]:
    early_stop.forget()
    yield
    early_stop.forget()


def run_of(**checkpoint: object) -> Any:
    """A run's configuration."""
    root = OmegaConf.structured(FairseqConfig)
    OmegaConf.update(root, "task", {"_name": "xgpt_caption"}, force_add=True)
    OmegaConf.update(root, "checkpoint", {"patience": 3, "save_dir": "none", **checkpoint})
    return root


def go_on(root: Any, extra_state: dict[str, Any]) -> None:
    """Go on from a checkpoint, as fairseq does."""
    task = XGPTTask.__new__(XGPTTask)
    task.cfg = root.task
    trainer = SimpleNamespace(
        task=task,
        checkpoint_suffix="",
        load_checkpoint=lambda *_, **__: {"train_iterator": {"epoch": 1}, **extra_state},
        get_train_iterator=lambda **_: SimpleNamespace(epoch=1, load_state_dict=lambda _: None),
        lr_step=lambda _: None,
    )
    load_checkpoint(root.checkpoint, trainer)


def saved(root: Any) -> dict[str, Any]:
    """What a task has fairseq keep in a checkpoint."""
    task = XGPTTask.__new__(XGPTTask)
    task.cfg = root.task
    task._whole_checkpoints = SimpleNamespace(begin=lambda: None)
    return task.get_checkpoint_dict()


@pytest.mark.parametrize("maximize", [False, True])
def test_a_training_that_is_resumed_goes_on_counting(maximize: bool) -> None:
    """Its third validation after the best one is the last."""
    root = run_of(maximize_best_checkpoint_metric=maximize)
    sign = -1 if maximize else 1
    assert [should_stop_early(root, sign * loss) for loss in (4.0, 2.0, 3.0, 2.5)] == [False] * 4
    state = saved(root)
    early_stop.forget()
    assert early_stop.RUNS not in saved(root)["XGPTTask"]
    go_on(root, state)
    assert saved(root) == state
    assert should_stop_early(root, sign * 2.1)
    assert early_stop.is_over(saved(root), root.checkpoint)


@pytest.mark.parametrize("reset", ["reset_optimizer", "reset_meters", "reset_dataloader"])
def test_one_whose_best_is_forgotten_counts_anew(reset: str) -> None:
    root = run_of(**{reset: True})
    state: dict[str, Any] = {"XGPTTask": {early_stop.BEST: 2.0, early_stop.RUNS: 3}}
    assert not early_stop.is_over(state, root.checkpoint)
    go_on(root, state)
    assert early_stop.RUNS not in saved(root)["XGPTTask"]


@pytest.mark.parametrize(
    "changes", [{"best_checkpoint_metric": "cider"}, {"maximize_best_checkpoint_metric": True}], ids=str
)
def test_another_metric_counts_anew(changes: dict[str, object]) -> None:
    """Its values are not compared with those of the one before."""
    before, now = run_of(), run_of(**changes)
    for loss in (2.0, 3.0, 3.0, 3.0):
        should_stop_early(before, loss)
    state = {"best": 2.0, **saved(before)}
    early_stop.forget()
    assert early_stop.is_over(state, before.checkpoint) and not early_stop.is_over(state, now.checkpoint)
    go_on(now, state)
    assert early_stop.RUNS not in saved(now)["XGPTTask"]
    assert not hasattr(save_checkpoint, "best")  # checkpoint_best.pt is of the new one
    go_on(before, state)
    assert {"best": save_checkpoint.best, **saved(before)} == state


def test_of_which_metric_a_best_is_is_kept_without_patience() -> None:
    before, now = run_of(patience=-1), run_of(patience=-1, best_checkpoint_metric="cider")
    state = {"best": 2.0, **saved(before)}
    go_on(now, state)
    assert not hasattr(save_checkpoint, "best")
    for run in (before, now):  # one of an earlier version does not say
        go_on(run, {"best": 2.0})
        assert save_checkpoint.best == 2.0
    go_on(before, state)
    assert save_checkpoint.best == 2.0


def test_more_patience_goes_on() -> None:
    state: dict[str, Any] = {"val_loss": 3.0, "XGPTTask": {early_stop.BEST: 2.0, early_stop.RUNS: 3}}
    assert early_stop.is_over(state, run_of().checkpoint)
    assert not early_stop.is_over(state, run_of(patience=4).checkpoint)
    assert not early_stop.is_over(state, run_of(patience=-1).checkpoint)
    assert not early_stop.is_over({"val_loss": 3.0}, run_of().checkpoint)  # of an earlier version


def test_the_next_training_of_a_sweep_has_its_own_best() -> None:
    save_checkpoint.best = 0.5
    should_stop_early(run_of(), 0.5)
    early_stop.forget()
    assert not hasattr(save_checkpoint, "best") and not hasattr(should_stop_early, "best")
    assert not should_stop_early(run_of(patience=1), 0.7)
