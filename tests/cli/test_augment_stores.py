"""`xgpt-augment` reads the regions that its model was trained on."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.cli.test_augment import SIZES, learned
from xgpt_fairseq.cli import augment
from xgpt_fairseq.data.directory import DataDirectory


def test_a_checkpoint_has_the_store_of_its_training(
    call_program: Callable[..., Any], tiny_data: Path, tmp_path: Path
) -> None:
    """That of --regions there, or of --regions here, and not the data directory's own."""
    stores = [shutil.copytree(DataDirectory(tiny_data).regions.path, tmp_path / name) for name in ("one", "two")]
    cfg = {"model": Namespace(**SIZES), "task": {"data": str(tiny_data), "regions": str(stores[0])}}
    torch.save({"model": learned(tiny_data).model.state_dict(), "cfg": cfg}, tmp_path / "checkpoint.pt")
    command = [tiny_data, "--path", tmp_path / "checkpoint.pt", "--output", tmp_path / "new", "--per-image", 1]
    for store, options in zip(stores, ([], ["--regions", stores[1], "--overwrite"]), strict=True):
        done = call_program(augment.main, *command, "--device", "cpu", *options)
        assert done.status == 0, done.stderr
        assert DataDirectory(tmp_path / "new").regions.path.resolve() == store.resolve()
