"""fairseq's best checkpoints: that stock fairseq loses some still, and that `BestCheckpoints` keeps them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.test_workarounds import MENDED
from tests.thorough import examples
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.workarounds import BestCheckpoints


@pytest.fixture(autouse=True)
def no_run_before() -> Iterator[None]:
    """fairseq keeps the best value of a run in its function."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    yield
    vars(checkpoint_utils.save_checkpoint).pop("best", None)


class Run:
    """What fairseq-train does at each validation and each saving, with the workaround's hooks where it is *cured*."""

    def __init__(self, folder: Path, *, cured: bool = True, rank: int = 0, **options: Any) -> None:
        options = {"save_dir": str(folder), "no_epoch_checkpoints": True, "keep_best_checkpoints": 3, **options}
        distributed = {"distributed_rank": rank}
        checkpoint = OmegaConf.merge(OmegaConf.structured(CheckpointConfig), options)
        root = OmegaConf.create({"task": {}, "checkpoint": checkpoint, "distributed_training": distributed})
        self.cfg, self.folder, self.rank = root.checkpoint, folder, rank
        self.best = BestCheckpoints(root.task) if cured else None

    def validate(self, updates: int, value: float) -> None:
        if self.best is not None:
            self.best.begin_validation(1)
            self.best.validated({self.cfg.best_checkpoint_metric: value, "num_updates": updates})
            self.best.validated({self.cfg.best_checkpoint_metric: value + 7, "num_updates": updates})  # a second subset

    def save(self, updates: int, value: float | None, *, end_of_epoch: bool = False) -> None:
        def write(path: str, extra: dict[str, Any]) -> str:
            history = [{"num_updates": updates}]
            checkpoint_utils.torch_persistent_save({"model": {}, "optimizer_history": history, "extra": extra}, path)
            return path

        trainer = SimpleNamespace(
            data_parallel_rank=self.rank, should_save_checkpoint_on_current_rank=self.rank == 0, checkpoint_suffix="",
            always_call_state_dict_during_save_checkpoint=False, task=None, consolidate_optimizer=lambda: None,
            get_num_updates=lambda: updates, save_checkpoint=write,
        )  # fmt: skip
        itr = SimpleNamespace(epoch=1, end_of_epoch=lambda: end_of_epoch, state_dict=lambda: {})
        path = checkpoint_utils.save_checkpoint(self.cfg, trainer, itr, value)
        if path is not None and self.best is not None:
            self.best.saved(Path(path), updates)

    def train(self, values: Sequence[float], first: int = 1) -> None:
        for updates, value in enumerate(values, start=first):
            self.validate(updates, value)
            self.save(updates, value)

    def kept(self) -> list[tuple[int, float]]:
        """Updates and value of each of the best that are kept, as its file holds them."""
        files = self.folder.glob(f"checkpoint.best_{self.cfg.best_checkpoint_metric}_*.pt")
        found = []
        for file in files:
            state = load_checkpoint(file)
            value = state["extra"]["val_loss"]
            assert f"_{value:.3f}" in file.name
            found.append((state["optimizer_history"][-1]["num_updates"], value))
        return sorted(found)


def test_stock_fairseq_keeps_no_worse_checkpoint_also_where_it_keeps_fewer(tmp_path: Path) -> None:
    run = Run(tmp_path, cured=False)
    run.train([1.0, 2.0, 3.0])
    assert run.kept() == [(1, 1.0)], MENDED


def test_stock_fairseq_writes_over_a_checkpoint_of_equal_value(tmp_path: Path) -> None:
    for updates in range(2, 20):  # whose random digit, of two, is the first one's
        run = Run(tmp_path / str(updates), cured=False, keep_best_checkpoints=2)
        run.train([0.5])
        run.train([0.5], first=updates)
        if len(run.kept()) == 1:
            return
    pytest.fail(MENDED)


def test_the_best_are_kept_whatever_their_order(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train([1.0, 2.0, 3.0, 4.0, 2.5, 0.5])
    assert run.kept() == [(1, 1.0), (2, 2.0), (6, 0.5)]
    assert not list(tmp_path.glob(".*"))


@examples(20, max_examples=50)
@given(
    values=st.lists(st.sampled_from([0.0, 0.5, 0.501, 1.25, 1.249, 12.0]), min_size=1, max_size=9),
    count=st.integers(1, 4),
    maximize=st.booleans(),
    interrupted=st.integers(0, 9),
    repeated=st.integers(0, 2),
)
def test_as_many_are_kept_as_there_can_be(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    count: int,
    maximize: bool,
    interrupted: int,
    repeated: int,
) -> None:
    """Against a sorted list; interrupted somewhere, the run goes on from up to two updates before."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    folder = tmp_path_factory.mktemp("run")
    options = {"keep_best_checkpoints": count, "maximize_best_checkpoint_metric": maximize}
    interrupted = min(interrupted, len(values))
    again = max(0, interrupted - repeated)
    Run(folder, **options).train(values[:interrupted])
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    if again:  # what the checkpoint says that the second process begins with
        checkpoint_utils.save_checkpoint.best = (max if maximize else min)(values[:again])
    run = Run(folder, **options)
    run.train(values[again:], first=again + 1)
    kept = run.kept()
    assert len({updates for updates, _ in kept}) == len(kept)
    assert all(values[updates - 1] == value for updates, value in kept)
    assert sorted(value for _, value in kept) == sorted(sorted(values, reverse=maximize)[:count])


def test_a_value_counts_for_the_saving_of_its_update_alone(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train([1.0])
    run.validate(2, 2.0)  # and nothing is saved
    run.save(3, None)  # without a validation
    run.save(2, None)
    assert run.kept() == [(1, 1.0)]
    run.train([3.0], first=4)
    run.save(4, None, end_of_epoch=True)  # the same update saved twice
    assert run.kept() == [(1, 1.0), (4, 3.0)]


def test_later_checkpoints_leave_the_copies_alone(tmp_path: Path) -> None:
    """fairseq copies into checkpoint_last.pt and checkpoint_best.pt in place; a link to them would change with them."""
    run = Run(tmp_path)
    run.train([1.0, 2.0, 0.5])
    run.save(4, None)
    assert run.kept() == [(1, 1.0), (2, 2.0), (3, 0.5)]


@pytest.mark.parametrize(
    "options",
    [{"keep_best_checkpoints": -1}, {"keep_best_checkpoints": 0}, {"no_save": True}, {"rank": 1}],
    ids=str,
)
def test_nothing_is_written_where_fairseq_writes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    Run(tmp_path).train([0.5] * 3)
    before = sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.glob("checkpoint.best_*"))
    Run(tmp_path, **options).train([0.5] * 4, first=4)
    assert sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.glob("checkpoint.best_*")) == before


def test_one_process_makes_room(tmp_path: Path) -> None:
    """Of several processes that validate, the one that saves; else two would rename the same file."""
    Run(tmp_path, keep_best_checkpoints=2).train([0.5])
    names = {0: set(), 1: set()}
    for rank, seen in reversed(names.items()):
        for updates in range(2, 20):
            Run(tmp_path, keep_best_checkpoints=2, rank=rank).validate(updates, 0.5)
            seen.update(file.name for file in tmp_path.glob("checkpoint.best_*"))
    assert (len(names[1]), len(names[0])) == (1, 2)


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
def test_values_that_fairseqs_names_have_no_place_for(tmp_path: Path, value: float) -> None:
    run = Run(tmp_path)
    run.train([1.0, value, 2.0])
    assert (1, 1.0) in run.kept() and (3, 2.0) in run.kept()


def test_a_damaged_checkpoint_of_equal_value_is_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path, keep_best_checkpoints=1)
    run.train([0.5])
    [file] = tmp_path.glob("checkpoint.best_*")
    file.write_bytes(b"cut short")
    run.train([0.5], first=2)
    assert run.kept() == [(2, 0.5)]


def test_a_task_without_a_training_has_nothing_to_keep() -> None:
    for cfg in (OmegaConf.create({}), SimpleNamespace(seed=1)):
        best = BestCheckpoints(cfg)
        best.begin_validation(1)
        best.validated({"num_updates": 1})
        best.saved(Path("checkpoint_last.pt"), 1)
