"""No checkpoint is lost, or cut, where the process ends while fairseq saves one."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.preloaded import python
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.whole_checkpoints import _HELD, WholeCheckpoints


def save(path: Path, number: int) -> None:
    torch.save({"model": {"weight": torch.full((1000,), number)}}, path)


def number_in(path: Path) -> int:
    return int(load_checkpoint(path)["model"]["weight"][0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        save(tmp_path / name, 1)
    return tmp_path


def test_a_checkpoint_that_is_saved(folder: Path) -> None:
    whole = WholeCheckpoints({"save_dir": str(folder)})
    whole.begin()
    save(folder / "checkpoint_last.pt", 2)  # the best one stays that of before
    whole.saved()
    assert [number_in(folder / f"checkpoint_{name}.pt") for name in ("best", "last")] == [1, 2]
    assert len(list(folder.iterdir())) == 2


def test_where_none_was_due_all_are_back_when_training_goes_on(folder: Path) -> None:
    whole = WholeCheckpoints({"save_dir": str(folder)})
    whole.goes_on()
    for _ in range(2):
        whole.begin()
        assert not (folder / "checkpoint_best.pt").exists()
        whole.goes_on()
        assert [number_in(folder / f"checkpoint_{name}.pt") for name in ("best", "last")] == [1, 1]
        assert len(list(folder.iterdir())) == 2


def test_what_was_cut_is_put_back(folder: Path) -> None:
    """As a full disk leaves it: the copy of the best one is cut, that of the last was not begun."""
    whole = WholeCheckpoints({"save_dir": str(folder)})
    whole.begin()
    save(folder / "checkpoint_best.pt", 2)
    content = (folder / "checkpoint_best.pt").read_bytes()
    (folder / "checkpoint_best.pt").write_bytes(content[:1000])
    (folder / "checkpoint3.pt.tmp").write_bytes(content[:1000])
    whole._end_badly()
    assert [number_in(folder / f"checkpoint_{name}.pt") for name in ("best", "last")] == [1, 1]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("orderly", [True, False])
def test_the_first_one_that_is_cut_is_removed(orderly: bool, tmp_path: Path) -> None:
    """On a full disk, or killed: it stayed, and the same command was refused."""
    whole = WholeCheckpoints({"save_dir": str(tmp_path)})
    whole.begin()
    save(tmp_path / "checkpoint_best.pt", 1)
    (tmp_path / "checkpoint_last.pt").write_bytes(b"PK")
    if orderly:
        whole._end_badly()
    else:
        atexit.unregister(whole._end_badly)
        WholeCheckpoints({"save_dir": str(tmp_path)}).restore()
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint_best.pt"]
    assert number_in(tmp_path / "checkpoint_best.pt") == 1


def test_a_killed_training_is_mended_by_the_next_start(folder: Path) -> None:
    WholeCheckpoints({"save_dir": str(folder)}).begin()
    with pytest.raises(DataError, match=r"does not exist \(its training ended while.*checkpoint_last\.pt\.before"):
        load_checkpoint(folder / "checkpoint_last.pt")
    WholeCheckpoints({"save_dir": str(folder)}).restore()
    assert number_in(folder / "checkpoint_last.pt") == 1


def test_one_that_is_being_written(folder: Path) -> None:
    """Its training lives, and has moved it aside for a moment."""
    whole = WholeCheckpoints({"save_dir": str(folder)})
    whole.hold()
    whole.begin()
    try:
        with pytest.raises(DataError, match=r"its training is writing .*: try again, or use .*\.before"):
            load_checkpoint(folder / "checkpoint_best.pt")
        assert number_in(folder / ".checkpoint_best.pt.before") == 1
    finally:
        whole.saved()
        os.close(_HELD.pop(folder.resolve()))


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    """Each holds its own descriptor of the folder, and a forked worker none."""
    whole = WholeCheckpoints({"save_dir": str(tmp_path)})
    whole.hold()
    whole.hold()  # the same training
    command = (
        "from xgpt_fairseq.whole_checkpoints import WholeCheckpoints; import sys;"
        "WholeCheckpoints({'save_dir': sys.argv[1]}).hold()"
    )
    done = subprocess.run([python(), "-c", command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert f"another training writes its checkpoints to {tmp_path} at this moment" in done.stderr
    begun, begins = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(begins, b".")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(begun, 1)
        os.close(_HELD.pop(tmp_path.resolve()))  # as where the training is killed
        whole.hold()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(_HELD.pop(tmp_path.resolve()))
