"""extract_regions.py, xgpt-caption and xgpt-prepare-captions on photos inside Parquet files and saved data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_arrow import parquet, save_to_disk
from tests.cli import test_caption as captioning
from tests.cli import test_extract_regions as extraction
from tests.cli.test_extract_regions import Extract
from tests.cli.test_extract_regions_interrupted import interrupted_after
from tests.cli.test_extract_regions_tars import photo
from tests.folders import contents
from xgpt_fairseq.cli import caption as caption_program
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.gallery import match_photos
from xgpt_fairseq.pages.pictures import picture
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.photos import PhotoFile

extract, bundle = extraction.extract, captioning.bundle  # fixtures


def rows(first: int, *paths: str | None) -> list[dict[str, Any]]:
    """Rows of photos with a caption that says which."""
    return [
        {"image": {"bytes": photo(number), "path": path}, "text": f"photo {number}"}
        for number, path in enumerate(paths, start=first)
    ]


def said(data: Path) -> dict[str, list[str]]:
    """The id of each captioned photo → its captions."""
    found: dict[str, list[str]] = {}
    for path in data.glob("*.references.json"):
        for annotation in json.loads(path.read_text())["annotations"]:
            found.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    assert DataDirectory(data)
    return found


def test_the_photos_of_parquet_files(
    tmp_path: Path, extract: Extract, call_program: Callable[..., Any], tiny_vocabulary: Path
) -> None:
    """Names of files, shared by two tables or not, and rows without names; the captions find their photos."""
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    parquet(data / "train-00000-of-00001.parquet", rows(0, "0.png", None, "a.png"))
    parquet(data / "validation-00000-of-00001.parquet", rows(3, "0.png", "x/b.png", None))
    parquet(data / "info.parquet", [{"width": 3}])
    done = extract(data, "--output", tmp_path / "store", "--workers", 2)
    assert done.status == 0, done.stderr
    store = RegionStore(tmp_path / "store")
    ids = ["train-00000-of-00001.parquet/0", "train-00000-of-00001-1", "a"]
    ids += ["validation-00000-of-00001.parquet/0", "b", "validation-00000-of-00001-2"]
    assert store.image_ids() == ids
    [line] = (tmp_path / "store.unreadable.txt").read_text().splitlines()
    assert line == f"{data / 'info.parquet'}\ta table without a column of photos, of their bytes"
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.png").write_bytes(photo(number))
    assert extract(tmp_path / "photos", "--output", tmp_path / "expected").status == 0
    for number in range(6):
        assert (store.features(number) == RegionStore(tmp_path / "expected").features(number)).all()
    (data / "info.parquet").unlink()
    for source in ([data], sorted(data.iterdir())):
        words = [*source, "--vocabulary", tiny_vocabulary, "--regions", tmp_path / "store", "--overwrite"]
        done = call_program(prepare_captions.main, *words, "--output", tmp_path / "data")
        assert done.status == 0, done.stderr
        assert said(tmp_path / "data") == {name: [f"photo {number}"] for number, name in enumerate(ids)}
        assert DataDirectory(tmp_path / "data").manifest.splits["valid"].images == 3


def test_the_photos_of_a_saved_data_set(
    tmp_path: Path, extract: Extract, call_program: Callable[..., Any], tiny_vocabulary: Path
) -> None:
    """The files of all splits are called alike, and so are photos of two splits."""
    folder = tmp_path / "saved"
    save_to_disk(folder / "train", rows(0, "0.png", None, "1.png", None), files=2)
    save_to_disk(folder / "validation", rows(4, "0.png", None))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    assert extract(folder, "--output", tmp_path / "store").status == 0
    ids = {
        "train/0": 0, "1": 2, "data-00001-of-00002-0": 1, "data-00001-of-00002-1": 3, "validation/0": 4,
        "data-00000-of-00001-1": 5,
    }  # fmt: skip
    assert set(RegionStore(tmp_path / "store").image_ids()) == set(ids)
    words = [folder, "--vocabulary", tiny_vocabulary, "--regions", tmp_path / "store", "--output", tmp_path / "data"]
    done = call_program(prepare_captions.main, *words)
    assert done.status == 0, done.stderr
    assert said(tmp_path / "data") == {name: [f"photo {number}"] for name, number in ids.items()}


def test_an_interrupted_extraction_goes_on(tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "train.parquet", rows(0, *(f"{number}.png" for number in range(5))))
    assert extract(path, "--output", tmp_path / "expected").status == 0
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(3))
        assert extract(path, "--output", tmp_path / "store").status == 130
    done = extract(path, "--output", tmp_path / "store")
    assert "resuming an interrupted extraction after 3 images" in done.stdout
    assert contents(tmp_path / "store") == contents(tmp_path / "expected")


def test_xgpt_caption_and_the_gallery(tmp_path: Path, bundle: Path, call_program: Callable[..., Any]) -> None:
    path, written = parquet(tmp_path / "train.parquet", rows(0, "0.png", None)), tmp_path / "captions.json"
    done = call_program(caption_program.main, path, "--path", bundle, "--json", written)
    assert done.status == 0, done.stderr
    captions = json.loads(written.read_text())
    assert [(each["image_id"], each["file"]) for each in captions] == [
        ("0", str(path / "0.png")), ("train-1", str(path / "train-1"))
    ]  # fmt: skip
    found = match_photos([path], ["0", "train-1"])
    alone = PhotoFile(plain(tmp_path, 1))
    assert picture("a", found.files["train-1"], None).source == picture("a", alone, None).source
    with pytest.raises(DataError, match=r"train-1 is in a table: leave --link-photos out"):
        match_photos([path], ["train-1"], link_from=tmp_path)


def plain(folder: Path, number: int) -> Path:
    path = folder / f"{number}.png"
    path.write_bytes(photo(number))
    return path
