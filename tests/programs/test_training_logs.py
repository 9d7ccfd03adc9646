"""Two trainings in one process, each with its own logs, by fairseq's own progress bars."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fairseq.logging import progress_bar

from xgpt_fairseq.programs.training_logs import TRAIN, begin_logs, keep_one_file
from xgpt_fairseq.tasks.caption_log import CaptionLog

MENDED = "fairseq has mended this: the workaround can go"
drawn: dict[str, list[float]] = defaultdict(list)  # TensorBoard's folder → values


class Writer:
    """In place of TensorBoard's."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.is_open = True

    def add_scalar(self, name: str, value: float, step: int) -> None:
        assert self.is_open
        drawn[self.folder].append(value)

    def add_text(self, name: str, text: str) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


@pytest.fixture(autouse=True)
def no_other_training(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr(progress_bar, "SummaryWriter", Writer)
    caplog.set_level("INFO")
    drawn.clear()
    begin_logs(None)
    yield
    begin_logs(None)


def train(folder: Path, loss: float, *, apart: bool, epochs: int = 1, log_file: bool = True) -> None:
    """Log as fairseq's program does."""
    folder.mkdir()
    file = str(folder / "train.log") if log_file else None
    logger = logging.getLogger(TRAIN)
    if file is not None:
        logger.addHandler(logging.FileHandler(file))
    if apart:
        begin_logs(file)
    logger.info(f"begins {loss:g}")
    for epoch in range(1, epochs + 1):
        bar = progress_bar.progress_bar([], "simple", log_file=file, tensorboard_logdir=str(folder))
        if apart:
            keep_one_file()
        bar.print({"loss": loss}, tag="train", step=epoch)


def lines(folder: Path) -> list[str]:
    return [line.strip(" |") for line in (folder / "train.log").read_text(encoding="utf-8").splitlines()]


def test_stock_fairseq_mixes_the_logs_of_two_trainings(tmp_path: Path) -> None:
    train(tmp_path / "a", 1, apart=False)
    train(tmp_path / "b", 2, apart=False)
    assert "begins 2" in lines(tmp_path / "a") and "loss 2" in lines(tmp_path / "a"), MENDED
    assert drawn == {str(tmp_path / "a" / "train"): [1, 2]}, MENDED


def test_stock_fairseq_writes_a_line_once_more_in_each_epoch(tmp_path: Path) -> None:
    train(tmp_path / "a", 1, apart=False, epochs=2)
    assert lines(tmp_path / "a") == ["begins 1", "loss 1", "loss 1", "loss 1"], MENDED


def test_each_training_has_its_own_logs(tmp_path: Path) -> None:
    train(tmp_path / "a", 1, apart=True, epochs=2)
    train(tmp_path / "b", 2, apart=True)
    train(tmp_path / "c", 3, apart=True, log_file=False)
    assert lines(tmp_path / "a") == ["begins 1", "loss 1", "loss 1"]
    assert lines(tmp_path / "b") == ["begins 2", "loss 2"]
    curves = {"a": [1, 1], "b": [2], "c": [3]}
    assert drawn == {str(tmp_path / name / "train"): values for name, values in curves.items()}


def test_a_log_file_holds_the_captions_of_its_training(tmp_path: Path) -> None:
    """Once each, beside what fairseq writes."""
    for name, log_file in (("a", True), ("b", True), ("c", False)):
        train(tmp_path / name, 1, apart=True, epochs=2, log_file=log_file)
        CaptionLog(1, tensorboard_logdir=None, wandb_project=None).add("valid", 2, ["7"], [f"a {name}"], ["a dog"])
    for name in "ab":
        said = f"captions of 'valid' subset | num_updates 2 | image 7 | a {name}"
        assert lines(tmp_path / name) == ["begins 1", "loss 1", "loss 1", said]


class Wandb:
    """In place of Weights & Biases."""

    def __init__(self) -> None:
        self.run: SimpleNamespace | None = None
        self.runs: list[SimpleNamespace] = []

    def init(self, *, reinit: bool = False, **_: object) -> None:
        if self.run is None or reinit:
            self.run = SimpleNamespace(losses=[])
            self.runs.append(self.run)

    def log(self, values: dict[str, float], step: int) -> None:
        assert self.run is not None
        self.run.losses += values.values()

    def finish(self) -> None:
        self.run = None


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wandb]:
    module = Wandb()
    monkeypatch.setattr(progress_bar, "wandb", module)
    yield module
    begin_logs(None)


def train_with_wandb(loss: float, project: str | None = "captions", *, apart: bool = True) -> None:
    if apart:
        begin_logs(None, project)
    progress_bar.progress_bar([], "simple", wandb_project=project).print({"loss": loss}, tag="train", step=1)


def test_stock_fairseq_has_one_run_for_two_trainings(wandb: Wandb) -> None:
    train_with_wandb(1, apart=False)
    train_with_wandb(2, apart=False)
    assert [run.losses for run in wandb.runs] == [[1, 2]], MENDED


def test_each_training_has_its_own_run(wandb: Wandb) -> None:
    train_with_wandb(1)
    train_with_wandb(2)
    train_with_wandb(3, project=None)
    assert wandb.run is None
    train_with_wandb(4)
    assert [run.losses for run in wandb.runs] == [[1], [2], [4]]


def test_a_run_that_was_open_before_stays_open(wandb: Wandb) -> None:
    wandb.init()
    train_with_wandb(1)
    train_with_wandb(2)
    assert [run.losses for run in wandb.runs] == [[1, 2]] and wandb.run is wandb.runs[0]
