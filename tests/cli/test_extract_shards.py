"""An extraction in parts by several processes, killed and resumed, and the parts merged: the store of one run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli import test_extract_regions as extraction
from tests.cli.test_extract_regions import Extract, write_photo
from tests.cli.test_extract_regions_interrupted import interrupted_after
from tests.end_to_end.programs import run
from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.cli import regions
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

extract = extraction.extract  # a fixture


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """33 photos in two folders, one name in both, and three files that are none."""
    for seed in range(32):
        write_photo(tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.jpg", seed, [(60, 40), (40, 60)][seed % 2])
    for name in ("a/0.txt", "a/9.txt", "b/5.png"):
        (tmp_path / "photos" / name).write_text("no photo")
    write_photo(tmp_path / "photos" / "a" / "1.jpg", 99)
    return tmp_path / "photos"


def merge(call_program: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["xgpt-regions", "merge", *map(str, arguments)])
    return call_program(regions.main, "merge", *arguments)


def unreadable(store: Path) -> bytes:
    return store.with_name(f"{store.name}.unreadable.txt").read_bytes()


def test_four_parts_each_interrupted_twice(
    photos: Path, tmp_path: Path, extract: Extract, call_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, store = tmp_path / "expected", tmp_path / "store"
    assert extract(photos, "--output", expected, "--grid", 2).status == 0
    monkeypatch.setattr(region_writer, "JOURNAL_SECONDS", 0)
    for shard in (2, 0, 3, 1):  # in any order
        options = [photos, "--output", store, "--grid", 2, "--num-shards", 4, "--shard-id", shard]
        for images in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(RegionWriter, "add", interrupted_after(images))
                assert extract(*options).status == 130
        if shard == 1:
            error = merge(call_program, monkeypatch, f"{store}.parts", "--output", store).error
            assert "of 4 parts these are missing: 1 (unfinished: run it again)" in error
        done = extract(*options)
        assert done.status == 0 and "resuming an interrupted extraction after 2 images" in done.stdout
        assert f"shard {shard} of 4 (--shard-id): 9 files" in done.stdout
        assert f"when all shards are done: xgpt-regions merge {store}.parts --output {store}\n" in done.stdout
    done = merge(call_program, monkeypatch, f"{store}.parts", "--output", store, "--copy")
    assert done.status == 0, done.stderr
    assert f"wrote {store}: 33 images, 165 regions, 1 shard(s)\n" in done.stdout
    assert contents(store) == contents(expected)
    assert unreadable(store) == unreadable(expected)

    linked, referring = tmp_path / "linked", tmp_path / "elsewhere" / "referring"
    referring.parent.mkdir()
    for way, output in (("--link", linked), ("--refer", referring)):
        assert merge(call_program, monkeypatch, f"{store}.parts", way, "--output", output).status == 0
        joined = verify(output)
        one = verify(expected)
        assert len(joined.manifest.shards) == 4 and joined.source == one.source
        for name in one.manifest.arrays:
            assert joined.manifest.arrays[name].crc32 == one.manifest.arrays[name].crc32
        assert all((joined.features(image) == one.features(image)).all() for image in range(33))
    assert Path(linked / "features-00003.npy").samefile(f"{store}.parts/3-of-4/features-00000.npy")
    shutil.rmtree(f"{store}.parts")
    verify(linked)
    assert merge(call_program, monkeypatch, linked, "--output", tmp_path / "more").error == (
        f"{linked} is no part of a store: it was made without --num-shards"
    )


def test_parts_that_do_not_fit(
    photos: Path, tmp_path: Path, extract: Extract, call_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, parts = tmp_path / "store", tmp_path / "store.parts"

    def part(shard: int, *options: object) -> None:
        assert extract(photos, "--output", store, "--num-shards", 2, "--shard-id", shard, *options).status == 0

    def error() -> str:
        said: str = merge(call_program, monkeypatch, parts, "--output", store).error
        assert not store.exists()
        return said

    part(0)
    assert error() == "of 2 parts these are missing: 1"
    part(1, "--grid", 2)
    assert "1-of-2 is of another extraction than " in error() and "boxes 'grid 2 x 2' against 'grid 6 x 6'" in error()
    part(1, "--overwrite")
    shutil.copytree(parts / "1-of-2", parts / "copied")
    assert "are both part 1" in error()
    shutil.rmtree(parts / "copied")
    assert merge(call_program, monkeypatch, parts, "--output", store).status == 0
    assert merge(call_program, monkeypatch, parts, "--output", store).error == (
        f"{store} exists; pass --overwrite to replace it"
    )
    assert merge(call_program, monkeypatch, parts, "--output", store, "--overwrite").status == 0
    verify(store)


def test_a_task_that_is_run_again_makes_its_part(
    photos: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sbatch --array=1` after one of `--array=0-1` is an array of one task: it would make all, or another part."""
    array = {"MIN": 0, "MAX": 1, "STEP": 1, "COUNT": 2, "ID": 0}
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    options = [photos, "--output", tmp_path / "store", "--grid", 1]
    assert extract(*options).status == 0
    for name, value in {"MIN": 1, "MAX": 1, "COUNT": 1, "ID": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    refused = extract(*options)
    assert refused.status == 1 and refused.error.startswith(f"{tmp_path / 'store.parts'}: there are parts of 2 shards")
    assert "add --num-shards 2 --shard-id I (not finished: 1)" in refused.error
    assert not (tmp_path / "store").exists()
    done = extract(*options, "--num-shards", 2)
    assert done.status == 0 and "shard 1 of 2 (SLURM_ARRAY_TASK_ID)" in done.stdout
    assert extract(*options, "--num-shards", 1).status == 0
    assert {path.name for path in (tmp_path / "store.parts").glob("*-of-*[0-9]")} == {"0-of-2", "1-of-2"}


def test_a_finished_part_is_no_error(photos: Path, tmp_path: Path, extract: Extract) -> None:
    """torchrun starts all processes again, and stops all where one ends with an error."""
    part = [photos, "--output", tmp_path / "store", "--num-shards", 2, "--shard-id", 0]
    made = extract(*part, "--grid", 1)
    before = contents(tmp_path / "store.parts")
    again = extract(*part, "--grid", 1)
    assert again.status == 0 and "this part was finished by an earlier run" in again.stdout
    assert contents(tmp_path / "store.parts") == before
    for line in ("images", "not read", "regions"):
        (said,) = [row.split(" (")[0] for row in made.stdout.splitlines() if row.startswith(f"{line} ")]
        assert said in again.stdout
    other = extract(*part, "--grid", 2)
    assert (
        other.status == 1
        and other.error == f"{tmp_path / 'store.parts' / '0-of-2'} exists; pass --overwrite to replace it"
    )
    assert extract(*part, "--grid", 2, "--overwrite").status == 0


def test_parts_of_an_earlier_version(
    photos: Path, tmp_path: Path, extract: Extract, call_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs did not say what --max-regions was."""
    detections = tmp_path / "boxes.json"
    detections.write_text(json.dumps([{"image_id": 2, "bbox": [0, 0, 9, 9], "category_id": 1, "score": 0.5}]))
    options = [photos, "--output", tmp_path / "store", "--detections", detections, "--num-shards", 2]
    for shard in (0, 1):
        assert extract(*options, "--shard-id", shard).status == 0
    manifest = tmp_path / "store.parts" / "0-of-2" / "store.json"
    value = json.loads(manifest.read_text())
    assert value["source"].pop("max_regions") == 100
    manifest.write_text(json.dumps(value))
    done = extract(*options, "--shard-id", 0)
    assert done.status == 0 and "this part was finished by an earlier run" in done.stdout, done.stderr
    done = extract(*options, "--shard-id", 1, "--max-regions", 50)  # a part that says it is compared
    assert done.status == 1 and "pass --overwrite" in done.error
    done = merge(call_program, monkeypatch, tmp_path / "store.parts", "--output", tmp_path / "store")
    assert done.status == 0, done.stderr
    store = verify(tmp_path / "store")
    parts = [RegionStore(tmp_path / "store.parts" / name) for name in ("0-of-2", "1-of-2")]
    images = [(part, image) for part in parts for image in range(len(part))]
    assert store.image_ids() == [part.image_id(image) for part, image in images]
    for place, (part, image) in enumerate(images):
        np.testing.assert_array_equal(store.features(place), part.features(image))
        np.testing.assert_array_equal(store.boxes(place), part.boxes(image))
        assert store.labels(place) == part.labels(image)


def test_two_processes_of_torchrun(photos: Path, tmp_path: Path, extract: Extract, call_program: Any) -> None:
    expected, store = tmp_path / "expected", tmp_path / "store"
    assert extract(photos, "--output", expected, "--grid", 2).status == 0
    run(
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m",
        "xgpt_fairseq.cli.extract_regions", photos, "--output", store, "--grid", "2", "--image-size", "64", "--device",
        "cpu", "--workers", "0",
    )  # fmt: skip
    run(sys.executable, "-m", "xgpt_fairseq.cli.regions", "merge", f"{store}.parts", "--copy", "--output", store)
    assert contents(store) == contents(expected)
    assert unreadable(store) == unreadable(expected)


def test_whole_tars(tmp_path: Path, extract: Extract, call_program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, count in enumerate((6, 2, 3, 1)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for seed in range(count):
                photo = write_photo(tmp_path / "tmp" / f"{number}-{seed}.jpg", 10 * number + seed)
                tar.add(photo, photo.name)
    tars = sorted(tmp_path.glob("*.tar"))
    expected, store = tmp_path / "expected", tmp_path / "store"
    assert extract(*tars, "--output", expected).status == 0
    for shard, files in ((0, 6), (1, 6)):
        done = extract(*tars, "--output", store, "--num-shards", 2, "--shard-id", shard)
        assert f"shard {shard} of 2 (--shard-id): {files} files" in done.stdout
    assert merge(call_program, monkeypatch, f"{store}.parts", "--output", store, "--copy").status == 0
    assert contents(store) == contents(expected)
    error = extract(*tars, "--output", tmp_path / "other", "--num-shards", 6, "--shard-id", 0).error
    assert error == "12 photos, in 4 tars and tables, are too few for 6 shards"


def test_parts_without_a_photo(
    tmp_path: Path, extract: Extract, call_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of YOLO's folders, `labels/1.txt` behind `images/1.jpg`. Other parts have all photos."""
    for name in ("about/1.txt", "about/2.txt", "labels/1.txt", "labels/2.txt", "labels/3.txt", "labels/4.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text("no photo")
    for seed in range(2):
        write_photo(tmp_path / "photos" / "images" / f"{seed}.jpg", seed)
    expected, store = tmp_path / "expected", tmp_path / "store"
    options = [tmp_path / "photos", "--grid", 1, "--output"]
    assert extract(*options, expected).status == 0
    parts = [*options, store, "--num-shards", 4, "--shard-id"]
    for shard in (0, 2, 1):
        assert merge(call_program, monkeypatch, f"{store}.parts", "--output", store).status == 1
        done = extract(*parts, shard)
        assert done.status == 0 and ("none of the 2 files of this shard could be read" in done.stdout) == (shard != 1)
    error = merge(call_program, monkeypatch, f"{store}.parts", "--output", store).error
    assert error == "of 4 parts these are missing: 3"
    strict = extract(*parts, 3, "--strict")
    assert strict.status == 1 and strict.error.startswith("--strict: 2 of 2 files could not be read; ")
    for place in (2, 0):  # a list of something else
        listed = tmp_path / "store.parts" / f"{place}-of-4.unreadable.txt"
        whole = listed.read_text()
        listed.write_text("".join(whole.splitlines(keepends=True)[1:]))
        error = merge(call_program, monkeypatch, f"{store}.parts", "--output", store).error
        assert error == f"of 4 parts these are missing: {'2, 3' if place else '0'}"
        listed.write_text(whole)
    assert merge(call_program, monkeypatch, f"{store}.parts", "--copy", "--output", store).status == 0
    assert contents(store) == contents(expected)
    assert unreadable(store) == unreadable(expected)


@pytest.mark.parametrize("shards", [[], ["--num-shards", 2, "--shard-id", 1]])
@pytest.mark.parametrize("empty", [True, False])
def test_a_photo_that_has_vanished(
    empty: bool, shards: list[object], photos: Path, tmp_path: Path, extract: Extract
) -> None:
    """The list has it, so that the same command fails again; what the message says helps."""
    store = tmp_path / "store"
    options = [photos, "--output", store, "--grid", 1, *shards]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_writer, "JOURNAL_SECONDS", 0)
        patch.setattr(RegionWriter, "add", interrupted_after(2))
        assert extract(*options).status == 130
    (photos / "b" / "31.jpg").unlink()
    error = extract(*options).error
    assert "b/31.jpg was there when photos were looked for, and is gone: put it back, or an empty file, which" in error
    again = f"remove {store}.parts, with all parts" if shards else "pass --overwrite"
    assert error.endswith(f"to look for photos again, {again}")
    if empty:
        (photos / "b" / "31.jpg").touch()
        assert "resuming an interrupted extraction after 2 images" in extract(*options).stdout
    else:
        shutil.rmtree(f"{store}.parts", ignore_errors=True)
        assert extract(*options, *([] if shards else ["--overwrite"])).status == 0


def test_many_parts_and_few_open_files(photos: Path, tmp_path: Path, extract: Extract) -> None:
    """Each part's files are closed behind it: in a process of its own, whose limit is lowered."""
    for shard in range(12):
        options = ["--num-shards", 12, "--shard-id", shard, "--grid", 1, "--image-size", 32]
        assert extract(photos, "--output", tmp_path / "store", *options).status == 0
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
from xgpt_fairseq.cli import regions
regions.main()
"""
    for way in ("--link", "--copy"):
        place = [tmp_path / "store.parts", "--output", tmp_path / way]
        done = subprocess.run([python(), "-c", code, "merge", *place, way], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    linked, copied = (RegionStore(tmp_path / way) for way in ("--link", "--copy"))
    assert linked.image_ids() == copied.image_ids() and len(linked.manifest.shards) == 12
    for row in range(len(linked)):
        np.testing.assert_array_equal(linked.features(row), copied.features(row))
