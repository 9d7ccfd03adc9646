"""Names that inputs choose are ids: nothing is written, or read, where they would lead as paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.folders import contents
from tests.tars import write_tar
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.cli import import_regions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.gallery import match_photos
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.vision.photo_files import find_photos

NAMES = ["../../up", "/etc/passwd", "..", "x" * 300, "CON", "NUL.jpg", "a\\..\\b", "-rf", "$(id)", "a b'\"c"]


def test_ids_of_an_archive(call_program: Callable[..., Any], tmp_path: Path) -> None:
    """An HDF5 file can name its arrays as it likes."""
    h5py = pytest.importorskip("h5py", reason="the extra archives is not installed")
    names = [name for name in NAMES if "/" not in name and name != ".."]  # HDF5 makes groups of the others
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name in [*names, "up/../../x"]:
            file[f"{name}_features"] = np.ones((2, 4), np.float32)
            file[f"{name}_boxes"] = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5]], np.float32)
    done = call_program(
        import_regions.main, tmp_path / "a.hdf5", "--output", tmp_path / "out" / "store", "--boxes", "normalised"
    )
    assert done.status == 0, done.stderr
    assert len(RegionStore(tmp_path / "out" / "store")) == len(names)
    assert {path.split("/")[0] for path in contents(tmp_path)} == {"a.hdf5", "out"}
    assert set(contents(tmp_path / "out" / "store")) <= {
        "boxes.npy", "features-00000.npy", "ids.npy", "labels.npy", "offsets.npy", "scores.npy", "sizes.npy",
        "store.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_file_cannot_name_a_photo_elsewhere(tmp_path: Path, name: str) -> None:
    """Of photos that were found by the user's own path, names choose; they open nothing."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "up.png")
    captions = [{"image": f"{name}.png", "caption": "A dog.", "split": "train"}]
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    images = list(read_captions(tmp_path / "captions.json", "auto", CaptionOptions()))
    with pytest.raises(DataError, match="no photo of the 1 images"):
        match_photos([tmp_path / "photos"], [image.image_id for image in images])


def test_members_of_a_tar(tmp_path: Path) -> None:
    """They are read at their places in the tar, whatever they are called, and nothing is unpacked."""
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    photo = (tmp_path / "p.png").read_bytes()
    write_tar(tmp_path / "a.tar", {"../up.png": photo, "/etc/up.png": photo, "/etc/up.txt": "A dog."})
    [found] = find_photos([tmp_path / "a.tar"])  # not the one whose folder begins with a dot
    assert found.content().read() == photo  # type: ignore[union-attr]
    list(read_captions(tmp_path / "a.tar", "tar", CaptionOptions(unknown_split="train")))
    assert set(contents(tmp_path)) == {"a.tar", "p.png"} and not (tmp_path.parent / "up.png").exists()


@pytest.mark.parametrize("split", ["../up", "/tmp/x", "a/b", "a b", "a\nb", "x\0", ""])
def test_splits_name_files(tmp_path: Path, split: str) -> None:
    captions = [{"image": "a.png", "caption": "A dog.", "split": split}]
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    with pytest.raises(DataError):
        list(read_captions(tmp_path / "captions.json", "auto", CaptionOptions()))
