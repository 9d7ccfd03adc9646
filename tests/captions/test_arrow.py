"""Captions in Parquet files, and in folders of Hugging Face's save_to_disk."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import put, read
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS
from xgpt_fairseq.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"image": {"bytes": b"\xff\xd8", "path": "a/1.jpg"}, "caption": ["A dog.", "Ein Bär &amp; ich"], "width": 5},
    {"image": {"bytes": None, "path": "2.jpg"}, "caption": None, "width": 5},
    {"image": {"bytes": None, "path": "a/1.jpg"}, "caption": ["A third."], "width": 5},
]


def expected(folder: str) -> list[CaptionedImage]:
    """Photos inside a table have the name of the table, or of the data set, in front of theirs."""
    texts = ["A dog.", "Ein Bär & ich", "A third."]
    captions = [Caption(number, text) for number, text in enumerate(texts)]
    return [CaptionedImage("2", "train", [], f"{folder}/2.jpg"), CaptionedImage("a/1", "train", captions, "a/1.jpg")]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def save_to_disk(folder: Path, rows: list[dict[str, Any]], files: int = 1) -> Path:
    """As `Dataset.save_to_disk` does: the rows in Arrow streams, and their names in state.json."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    for n, name in enumerate(names):
        part = table.take(list(range(n, len(rows), files)))
        with pyarrow.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(part)
    put(folder, "state.json", json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None}))
    put(folder, "dataset_info.json", json.dumps({"features": {"caption": {"dtype": "string"}}}))
    return folder


def formats_of(path: Path) -> list[str]:
    return [name for name, of in FORMATS.items() if of.recognise(CaptionFile(path))]


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train-00000-of-00001.parquet", ROWS)
    assert formats_of(path) == ["parquet"]
    log = ReadingLog()
    assert read(path, log=log) == expected(f"{tmp_path.name}/{path.name}")
    assert log.counts == {"blank captions left out": 1}


@pytest.mark.parametrize("files", [1, 2])
def test_a_folder(tmp_path: Path, files: int) -> None:
    path = save_to_disk(tmp_path / "train", ROWS, files)
    assert formats_of(path) == ["hf-datasets"]
    assert sorted(read(path), key=lambda image: image.image_id) == expected("train")


def test_a_folder_of_splits(tmp_path: Path) -> None:
    splits = {"train": "train", "validation": "valid", "test": "test"}
    for name in splits:
        save_to_disk(tmp_path / "data" / name, [{"file_name": f"{name}.jpg", "image_id": 7, "text": "['x', 'y']"}])
    put(tmp_path / "data", "dataset_dict.json", json.dumps({"splits": list(splits)}))
    assert formats_of(tmp_path / "data") == ["hf-datasets"]
    found = read(tmp_path / "data", columns={"image": "file_name"})
    assert [(image.image_id, image.split, len(image.captions)) for image in found] == [
        (name, split, 2) for name, split in splits.items()
    ]


def test_photos_of_the_same_names_in_several_tables(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"x", "path": path}, "text": "x"} for path in ("0.jpg", None)]
    for split in ("train", "test"):
        save_to_disk(tmp_path / "saved" / split, rows)
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", rows)
    put(tmp_path / "saved", "dataset_dict.json", json.dumps({"splits": ["train", "test"]}))
    assert [(image.image_id, image.split) for image in read(tmp_path / "saved")] == [
        ("train/0", "train"), ("train/data-00000-of-00001-1", "train"),
        ("test/0", "test"), ("test/data-00000-of-00001-1", "test"),
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "saved")
    assert formats_of(tmp_path) == ["parquet"]
    table = f"{tmp_path.name}/{{0}}-00000-of-00001.parquet/"
    assert [(image.image_id, image.split) for image in read(tmp_path)] == [
        (table.format(split) + name.format(split), split)
        for split in ("test", "train")
        for name in ("0", "{0}-00000-of-00001-1")
    ]
    put(tmp_path, "1.jpg", b"")
    assert formats_of(tmp_path) == []


def test_bad_rows(tmp_path: Path) -> None:
    rows = [{"image": "1.jpg", "text": "x"}, {"image": "", "text": "x"}]
    path = parquet(tmp_path / "train.parquet", rows)
    with pytest.raises(DataError, match=r"train\.parquet: row 1: 'image' must be an image's id or file name, found ''"):
        read(path)
    assert [image.image_id for image in read(path, log=ReadingLog(1))] == ["1"]
    with pytest.raises(DataError, match=r"train\.parquet has no column 'x' .*; it has: image, text"):
        read(path, columns={"image": "x"})


def test_lists_that_are_written_as_text(tmp_path: Path) -> None:
    rows = [{"image": "1.jpg", "caption": "['a' 'b']"}, {"image": "2.jpg", "caption": "nan"}]
    images = read(parquet(tmp_path / "train.parquet", rows))
    assert [[caption.text for caption in image.captions] for image in images] == [["a", "b"], []]


def test_columns_of_several_captions(tmp_path: Path) -> None:
    rows = [{"image": "1.jpg", "caption": "a", "caption_2": "b"}, {"image": "2.jpg", "caption": "c", "caption_2": None}]
    images = read(parquet(tmp_path / "train.parquet", rows))
    assert [[caption.text for caption in image.captions] for image in images] == [["a", "b"], ["c"]]
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    image, text = pyarrow.array(["1.jpg"]), pyarrow.array(["a"])
    same = pyarrow.Table.from_arrays([image, text, text], names=["image", "caption", "caption"])
    pyarrow.parquet.write_table(same, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet has several columns that are named 'caption', of which one"):
        read(tmp_path / "train.parquet")


def test_damaged_files(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet", ROWS)
    put(tmp_path, path.name, path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train\.parquet cannot be read: "):
        read(path)
    folder = save_to_disk(tmp_path / "train", ROWS)
    (folder / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match=r"arrow is missing"):
        read(folder)
    put(folder, "state.json", "{}")
    with pytest.raises(DataError, match=r"state\.json has no list '_data_files'"):
        read(folder)


@pytest.mark.parametrize("name", ["parquet", "hf-datasets"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "train.parquet", name)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is recognised all the same, and the message says what to install."""
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.split(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    path = put(tmp_path, "train.parquet", b"PAR1 and more")
    assert formats_of(path) == ["parquet"]
    with pytest.raises(
        DataError, match=r"train\.parquet is in .*needs pyarrow, pip install \"xgpt-fairseq\[datasets\]\""
    ):
        read(path)
