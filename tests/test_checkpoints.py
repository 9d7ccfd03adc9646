"""Checkpoints are read without running what is in them."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xgpt_fairseq.plugin  # noqa: F401  (allows what checkpoints need, and no more)
from xgpt_fairseq.checkpoints import (
    SAFE_GLOBALS,
    load_checkpoint,
    named_checkpoints,
    updates_of,
    whole_checkpoint_beside,
)
from xgpt_fairseq.errors import DataError


class Payload:
    """Unpickled by Python's own pickle, it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def plain_state() -> dict[str, Any]:
    return {
        "args": argparse.Namespace(arch="xgpt_demo", nested=argparse.Namespace(lr=[0.1])),
        "model": {"weight": torch.arange(6.0).view(2, 3)},
        "extra_state": {"val_loss": 1.5, "train_iterator": {"epoch": 1}},
    }


def test_a_plain_checkpoint(tmp_path: Path) -> None:
    torch.save(plain_state(), tmp_path / "checkpoint.pt")
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert torch.equal(state["model"]["weight"], plain_state()["model"]["weight"])
    assert state["args"] == plain_state()["args"]
    assert state["extra_state"] == plain_state()["extra_state"]


@pytest.mark.parametrize("place", ["model", "extra", "namespace"])
@pytest.mark.parametrize("load", ["load_checkpoint", "torch.load"])
def test_a_malicious_checkpoint_is_refused(tmp_path: Path, place: str, load: str) -> None:
    proof, path = tmp_path / "proof", tmp_path / "checkpoint.pt"
    state = plain_state()
    payload = Payload(os.mkdir, str(proof))
    if place == "model":
        state["model"]["bias"] = payload
    elif place == "extra":
        state["extra_state"] = payload
    else:
        state["args"].nested.lr = payload
    torch.save(state, path)
    if load == "torch.load":
        with pytest.raises(pickle.UnpicklingError, match="mkdir"):
            torch.load(path)
    else:
        with pytest.raises(DataError, match=rf"{path} is refused: it holds posix\.mkdir, which is neither") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    assert not proof.exists()
    # the payload is a real one: without the protection it runs
    torch.load(path, weights_only=False)
    assert proof.is_dir()


@pytest.mark.parametrize("function", [eval, exec, os.system, open, getattr])
def test_no_function_is_called(tmp_path: Path, function: Callable[..., Any]) -> None:
    proof, path = tmp_path / "proof", tmp_path / "checkpoint.pt"
    arguments: tuple[Any, ...] = {
        "open": (str(proof), "w"),
        "getattr": ("text", "upper"),
        "system": (f"touch {proof}",),
    }.get(function.__name__, (f"open({str(proof)!r}, 'w').close()",))
    torch.save({"model": Payload(function, *arguments)}, path)
    with pytest.raises(DataError, match=rf"refused: it holds \S*{function.__name__}, which"):
        load_checkpoint(path)
    assert not proof.exists()


def test_exactly_one_global_is_allowed() -> None:
    (allowed,) = SAFE_GLOBALS
    assert allowed is argparse.Namespace
    ours = [entry for entry in torch.serialization.get_safe_globals() if "xgpt" in str(entry)]
    assert ours == []
    assert argparse.Namespace in torch.serialization.get_safe_globals()


class _Unknown:
    """A class that nobody has allowed."""


def test_an_unknown_class_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "cfg": _Unknown()}, tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match=r"refused: it holds \S*_Unknown, which"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(plain_state(), path)
    whole = path.read_bytes()
    for size in [0, 1, 2, 3, 4, *range(5, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"{path} is (empty|not a checkpoint|cut short: |damaged: )") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(plain_state(), path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for position in random.integers(0, 700, size=150):  # the pickle, its names and its numbers
        path.write_bytes(whole[:position] + bytes([random.integers(256)]) + whole[position + 1 :])
        try:
            load_checkpoint(path)  # a digit of a number may be another one: no error
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "checkpoint .* does not exist"),
        (lambda path: path.mkdir(), "checkpoint.pt is no checkpoint: it is a folder; name a checkpoint in it"),
        (
            lambda path: path.write_text("just text, and a lot of it\n" * 100),
            "is not a checkpoint",
        ),
        (lambda path: torch.save([1, 2], path), "is not a fairseq checkpoint: it has no entry 'model'"),
        (lambda path: torch.save({"weight": torch.zeros(1)}, path), "is not a fairseq checkpoint"),
    ],
)
def test_not_a_checkpoint(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / "checkpoint.pt"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_tensors_stay_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"weight": torch.zeros(64, 1024)}}, path)
    state = load_checkpoint(path)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc on this system")
    assert str(path) in maps.read_text()
    assert not state["model"]["weight"].any()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    whole = tmp_path / "checkpoint1.pt"
    torch.save(plain_state(), whole)
    for name, content, message in [
        ("empty.pt", b"", "empty.pt is empty"),
        ("text.pt", b"hello\n", "text.pt is not a checkpoint"),
        ("cut.pt", whole.read_bytes()[:500], "cut.pt is cut short: it ends after 500 bytes"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_checkpoint(tmp_path / name)


def test_the_latest_whole_checkpoint_beside_a_damaged_one(tmp_path: Path) -> None:
    last = tmp_path / "checkpoint_last.pt"
    last.write_bytes(b"PK")
    assert whole_checkpoint_beside(last) is None
    for updates, name in enumerate(["checkpoint1.pt", "checkpoint2.pt", "checkpoint_best.pt"]):
        torch.save({**plain_state(), "optimizer_history": [{"num_updates": updates}]}, tmp_path / name)
        os.utime(tmp_path / name, (1000 - updates, 1000 - updates))  # a clock that went back
    (tmp_path / "checkpoint_best.pt").write_bytes(b"")
    assert whole_checkpoint_beside(last) == tmp_path / "checkpoint2.pt"


def test_checkpoints_that_fairseq_names() -> None:
    assert named_checkpoints("a/1.pt:b.pt") == [Path("a/1.pt"), Path("b.pt")]
    assert named_checkpoints("s3://bucket/1.pt") == named_checkpoints(None) == []
    assert named_checkpoints("a/1.pt:b.pt", "_b") == [Path("a/1_b.pt"), Path("b_b.pt")]


def test_a_path_with_a_colon(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    torch.save(plain_state(), tmp_path / "a:b" / "1.pt")
    with pytest.raises(DataError, match=r"a:b/1\.pt: its path has a colon, which fairseq takes for the border"):
        named_checkpoints(str(tmp_path / "a:b" / "1.pt"))


def test_the_updates_of_a_checkpoint() -> None:
    assert updates_of({"optimizer_history": [{"num_updates": 3}, {"num_updates": 7}]}) == 7
    assert updates_of({"optimizer_history": []}) == updates_of({}) == 0
