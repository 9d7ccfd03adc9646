"""Imports that leave broken records out: which, how many, listed where, and the same store after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.test_import_regions import image, tsv_line
from tests.folders import contents
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

Call = Callable[..., Any]

IMAGES = 20
# Number of the line, from 0 → what is wrong with it
BROKEN = {
    0: "column features is not base64",
    4: "no regions; at least one is needed",
    5: "feature 3 is nan; features must be finite",
    9: "image 8 occurs more than once",
    13: "lies outside the image of 640 x 480",
    19: "4 columns, 6 expected: is the line truncated?",
}


def lines(*, broken: bool = True) -> list[str]:
    """A TSV of twenty images, some of which are broken, or left out."""
    found = [tsv_line(seed, *image(seed, 1 + seed % 7)) for seed in range(IMAGES)]
    if not broken:
        return [line for number, line in enumerate(found) if number not in BROKEN]
    found[0] = found[0][:-5] + "?" + found[0][-4:]
    found[4] = tsv_line(4, *image(4, 0))
    features, boxes = image(5, 3)
    features[1, 3] = np.nan
    found[5] = tsv_line(5, features, boxes)
    found[9] = found[8]
    features, boxes = image(13, 2)
    found[13] = tsv_line(13, features, boxes + 400)
    found[19] = "\t".join(found[19].split("\t")[:4])
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "regions.tsv"
    path.write_text("".join(lines()))
    return path


def test_they_are_left_out_counted_and_listed(archive: Path, tmp_path: Path, import_archive: Call) -> None:
    for workers in (0, 2):
        store = tmp_path / f"store{workers}"
        done = import_archive(archive, store, "--skip-broken", len(BROKEN), "--workers", workers)
        assert done.status == 0, done.stderr
        assert f"left out       6 broken records, listed in {store}.broken.txt" in done.stdout
        listed = [line.split("\t") for line in Path(f"{store}.broken.txt").read_text().splitlines()]
        assert [where for where, _ in listed] == [f"{archive}, line {number + 1}" for number in BROKEN]
        for (_, reason), expected in zip(listed, BROKEN.values(), strict=True):
            assert expected in reason and str(archive) not in reason
    assert contents(tmp_path / "store0") == contents(tmp_path / "store2")
    whole = tmp_path / "whole" / archive.name
    whole.parent.mkdir()
    whole.write_text("".join(lines(broken=False)))
    assert import_archive(whole, tmp_path / "expected").status == 0
    found, expected = verify(tmp_path / "store0"), RegionStore(tmp_path / "expected")
    assert found.image_ids() == expected.image_ids()
    for name in ("boxes", "offsets", "sizes"):
        np.testing.assert_array_equal(found.array(name), expected.array(name))
    assert not Path(f"{tmp_path / 'expected'}.broken.txt").exists()


def test_features_come_as_float16_and_what_the_store_refuses_as_it_is(
    archive: Path, tmp_path: Path, import_archive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that little goes from process to process, and the error says the value of the archive."""
    types: dict[str, str] = {}
    add = RegionWriter.add

    def seen(writer: RegionWriter, image_id: str, features: np.ndarray, *args: Any, **columns: Any) -> None:
        types[image_id] = features.dtype.name
        add(writer, image_id, features, *args, **columns)

    monkeypatch.setattr(RegionWriter, "add", seen)
    records = lines()
    features, boxes = image(7, 2)
    features[1, 2] = 70000
    records[7] = tsv_line(7, features, boxes)
    archive.write_text("".join(records))
    for workers in (0, 2):
        types.clear()
        store = tmp_path / f"store{workers}"
        assert import_archive(archive, store, "--skip-broken", 7, "--workers", workers).status == 0
        assert {name for name, dtype in types.items() if dtype == "float32"} == {"4", "5", "7"}
        assert types.pop("6") == types.pop("13") == "float16"
        said = Path(f"{store}.broken.txt").read_text()
        assert (
            f"{archive}, line 8\timage 7, region 1: feature 2 is 70000; the maximum of float16, the store's type, is "
            "65504\n"
        ) in said
    assert contents(tmp_path / "store0") == contents(tmp_path / "store2")


def test_one_more_than_is_allowed(archive: Path, tmp_path: Path, import_archive: Call) -> None:
    store = tmp_path / "store"
    for allowed, line in ((0, 1), (1, 5), (5, 20)):
        done = import_archive(archive, store, "--skip-broken", allowed)
        assert done.status == 1 and not store.exists()
        assert done.error.startswith(f"{archive}, line {line}: ")
        said = "(--skip-broken N leaves out up to N" if not allowed else f"more than --skip-broken {allowed} allows; "
        assert said in done.error
        if allowed:
            assert len(Path(f"{store}.broken.txt").read_text().splitlines()) == allowed + 1
    assert import_archive(archive, store, "--skip-broken", 6).status == 0
    assert import_archive(archive, store, "--skip-broken", -1).error == "--skip-broken must be at least 0, got -1"


def test_nothing_but_broken_records(tmp_path: Path, import_archive: Call) -> None:
    archive = tmp_path / "regions.tsv"
    archive.write_text(tsv_line(4, *image(4, 0)) * 3)
    done = import_archive(archive, tmp_path / "store", "--skip-broken", 9)
    assert done.status == 1 and not (tmp_path / "store").exists()


@pytest.mark.parametrize("limit", [None, 9])
def test_whenever_it_was_interrupted_it_ends_the_same(
    limit: int | None, archive: Path, tmp_path: Path, import_archive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each image in turn, with the list; --limit counts images."""
    options = ["--skip-broken", 6, *(["--limit", limit] if limit else [])]
    assert import_archive(archive, tmp_path / "expected", *options).status == 0
    images = len(RegionStore(tmp_path / "expected"))
    assert images == (limit or IMAGES - len(BROKEN))
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    add = RegionWriter.add
    for stop in range(1, images):
        with monkeypatch.context() as patch:

            def stopped(writer: RegionWriter, *args: Any, stop: int = stop, **columns: Any) -> None:
                if writer.images == stop:
                    raise KeyboardInterrupt
                add(writer, *args, **columns)

            patch.setattr(RegionWriter, "add", stopped)
            assert import_archive(archive, tmp_path / "store", *options).status != 0
    done = import_archive(archive, tmp_path / "store", *options)
    assert f"resuming an interrupted import after {images - 1} images" in done.stdout
    assert contents(tmp_path / "store") == contents(tmp_path / "expected")
    lists = [Path(f"{tmp_path / name}.broken.txt").read_text() for name in ("store", "expected")]
    assert lists[0] == lists[1]


def test_more_may_be_allowed_after_an_interruption_but_not_fewer_than_there_were(
    archive: Path, tmp_path: Path, import_archive: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    store = tmp_path / "store"
    assert import_archive(archive, store, "--skip-broken", 3).status == 1
    error = import_archive(archive, store, "--skip-broken", 1).error
    assert error.startswith(f"{archive}, line 6: ") and "more than --skip-broken 1 allows" in error
    assert import_archive(archive, store, "--skip-broken", 6).status == 0
    assert import_archive(archive, tmp_path / "expected", "--skip-broken", 6).status == 0
    assert contents(store) == contents(tmp_path / "expected")


def test_what_boxes_are_measured_in(tmp_path: Path, import_archive: Call) -> None:
    """Among boxes in 0..1, one that is broken must not make pixels of them all."""
    (tmp_path / "npz" / "att").mkdir(parents=True)
    (tmp_path / "npz" / "box").mkdir()
    for seed in range(5):
        features, boxes = image(seed, 2)
        np.savez(tmp_path / "npz" / "att" / f"{seed}.npz", feat=features)
        np.save(tmp_path / "npz" / "box" / f"{seed}.npy", boxes / 640 * (1000 if seed == 2 else 1))
    error = import_archive(tmp_path / "npz", tmp_path / "store", "--skip-broken", 1).error
    assert error.startswith("1 of the first 5 images have coordinates above 1, or not finite: if they are broken, pass")
    done = import_archive(tmp_path / "npz", tmp_path / "store", "--skip-broken", 1, "--boxes", "normalised")
    assert done.status == 0
    assert RegionStore(tmp_path / "store").image_ids() == ["0", "1", "3", "4"]
