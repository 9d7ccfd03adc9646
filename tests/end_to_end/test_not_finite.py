"""A store whose features have become NaN behind the import's checks stops training, and the line says where."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.programs import SMALL, train
from xgpt_fairseq.data.directory import DataDirectory


@pytest.mark.parametrize("arguments", [(), ("--objective-schedule", "joint", "--update-freq", "2")])
def test_a_nan_names_its_image_and_the_objective(
    tiny_data: Path, tiny_store: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data, store = tmp_path / "data", tmp_path / "tiny.regions"
    shutil.copytree(tiny_data, data)
    shutil.copytree(tiny_store, store)
    directory = DataDirectory(data)
    row = int(directory.pairs("train")[0])
    image = directory.regions.image_id(row)
    features = np.load(store / "features-00000.npy", mmap_mode="r+")
    start = int(np.load(store / "offsets.npy")[row])
    features[start, 3] = np.nan
    features.flush()
    done = train(
        data, tmp_path / "run", "--task", "xgpt_pretrain", "--objectives", "ic,tifg", "--batch-size", "8",
        "--max-update", "40", *SMALL, *arguments, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-2000:]
    assert re.search(
        rf"^error: update \d+, objective (ic|tifg|joint): the features of image {image} are not finite; the region "
        "store has changed since it was checked: xgpt-regions verify STORE$", done.stderr, re.MULTILINE,
    ), done.stderr[-3000:]  # fmt: skip
