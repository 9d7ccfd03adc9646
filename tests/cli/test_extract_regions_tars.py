"""extract_regions.py and xgpt-caption on photos in tars."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli import test_caption as captioning
from tests.cli import test_extract_regions as extraction
from tests.cli.test_extract_regions import Extract
from tests.cli.test_extract_regions_interrupted import interrupted_after
from tests.folders import contents
from tests.tars import write_tar
from xgpt_fairseq.cli import caption as caption_program
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

extract, bundle = extraction.extract, captioning.bundle  # fixtures


def photo(seed: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (60, 40), (25 * seed, 99, 200)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two tars of three photos, two of which share their names; one photo is damaged."""
    for number in range(2):
        files: dict[str, bytes | str] = {}
        for place, key in enumerate(("0", "1", f"only{number}")):
            files |= {f"{key}.png": photo(3 * number + place), f"{key}.txt": f"{number} {key}"}
        if number:
            files["1.png"] = b"damaged"
        write_tar(tmp_path / "shards" / f"{number:05d}.tar", files)
    return tmp_path / "shards"


IDS = ["00000.tar/0", "00000.tar/1", "only0", "00001.tar/0", "only1"]


def test_the_regions_are_those_of_the_photos(shards: Path, tmp_path: Path, extract: Extract) -> None:
    done = extract(shards, "--output", tmp_path / "store", "--workers", 2)
    assert done.status == 0, done.stderr
    store = RegionStore(tmp_path / "store")
    assert store.image_ids() == IDS
    [line] = (tmp_path / "store.unreadable.txt").read_text().splitlines()
    assert line.startswith(f"{shards / '00001.tar' / '1.png'}\tnot a photo, or damaged at its beginning")
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("0a", "1a", "2a", "0b", "2b")):
        (tmp_path / "photos" / f"{name}.png").write_bytes(photo([0, 1, 2, 3, 5][number]))
        assert extract(tmp_path / "photos" / f"{name}.png", "--output", tmp_path / name).status == 0
        alone = RegionStore(tmp_path / name)
        assert (store.features(number) == alone.features(0)).all()
        assert store.size(number) == (60, 40)
    named = extract(*sorted(shards.iterdir()), "--output", tmp_path / "named")
    assert named.status == 0
    assert RegionStore(tmp_path / "named").image_ids() == IDS


def test_an_interrupted_extraction_goes_on(
    shards: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(shards, "--output", tmp_path / "expected").status == 0
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(3))
        assert extract(shards, "--output", tmp_path / "store").status == 130
    done = extract(shards, "--output", tmp_path / "store")
    assert "resuming an interrupted extraction after 3 images" in done.stdout
    assert contents(tmp_path / "store") == contents(tmp_path / "expected")


def test_tars_that_cannot_be_read(shards: Path, tmp_path: Path, extract: Extract) -> None:
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(whole[: len(whole) // 4])
    write_tar(shards / "2.tar", {"1.txt": "no photo"})
    (shards / "3.tar").write_text("no tar")
    assert extract(shards, "--output", tmp_path / "store").status == 0
    listed = dict(line.split("\t") for line in (tmp_path / "store.unreadable.txt").read_text().splitlines())
    assert [Path(name).name for name in listed if name.endswith(".tar")] == ["00001.tar", "2.tar", "3.tar"]
    assert "cut or damaged behind" in listed[str(shards / "00001.tar")]
    assert listed[str(shards / "2.tar")].startswith("a tar without members that are named as photos")
    assert listed[str(shards / "3.tar")].startswith("no tar")
    path = write_tar(tmp_path / "4.tar.gz", {"1.png": photo(1)}, "w:gz")
    for asked in (path, tmp_path):
        error = extract(asked, "--output", tmp_path / "other").error
        assert error.startswith(f"{path} is a compressed tar")


def test_two_members_of_one_name(tmp_path: Path, extract: Extract) -> None:
    path = write_tar(tmp_path / "a.tar", {"x/1.png": photo(1)})
    write_tar(path, {"x/01.png": photo(2)}, "a")
    error = extract(path, "--output", tmp_path / "store").error
    assert error.startswith(f"{path / 'x/1.png'} and {path / 'x/01.png'} are both image a.tar/x/1: an image id must")


def test_captions_of_tars_find_their_photos(
    shards: Path, tmp_path: Path, extract: Extract, call_program: Callable[..., Any], tiny_vocabulary: Path
) -> None:
    assert extract(shards, "--output", tmp_path / "store").status == 0
    done = call_program(
        prepare_captions.main, *sorted(shards.iterdir()), "--vocabulary", tiny_vocabulary,
        "--output", tmp_path / "data", "--regions", tmp_path / "store", "--hold-out", "val=0.5",
        "--missing-images", "skip",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    found = {}
    for split in ("train", "valid"):
        references = json.loads((tmp_path / "data" / f"{split}.references.json").read_text())
        found |= {each["image_id"]: each["caption"] for each in references["annotations"]}
    assert found == {
        "00000.tar/0": "0 0", "00000.tar/1": "0 1", "only0": "0 only0", "00001.tar/0": "1 0", "only1": "1 only1",
    }  # fmt: skip


def test_xgpt_caption(shards: Path, tmp_path: Path, call_program: Callable[..., Any], bundle: Path) -> None:
    written, page = tmp_path / "c.json", tmp_path / "c.html"
    done = call_program(caption_program.main, shards, "--path", bundle, "--json", written, "--html", page)
    assert done.status == 0, done.stderr
    captions = json.loads(written.read_text())
    assert [each["image_id"] for each in captions] == IDS
    assert captions[0]["file"] == str(shards / "00000.tar" / "0.png")
    assert f"not read: {shards / '00001.tar' / '1.png'}: not a photo" in done.stderr
    assert page.read_text().count("data:image/jpeg;base64,") == 5
