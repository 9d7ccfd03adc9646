"""Lists of photos on disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.tar_members import TarMember
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision import photo_list
from xgpt_fairseq.vision.photo_list import PhotoList, container_starts, listed_photos, remove_list
from xgpt_fairseq.vision.photos import PhotoFile
from xgpt_fairseq.vision.table_photos import TableCell

MIXED = [
    PhotoFile(Path("a/1.jpg"), name="1.jpg", image_id="1", folder="a"),
    PhotoFile(Path("b\udcff.png"), name="b\udcff.png", image_id="b\udcff", reason="no file"),
    PhotoFile(
        Path("x.tar/1.jpg"), name="x/1.jpg", image_id="x/1", tar=Path("x.tar"), member=TarMember("1.jpg", 512, 9)
    ),
    PhotoFile(Path("x.tar/2.jpg"), image_id="2", tar=Path("x.tar"), member=TarMember("2.jpg", 1536, 9, "cut")),
    PhotoFile(Path("y.tar/3.jpg"), image_id="3", tar=Path("y.tar"), member=TarMember("3.jpg", 0, 1)),
    PhotoFile(Path("t.parquet/é"), image_id="é", cell=TableCell(Path("t.parquet"), "image", 3)),
    PhotoFile(Path("t.parquet/4"), image_id="4", cell=TableCell(Path("t.parquet"), "image", 4)),
]


def written(files: list[PhotoFile], place: Path) -> PhotoList:
    place.mkdir()
    photo_list._write(files, place, ["photos"])
    return PhotoList(place)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = written(MIXED, tmp_path / "list")
    assert len(found) == 7 and list(found) == MIXED and found[-1] == MIXED[-1]
    part = found[2:5]
    assert len(part) == 3 and list(part) == MIXED[2:5] and list(part[1:]) == MIXED[3:5]
    assert container_starts(found).tolist() == container_starts(MIXED).tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(IndexError):
        found[7]


def test_a_list_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, place = tmp_path / "photos", tmp_path / "list"
    photos.mkdir()
    (photos / "1.jpg").touch()
    first, made = listed_photos([photos], place, given=[str(photos)], exclude=[], again=False)
    first.close()
    assert made is None and [file.image_id for file in first] == ["1"]
    (photos / "2.jpg").touch()
    again, made = listed_photos([photos], place, given=[str(photos)], exclude=[], again=False)
    assert made is not None and abs(made - time.time()) < 60 and list(again) == list(first)
    again.close()
    with pytest.raises(DataError, match=r"is the list of the photos in .*photos, not in .*other: remove it"):
        listed_photos([tmp_path / "other"], place, given=[str(tmp_path / "other")], exclude=[], again=False)
    found, made = listed_photos([photos], place, given=[str(photos)], exclude=[], again=True)
    assert made is None and len(found) == 2


def test_a_list_that_earlier_versions_made_of_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They did not record from where. So it counts where its photos are."""
    paths, place = [Path("1.jpg"), tmp_path / "2.jpg"], tmp_path / "list"
    for name in ("photos", "elsewhere"):
        (tmp_path / name).mkdir()
    for photo in (tmp_path / "photos" / "1.jpg", tmp_path / "2.jpg"):
        photo.touch()
    monkeypatch.chdir(tmp_path / "photos")
    before = "--list /photos.txt (0123)"
    listed_photos(paths, place, given=[before], exclude=[], again=False)[0].close()

    def go_on(given: str) -> None:
        listed_photos(paths, place, given=[f"{given} (from {Path.cwd()})"], exclude=[], again=False)[0].close()

    go_on(before)
    with pytest.raises(DataError, match="is the list of the photos in --list"):
        go_on("--list /photos.txt (4567)")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is the list of the photos in --list"):
        go_on(before)


def test_a_list_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no files in"):
        listed_photos([tmp_path / "empty"], tmp_path / "list", given=[], exclude=[], again=False)
    assert not (tmp_path / "list").exists()


def test_a_list_of_a_newer_version(tmp_path: Path) -> None:
    written(MIXED, tmp_path / "list")
    file = tmp_path / "list" / "list.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    with pytest.raises(DataError, match="version 2"):
        PhotoList(tmp_path / "list")


def test_processes_that_begin_at_once_make_one_list(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(50):
        (photos / f"{number}.jpg").touch()
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        made = pool.starmap(_when_made, [(photos, tmp_path / "list")] * 4)
    assert made.count(None) == 1


def test_a_list_that_is_read_is_not_made_anew(tmp_path: Path) -> None:
    """Its places would mean other photos."""
    photos, place = tmp_path / "photos", tmp_path / "list"
    photos.mkdir()
    for name in "bd":
        (photos / f"{name}.jpg").touch()
    options = {"given": [str(photos)], "exclude": []}
    first, _ = listed_photos([photos], place, **options, again=False)
    (photos / "a.jpg").touch()
    with pytest.raises(DataError, match=r"another process takes the photos of the list .*list: wait for it"):
        listed_photos([photos], place, **options, again=True)
    second, _ = listed_photos([photos], place, **options, again=False)
    second.close()
    assert [file.image_id for file in first] == ["b", "d"]
    first.close()
    again, made = listed_photos([photos], place, **options, again=True)
    assert made is None and [file.image_id for file in again] == ["a", "b", "d"]
    assert [file.image_id for file in first] == ["b", "d"]  # whose files are still there for it


@contextlib.contextmanager
def another_process(place: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """One that makes the list *place*, and has it for itself; or reads it."""
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:  # locks are of what is open, not of processes
        fcntl.flock(lock, kind)
        yield


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_the_list_of_another_process_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one that waits and is ended, by one that is refused, and by one that has come to its end."""
    photos, place = tmp_path / "photos", tmp_path / "list"
    photos.mkdir()
    (photos / "1.jpg").touch()
    options = {"given": [str(photos)], "exclude": []}
    monkeypatch.setattr(time, "sleep", interrupt)
    with another_process(place):
        (place / "entries.jsonl").touch()
        for again, error in ((False, KeyboardInterrupt), (True, DataError)):
            with pytest.raises(error):
                listed_photos([photos], place, **options, again=again)
        remove_list(place)
        assert (place / "entries.jsonl").exists()
    listed_photos([photos], place, **options, again=False)[0].close()
    with another_process(place, fcntl.LOCK_SH):
        remove_list(place)
        assert len(PhotoList(place)) == 1
    remove_list(place)
    remove_list(place)
    assert not place.exists()
    monkeypatch.setattr(photo_list, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        listed_photos([photos], place, **options, again=False)
    assert not place.exists()  # its own


@pytest.mark.parametrize("again", [True, False])
def test_a_list_that_is_removed_while_another_process_waits(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waits has the lock of what is no more there."""
    photos, place = tmp_path / "photos", tmp_path / "list"
    photos.mkdir()
    (photos / "1.jpg").touch()
    opened, removed = photo_list._open_lock, []

    def removes(place: Path) -> int:
        lock = opened(place)
        if not removed:
            removed.append(place)
            shutil.rmtree(place)
        return lock

    monkeypatch.setattr(photo_list, "_open_lock", removes)
    found, made = listed_photos([photos], place, given=[str(photos)], exclude=[], again=again)
    assert removed and made is None and len(found) == 1
    with pytest.raises(BlockingIOError), open(place / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    found.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    photos, place = tmp_path / "photos", tmp_path / "list"
    photos.mkdir()
    (photos / "1.jpg").touch()
    for again, is_made in ((False, True), (False, False), (True, True)):
        found, made = listed_photos([photos], place, given=[str(photos)], exclude=[], again=again)
        assert len(found) == 1 and (made is None) == is_made
        found.close()
    remove_list(place)
    assert not place.exists()


def _when_made(photos: Path, place: Path) -> float | None:
    return listed_photos([photos], place, given=[str(photos)], exclude=[], again=False)[1]


def synthetic(count: int) -> list[PhotoFile]:
    return [
        PhotoFile(Path(f"photos/{n // 1000:03}/{n:09}.jpg"), f"{n:09}.jpg", str(n), f"{n // 1000:03}")
        for n in range(count)
    ]


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """Of 50 000 photos, a resumed run reads the list from the disk, each photo when it comes to it."""
    written(synthetic(50_000), tmp_path / "list")
    tracemalloc.start()
    found = PhotoList(tmp_path / "list")
    part = found[30_000:]
    assert part[19_999].image_id == "49999" and len(container_starts(found)) == 50_000
    opened = tracemalloc.get_traced_memory()[1]
    for file in found[::25]:
        assert file.image_id
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened < 200_000 and read < 400_000  # bytes


def test_memory_does_not_grow_with_what_is_written(tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 3_000):
        feature, box = np.ones((1, 4), dtype=np.float16), np.array([[0, 0, 1, 1]], dtype=np.float32)
        with RegionWriter(tmp_path / str(count), 4, unique_ids=True) as writer:
            writer.add("0", feature, box, position=1, folder="a")
            tracemalloc.start()
            for number in range(1, count):
                writer.add(str(number), feature, box, position=number + 1, folder="a", is_canonical=True)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            writer.finish()
    assert peaks[1] < peaks[0] + 10_000
