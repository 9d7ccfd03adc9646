"""Photos that a file names, for xgpt-extract-regions. (For xgpt-caption: test_caption_lines.)"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.cli import test_extract_regions as extraction
from tests.cli.test_extract_regions import Extract
from tests.cli.test_extract_regions_interrupted import interrupted_after
from tests.folders import contents
from xgpt_fairseq.cli import caption
from xgpt_fairseq.cli.path_lists import as_given, with_listed_paths
from xgpt_fairseq.cli.photo_extraction import _calls
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.photos import PhotoFile, PhotoForm
from xgpt_runtime.cli import _listed

extract, photos = extraction.extract, extraction.photos  # fixtures


def test_photos_that_a_file_lists(photos: Path, tmp_path: Path, extract: Extract) -> None:
    """As `find` prints them; a line without a name is passed over."""
    listed = tmp_path / "list.txt"
    chosen = [path for path in sorted(photos.rglob("*.*")) if path.suffix in (".jpg", ".png")][:3]
    listed.write_text("\n\n".join(map(str, chosen)) + "\n")
    options = ["--grid", 2, "--image-size", 64]
    done = extract("--list", listed, "--output", tmp_path / "some", *options)
    assert done.status == 0, done.error
    assert extract(*chosen, "--output", tmp_path / "same", *options).status == 0
    assert contents(tmp_path / "some") == contents(tmp_path / "same")
    listed.write_text("\n")
    assert extract("--list", listed, "--output", tmp_path / "none").error == f"--list {listed} names no files"
    done = extract("--list", next(photos.rglob("*.jpg")), "--output", tmp_path / "none")
    assert "is no list of paths, a path a line: it holds bytes that no text has" in done.error
    error = extract("--list", tmp_path / "gone", "--output", tmp_path / "none").error
    assert error == f"--list {tmp_path / 'gone'}: No such file or directory"
    done = extract("--output", tmp_path / "none")
    assert done.status == 2 and "the following arguments are required: PHOTOS, or --list" in done.stderr


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
def test_a_list_as_windows_writes_it(mark: bytes, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(mark + "a photo.jpg\r\n\ufeffcafé.jpg\r\n".encode())
    expected = [Path("a photo.jpg"), Path("\ufeffcafé.jpg")]
    parser = argparse.ArgumentParser()
    args = with_listed_paths(parser, argparse.Namespace(photos=[], list=listed))
    assert args.photos == expected
    assert _listed(listed) == expected


def test_what_goes_to_a_worker_does_not_grow_with_the_list() -> None:
    files = [PhotoFile(Path(f"photos/{number}.jpg"), image_id=str(number)) for number in range(1000)]
    sizes = []
    for some in (files[:10], files):
        call, at = next(_calls(some, 7, PhotoForm(), [file.path for file in some]))
        assert at == 7
        sizes.append(len(pickle.dumps(call)))
    assert sizes[0] == sizes[1]


def test_relative_paths_are_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_given([Path("photos"), tmp_path / "more"]) == [f"photos (from {tmp_path})", f"{tmp_path}/more"]


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_list_is_read_from_a_folder(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One list from two folders names other photos, unless its paths are absolute."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/1.jpg\n{'2.jpg' if kind == 'relative' else tmp_path / '2.jpg'}\n")
    given = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        args = argparse.Namespace(photos=[], list=listed)
        given.append(with_listed_paths(argparse.ArgumentParser(), args).given)
    assert (given[0] == given[1]) == (kind == "absolute")
    if kind == "absolute":  # as extractions that earlier versions began have it
        assert given[0][0].startswith(f"--list {listed} (") and " (from " not in given[0][0]


def test_an_extraction_of_a_relative_list_does_not_go_on_from_elsewhere(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path.relative_to(photos)}\n" for path in sorted(photos.rglob("*.jpg"))))
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    command = ["--list", listed, "--output", tmp_path / "store", "--grid", 2, "--image-size", 64]
    monkeypatch.chdir(photos)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(2))
        assert extract(*command).status == 130
    monkeypatch.chdir(tmp_path)
    assert f"is the list of the photos in --list {listed}" in extract(*command).error
    monkeypatch.chdir(photos)
    assert extract(*command).status == 0


def test_lines_of_captions_are_of_what_the_list_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version has said it, where the list is that one's: so its lines go on, too."""
    said: list[Any] = []
    monkeypatch.setattr(caption, "_write", lambda *_, images: said.append(images["given"]))
    listed = tmp_path / "list.txt"
    listed.write_text("1.jpg\n")
    args = with_listed_paths(argparse.ArgumentParser(), argparse.Namespace(photos=[], list=listed))
    args.batch_size, args.jsonl, args.detections = 4, tmp_path / "captions.jsonl", None
    before = [args.given[0].split(" (from ")[0]]
    nothing: Any = None

    class Files(list[str]):
        given, names_sha256 = before, "0123"

    files: Any = Files(["1.jpg"])
    caption._caption_listed(args, captioner=nothing, options=nothing, files=files, shard=None)
    assert said == [before]
