"""Extractions that are interrupted, or killed, go on where they stopped."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli import test_extract_regions as extraction
from tests.cli.test_extract_regions import Extract, write_photo
from tests.folders import contents, images_in
from tests.preloaded import python
from tests.vision.test_photo_list import another_process
from xgpt_fairseq.cli import photo_extraction
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision import photo_list
from xgpt_fairseq.vision.extractor import RegionExtractor

extract, photos = extraction.extract, extraction.photos  # fixtures


def test_whenever_it_was_interrupted_it_ends_the_same(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each image in turn. Features are made to show which photos shared a batch, as their last bits can."""
    pooled = RegionExtractor._features

    def mixed(self: RegionExtractor, pixels: torch.Tensor, boxes: Any) -> Any:
        return pooled(self, pixels, boxes) + np.float16(pixels.float().mean())

    monkeypatch.setattr(RegionExtractor, "_features", mixed)
    monkeypatch.setattr(photo_extraction, "CHUNK_PHOTOS", 4)
    options = ["--batch-size", 2, "--grid", 2]
    assert extract(photos, "--output", tmp_path / "expected", *options).status == 0
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    store = tmp_path / "store"
    for images in range(1, 9):
        with monkeypatch.context() as patch:
            patch.setattr(RegionWriter, "add", interrupted_after(images))
            assert extract(photos, "--output", store, *options).status == 130
        assert not store.exists()
    done = extract(photos, "--output", store, *options)
    assert done.status == 0
    assert "resuming an interrupted extraction after 8 images" in done.stdout
    assert contents(store) == contents(tmp_path / "expected")
    lists = [(tmp_path / f"{name}.unreadable.txt").read_bytes() for name in ("store", "expected")]
    assert lists[0] == lists[1]
    assert len(lists[0].splitlines()) == 3


def interrupted_after(images: int) -> Callable[..., None]:
    """`RegionWriter.add` until there are so many images, then Ctrl-C."""
    add = RegionWriter.add

    def interrupted(writer: RegionWriter, *arguments: Any, **columns: Any) -> None:
        if writer.images == images:
            raise KeyboardInterrupt
        add(writer, *arguments, **columns)

    return interrupted


def test_other_options_do_not_go_on(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(5))
        assert extract(photos, "--output", tmp_path / "store").status == 130
    error = extract(photos, "--output", tmp_path / "store", "--batch-size", 3).error
    assert "was started with other options (batch_size: 1 then, 3 now); pass --overwrite" in error
    assert extract(photos, "--output", tmp_path / "store", "--batch-size", 3, "--overwrite").status == 0
    assert len(RegionStore(tmp_path / "store")) == 9


def test_it_goes_on_with_its_own_list_of_photos(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a folder of millions is not searched again, and photos that come meanwhile don't shift the others."""
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(5))
        assert extract(photos, "--output", tmp_path / "store").status == 130
    write_photo(photos / "a" / "a first one.jpg", 1)
    listed = tmp_path / ".store.photos"
    with monkeypatch.context() as patch:
        patch.setattr(photo_list, "list_photos", lambda *_, **__: pytest.fail("searched again"))
        other = extract(photos / "a", "--output", tmp_path / "store")
        assert f"{listed} is the list of the photos in {photos}, not in {photos / 'a'}: remove it" in other.error
        done = extract(photos, "--output", tmp_path / "store")
    assert done.status == 0 and f"in {listed}: what came later is left out" in done.stdout
    assert "12 files, as listed on " in done.stdout
    assert len(RegionStore(tmp_path / "store")) == 9 and not listed.exists()
    assert extract(photos, "--output", tmp_path / "store", "--overwrite").status == 0
    assert len(RegionStore(tmp_path / "store")) == 10


def test_without_the_list_a_folder_that_changed_is_refused(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an unfinished extraction of an earlier version."""
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(RegionWriter, "add", interrupted_after(5))
        assert extract(photos, "--output", tmp_path / "store").status == 130
    shutil.rmtree(tmp_path / ".store.photos")
    write_photo(photos / "c" / "new.jpg", 1)
    error = extract(photos, "--output", tmp_path / "store").error
    assert "was started with other options (files: 12 then, 13 now; names_sha256: " in error


def test_a_program_that_fails_leaves_no_list(photos: Path, tmp_path: Path, extract: Extract) -> None:
    assert extract(photos, "--output", tmp_path / "store", "--backbone", "none").status == 1
    assert not (tmp_path / ".store.photos").exists()


def test_a_second_process_leaves_the_list_of_the_first(photos: Path, tmp_path: Path, extract: Extract) -> None:
    listed = tmp_path / ".store.photos"
    with another_process(listed):
        refused = extract(photos, "--output", tmp_path / "store")
        assert refused.status == 1 and "another process takes the photos of the list" in refused.error
        assert (listed / "lock").exists()


def test_unfinished_extractions_of_earlier_versions(photos: Path, tmp_path: Path, extract: Extract) -> None:
    """They hashed names without folders: so do we, where ids have none, and go on; else ids have changed."""
    names = sorted(path.relative_to(photos) for path in photos.rglob("*.*"))
    assert names_hash(photos, tmp_path, extract) == sha256("\n".join(name.name for name in names))
    (photos / "a" / "notes.md").touch()  # files that are no photos may share a name
    (photos / "b" / "notes.md").touch()
    names = sorted(path.relative_to(photos) for path in photos.rglob("*.*"))
    assert names_hash(photos, tmp_path, extract) == sha256("\n".join(name.name for name in names))
    write_photo(photos / "b" / "000000000004.jpg", 4)
    names = sorted(path.relative_to(photos) for path in photos.rglob("*.*"))
    whole = [str(name) if name.name == "000000000004.jpg" else name.name for name in names]
    assert names_hash(photos, tmp_path, extract) == sha256("\n".join(whole))


def names_hash(photos: Path, tmp_path: Path, extract: Extract) -> Any:
    assert extract(photos, "--output", tmp_path / "store", "--overwrite").status == 0
    return RegionStore(tmp_path / "store").source["names_sha256"]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_killed_extraction_goes_on_and_ends_the_same(tmp_path: Path, extract: Extract) -> None:
    """SIGKILL of the real program with a worker process."""
    for seed in range(60):
        write_photo(tmp_path / "photos" / f"{seed}.png", seed, [(60, 40), (40, 60)][seed % 2])
        if seed % 9 == 0:
            (tmp_path / "photos" / f"{seed}.txt").write_text("no photo")
    assert extract(tmp_path / "photos", "--output", tmp_path / "expected", "--batch-size", 2).status == 0

    store, journal = tmp_path / "store", tmp_path / ".store.partial" / "journal.json"
    # The program as it is, but slower, and with a journal at every third image.
    slowed = (
        "import time; from xgpt_fairseq.cli import extract_regions\n"
        "import xgpt_fairseq.regions.writer as w; add = w.RegionWriter.add\n"
        "def slow(self, *a, **k): self.journal_images = 3; time.sleep(0.03); add(self, *a, **k)\n"
        "w.RegionWriter.add = slow; extract_regions.main()"
    )
    options = ["--image-size", "64", "--device", "cpu", "--batch-size", "2", "--workers", "1"]
    command = [python(), "-c", slowed, str(tmp_path / "photos"), "--output", str(store), *options]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while program.poll() is None and images_in(journal) < 10:
        time.sleep(0.005)
    program.send_signal(signal.SIGKILL)
    _, err = program.communicate(timeout=20)  # ends only when the worker has ended, too
    assert program.returncode == -signal.SIGKILL, err
    reached = images_in(journal)
    assert 10 <= reached < 60

    done = extract(tmp_path / "photos", "--output", store, "--batch-size", 2)
    assert done.status == 0
    assert f"resuming an interrupted extraction after {reached} images" in done.stdout
    assert contents(store) == contents(tmp_path / "expected")
    lists = [(tmp_path / f"{name}.unreadable.txt").read_bytes() for name in ("store", "expected")]
    assert lists[0] == lists[1]
    assert len(lists[0].splitlines()) == 7
    assert not journal.parent.exists()
