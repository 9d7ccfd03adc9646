"""Captions find photos of any name: with spaces, quotes, dashes in front, and what shells, tables and URLs use."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.preloaded import python
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.photo_files import find_photos, photo_id

ODD = [
    "it's", 'say "a"', '"a"', "-dash", "--output", "a\tb", " lead", "$HOME", "${x}", "100%", "%20", "back\\slash",
    "é日",
    "{a}", "a*b?", "[a]", "a,b", "a=b", "a|b", "a:b", "#h", "a;b&c", "~", "a.b", "'", "`ls`", "$(ls)", "<a>", "a  b",
]  # fmt: skip


def as_texts(folder: Path) -> Path:
    for name in ODD:
        (folder / f"{name}.txt").write_text(f"a photo of {len(name)} things")
    return folder


def as_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"image": f"{name}.jpg", "caption": f"a photo of {len(name)} things"}) for name in ODD]
    (folder.parent / "c.jsonl").write_text("\n".join(lines))
    return folder.parent / "c.jsonl"


def as_csv(folder: Path) -> Path:
    with open(folder.parent / "c.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *((f"{name}.jpg", "a photo, a thing") for name in ODD)])
    return folder.parent / "c.csv"


@pytest.mark.parametrize("write", [as_texts, as_jsonl, as_csv])
def test_captions_find_their_photos(
    write: Callable[[Path], Path], call_program: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path
) -> None:
    folder, store, data = (tmp_path / f'-it\'s "{name}" $x\n&' for name in ("photos", "store", "data"))
    folder.mkdir()
    for name in ODD:
        (folder / f"{name}.jpg").touch()
    with RegionWriter(store, 4) as writer:
        for place, photo in enumerate(find_photos([folder]), 1):
            box = np.array([[0, 0, 1, 1]], np.float32)
            writer.add(photo_id(photo), np.zeros((1, 4), np.float32), box, position=place, is_canonical=True)
        writer.finish()
    options = ["--vocabulary", tiny_vocabulary, "--regions", store, "--output", data, "--hold-out", "val=0.2"]
    done = call_program(prepare_captions.main, write(folder), *options)
    assert done.status == 0, done.stderr
    of = DataDirectory(data)
    assert len(of.pairs("train")) + len(of.pairs("valid")) == len(ODD)


def test_references_have_the_ids_of_the_store(
    call_program: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path
) -> None:
    """Photos with two extensions lose one, and not a second one where references are read."""
    captions, store, data = (tmp_path / name for name in ("train.jsonl", "store", "data"))
    names = ["0.jpg", "0.jpg.png", "1.png.jpg"]
    captions.write_text("\n".join(json.dumps({"image": name, "caption": "a photo"}) for name in names))
    with RegionWriter(store, 4) as writer:
        for place, name in enumerate(names, 1):
            box = np.array([[0, 0, 1, 1]], np.float32)
            writer.add(name, np.zeros((1, 4), np.float32), box, position=place)
        writer.finish()
    options = ["--vocabulary", tiny_vocabulary, "--regions", store, "--output", data, "--splits", "train"]
    done = call_program(prepare_captions.main, captions, *options)
    assert done.status == 0, done.stderr
    assert sorted(DataDirectory(data).references("train").image_ids) == ["0", "0.jpg", "1.png"]


def test_a_folder_whose_name_is_no_utf8(tiny_vocabulary: Path, tmp_path: Path) -> None:
    """Its photos are in lists of what is left out, and in the splits of their hashes."""
    folder = tmp_path / os.fsdecode(b"photos\xff")
    with RegionWriter(tmp_path / "store", 4) as writer:
        for place, name in enumerate(sorted(f"{n}/{letter}" for letter in "abcdefgh" for n in (1, 2)), 1):
            photo = folder / f"{name}.jpg"
            photo.parent.mkdir(parents=True, exist_ok=True)
            photo.touch()
            photo.with_suffix(".txt").write_bytes(b"\xff" if name == "1/a" else b"a photo")
            if not name.endswith("b"):
                box = np.array([[0, 0, 1, 1]], np.float32)
                writer.add(name, np.zeros((1, 4), np.float32), box, position=place, is_canonical=True)
        writer.finish()
    options = ["--vocabulary", tiny_vocabulary, "--regions", tmp_path / "store", "--output", tmp_path / "data"]
    options += ["--hold-out", "val=0.4", "--skip-bad", "1", "--missing-images", "skip"]
    # pytest itself cannot capture such names
    done = subprocess.run([python(), "-m", prepare_captions.__name__, folder, *options], capture_output=True)
    assert done.returncode == 0, done.stderr
    of = DataDirectory(tmp_path / "data")
    assert len(of.pairs("train")) + len(of.pairs("valid")) == 13
    missing = "".join(path.read_text() for path in sorted((tmp_path / "data").glob("*.missing-images.txt")))
    assert sorted(missing.splitlines()) == [r"photos\udcff/1/b.jpg", r"photos\udcff/2/b.jpg"]
    assert r"photos\udcff/1/a.txt is not UTF-8 text" in (tmp_path / "data" / "bad-records.txt").read_text()
