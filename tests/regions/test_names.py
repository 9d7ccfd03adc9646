"""Names of images: those of a store, and of photos that have none yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.regions.names import ImageNames, extracted_folder, named_paths, storable_folder
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter


@pytest.mark.parametrize(
    ("paths", "said", "folder"),
    [
        (["data/train"], "data/train", "train"),
        (["."], ".", ""),
        (["data/.."], "data/..", ""),
        (["data/train/1.jpg"], "data/train/1.jpg", "train"),
        (["train", "val"], "train … val", ""),
        (["a/1.jpg", "a/2.jpg", "b/3.jpg"], "a/1.jpg … b/3.jpg", "a"),
        (["shards/0.tar"], "shards/0.tar", "0.tar"),
    ],
)
def test_what_was_extracted(paths: list[str], said: str, folder: str) -> None:
    assert named_paths([Path(path) for path in paths]) == said
    assert extracted_folder(said) == folder


def test_folders() -> None:
    names = ImageNames(["a/1", "b/1", "2"], where="here", folders=["a", "b", "b/c"], extracted="photos", kind="photos")
    assert len(names) == 3 and names.are_of_photos and names.kind == "photos"
    assert [names.folder_parts(index) for index in range(3)] == [("photos", "a"), ("photos", "b"), ("photos", "b", "c")]
    assert names.folders == {"a", "b", "c"}
    assert names.shares_name() and names.shares_name("1") and not names.shares_name("2")
    assert [names.find(name) for name in ("a/1.jpg", "1.png", "x/2.jpg", "3")] == [[0], [0, 1], [2], []]
    archive = ImageNames(["1"], where="here")
    assert not archive.are_of_photos and archive.folder_parts(0) == () and archive.folders == frozenset()


def test_a_store_has_the_names_that_were_written(tmp_path: Path) -> None:
    ids, folders = ["a/1", "b/1", "2"], ["a", "b", "b\nc"]
    with RegionWriter(tmp_path / "store", 2, source={"format": "photos", "path": "x/photos"}) as writer:
        for place, (image_id, folder) in enumerate(zip(ids, folders, strict=True)):
            box = np.array([[0, 0, 1, 1]], dtype=np.float32)
            writer.add(image_id, np.ones((1, 2)), box, position=place + 1, folder=folder)
        writer.finish()
    store = RegionStore(tmp_path / "store")
    assert [storable_folder(folder) for folder in folders] == ["a", "b", ""]
    assert [store.names.image_id(index) for index in range(3)] == ids
    assert [store.folder_parts(index) for index in range(3)] == [("photos", "a"), ("photos", "b"), ("photos",)]
    assert store.names.where == str(tmp_path / "store") and store.names.kind == "store"
    with pytest.raises(IndexError):
        store.folder_parts(3)
