"""The region writer: what it refuses, what it keeps, and that a kill at any moment loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io import resumable
from xgpt_fairseq.regions import writer as region_writer
from xgpt_fairseq.regions.append_only_file import AppendOnlyArray, AppendOnlyFile
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

WIDTH = 4
SOURCE = {"format": "test"}


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power failures, and fsync is most of the time of writing a small store."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def regions(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random features (count, WIDTH) float32 and boxes (count, 4) in 0..1."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), axis=1)
    return rng.standard_normal((count, WIDTH), dtype=np.float32), corners.reshape(count, 4)


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def writer(tmp_path: Path) -> Any:
    with RegionWriter(tmp_path / "store", WIDTH, max_regions=5) as writer:
        yield writer


def finished(writer: RegionWriter) -> RegionStore:
    writer.finish()
    return verify(writer.path)


# The file format


def test_plain_numpy_reads_the_arrays(writer: RegionWriter) -> None:
    features, boxes = regions(3)
    writer.add("a", features, boxes, scores=np.array([3.0, 2.0, 1.0]), labels=["x", "ÿ", ""], position=1)
    store = finished(writer)
    np.testing.assert_array_equal(np.load(store.path / "features-00000.npy"), features.astype(np.float16))
    np.testing.assert_array_equal(np.load(store.path / "boxes.npy"), boxes)
    assert np.load(store.path / "ids.npy").tolist() == [b"a"]
    assert np.load(store.path / "offsets.npy").tolist() == [0, 3]
    assert store.labels(0) == ["x", "ÿ", ""]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_features_of_any_float_type_and_memory_order(writer: RegionWriter, dtype: Any, order: Any) -> None:
    features, boxes = regions(3)
    writer.add("a", np.asarray(features, dtype=dtype, order=order), np.asarray(boxes, order=order), position=1)
    store = finished(writer)
    np.testing.assert_array_equal(store.features(0), features.astype(np.float16))
    np.testing.assert_array_equal(store.boxes(0), boxes)


# What add refuses


def replaced(array: np.ndarray, region: int, column: int, value: float) -> np.ndarray:
    result = array.astype(np.float64)
    result[region, column] = value
    return result


FEATURES, BOXES = regions(3)
PIXELS = BOXES * np.array([640, 480, 640, 480], dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((3, 5))}, "image 42: features are 5 wide; the store's, by its first image, 4"),
        ({"features": np.zeros((3, 2, 2))}, r"image 42: features are float64 of shape \(3, 2, 2\)"),
        ({"features": np.zeros((3, 4), dtype=int)}, "image 42: features are int64 of shape"),
        ({"features": np.zeros((0, 4))}, "image 42 has no regions; at least one is needed"),
        ({"features": replaced(FEATURES, 1, 2, np.nan)}, "image 42, region 1: feature 2 is nan; .*must be finite"),
        ({"features": replaced(FEATURES, 2, 3, -np.inf)}, "image 42, region 2: feature 3 is -inf; .*must be finite"),
        ({"features": replaced(FEATURES, 0, 1, 70000)}, "image 42, region 0: feature 1 is 70000; float16.* 65504 at"),
        ({"boxes": BOXES[:2]}, "image 42 has features of 3 regions and boxes of 2"),
        ({"boxes": BOXES[:, :3]}, r"image 42: boxes have the shape \(3, 3\)"),
        ({"boxes": replaced(BOXES, 1, 0, np.nan)}, r"image 42, region 1: box \[nan, .*\] is not finite"),
        (
            {"boxes": [[0, 0, 1, 1], [0, 0, 1, 1], [0.5, 0, 0.4, 1]]},
            r"region 2: box \[0.5, .*\] has x1 > x2 or y1 > y2",
        ),
        (
            {"boxes": [[0, 0, 1, 1], [0, 0.3, 1, 0.2], [0, 0, 1, 1]]},
            r"region 1: box \[0.0, 0.3.*\] has x1 > x2 or y1 > y2",
        ),
        ({"boxes": replaced(BOXES, 1, 2, 1.02)}, r"region 1: box .* lies outside 0..1 by 0.02; 0.005 is allowed"),
        ({"boxes": replaced(BOXES, 0, 1, -0.1)}, r"region 0: box .* lies outside 0..1 by 0.1; 0.005 is allowed"),
        ({"pixel": True}, "image 42: its boxes are in pixels and its size is not known; pass --sizes"),
        (
            {"boxes": replaced(PIXELS, 2, 3, 482.5), "pixel": True, "size": (640, 480)},
            r"image 42, region 2: box .*482.5\] lies outside the image of 640 x 480 pixels by 2.5 pixels; 1 is allowed",
        ),
        ({"size": (0, 480)}, "image 42: its size is 0 x 480 pixels; both must be positive"),
        ({"scores": np.ones(2)}, r"image 42: scores have the shape \(2,\), \(3,\) expected"),
        ({"scores": np.array([1, np.nan, 0])}, "image 42, region 1: score nan is not finite"),
        ({"labels": ["a", "b"]}, "image 42 has 2 labels for 3 regions"),
        ({"labels": ["a", "b\nc", "d"]}, "image 42: a label .* line break"),
        ({"image_id": "  .jpg"}, "image id '  .jpg' is empty"),
        ({"image_id": "a\nb"}, "image id .* line break"),
    ],
)
def test_bad_images_are_refused_by_name(writer: RegionWriter, change: dict[str, Any], message: str) -> None:
    image: dict[str, Any] = {"image_id": "COCO_val2014_42", "features": FEATURES, "boxes": BOXES, "position": 9}
    image |= change
    image["boxes"] = np.asarray(image["boxes"], dtype=np.float64)
    with pytest.raises(DataError, match=message):
        writer.add(**image)
    assert (writer.images, writer.num_regions, writer.position) == (0, 0, 0)
    # and nothing of it is in the store
    writer.add("good", FEATURES, BOXES, position=1)
    store = finished(writer)
    assert store.image_ids() == ["good"]
    np.testing.assert_array_equal(store.features(0), FEATURES.astype(np.float16))


def test_an_image_twice(writer: RegionWriter) -> None:
    writer.add("COCO_val2014_000000000042", FEATURES, BOXES, position=1)
    with pytest.raises(DataError, match=r"image 42 is there more than once \(here as '42\.jpg'\)"):
        writer.add("42.jpg", FEATURES, BOXES, position=2)


@pytest.mark.parametrize("name", ["scores", "labels", "size"])
def test_optional_columns_are_for_all_images_or_none(writer: RegionWriter, name: str) -> None:
    value = {"scores": np.ones(3), "labels": ["a", "b", "c"], "size": (640, 480)}[name]
    writer.add("1", FEATURES, BOXES, position=1)
    with pytest.raises(DataError, match=r"image 2 comes with .*, the images before it without; all of a store or none"):
        writer.add("2", FEATURES, BOXES, position=2, **{name: value})


def test_no_images(writer: RegionWriter) -> None:
    with pytest.raises(DataError, match="no images"):
        writer.finish()


# What add changes


def test_boxes_that_stick_out_a_little_are_clipped(writer: RegionWriter) -> None:
    pixels = np.array([[-1, -0.5, 641, 480.9], [64, 48, 640, 480]])
    writer.add("pixels", FEATURES[:2], pixels, pixel=True, size=(640, 480), position=1)
    normalised = np.array([[-0.005, 0, 1.004, 1], [0.5, 0.5, 0.5, 0.5]])
    writer.add("normalised", FEATURES[:2], normalised, size=(640, 480), position=2)
    store = finished(writer)
    np.testing.assert_allclose(store.boxes(0), [[0, 0, 1, 1], [0.1, 0.1, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(store.boxes(1), [[0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5]])


def test_regions_are_stored_by_confidence(writer: RegionWriter) -> None:
    features, boxes = regions(4)
    writer.add("a", features, boxes, scores=np.array([0.5, 0.9, 0.5, 0.7]), labels=list("abcd"), position=1)
    store = finished(writer)
    order = [1, 3, 0, 2]  # equal ones as they came
    np.testing.assert_array_equal(store.features(0), features.astype(np.float16)[order])
    np.testing.assert_array_equal(store.boxes(0), boxes[order])
    np.testing.assert_allclose(store.scores(0), [0.9, 0.7, 0.5, 0.5])
    assert store.labels(0) == ["b", "d", "a", "c"]
    assert store.manifest.truncated_images == 0


def test_regions_of_equal_confidence_stay_as_they_came(tmp_path: Path) -> None:
    features, boxes = regions(90)
    scores = np.arange(90) % 3
    with RegionWriter(tmp_path / "store", WIDTH) as writer:
        writer.add("a", features, boxes, scores=scores, position=1)
        order = sorted(range(90), key=lambda region: -scores[region])
        np.testing.assert_array_equal(finished(writer).features(0), features.astype(np.float16)[order])


@pytest.mark.parametrize("descending", [False, True])
def test_too_many_regions_with_scores_keep_the_most_confident(writer: RegionWriter, descending: bool) -> None:
    features, boxes = regions(7)
    scores = np.linspace(0, 1, 7)[:: -1 if descending else 1]
    writer.add("a", features, boxes, scores=scores, position=1)
    writer.add("b", features[:5], boxes[:5], scores=scores[:5], position=2)
    store = finished(writer)
    kept = np.argsort(-scores)[:5]
    np.testing.assert_array_equal(store.features(0), features.astype(np.float16)[kept])
    np.testing.assert_allclose(store.scores(0), scores[kept], rtol=1e-6)
    assert store.region_counts().tolist() == [5, 5]
    assert store.manifest.truncated_images == 1


def test_too_many_regions_without_scores_keep_the_first(writer: RegionWriter) -> None:
    features, boxes = regions(6)
    writer.add("a", features, boxes, position=1)
    store = finished(writer)
    np.testing.assert_array_equal(store.features(0), features.astype(np.float16)[:5])
    assert store.manifest.truncated_images == 1


@pytest.mark.parametrize("max_regions", [0, 101])
def test_max_regions_is_1_to_100(tmp_path: Path, max_regions: int) -> None:
    with pytest.raises(DataError, match=f"max_regions is {max_regions}; 1 to 100"):
        RegionWriter(tmp_path / "store", WIDTH, max_regions=max_regions)


# Interruptions

IMAGES = 12
OLD = "what the old store has"


def write(path: Path, *, overwrite: bool = False, **options: Any) -> None:
    """A store of 12 images in several shards, with all columns; the journal is written at every third image."""
    settings: dict[str, Any] = {"shard_bytes": 128 + 2 * WIDTH * 7, "journal_images": 3, "source": SOURCE} | options
    with RegionWriter(path, WIDTH, overwrite=overwrite, **settings) as writer:
        for index in range(writer.position, IMAGES):
            count = 1 + index % 4
            features, boxes = regions(count, seed=index)
            writer.add(
                f"image-{index}",
                features,
                boxes,
                scores=features[:, 0],
                labels=[f"label {index} {region}" * (1 + index) for region in range(count)],
                size=(100 + index, 100),
                position=index + 1,
            )
        writer.finish()


EVENTS = (
    (AppendOnlyFile, "write"),
    (AppendOnlyFile, "sync"),
    (AppendOnlyArray, "finish"),
    (region_writer, "write_json"),
    (region_writer, "sync_folder"),
    (resumable, "write_json"),
    (resumable, "sync_folder"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "mkdir"),
    (shutil, "rmtree"),
)


def at_every_event(act: Callable[[], None]) -> None:
    """Have *act* called before whatever the writer does to its files."""
    for owner, name in EVENTS:
        original = getattr(owner, name)

        def wrapped(*args: Any, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            act()
            return _original(*args, **kwargs)

        setattr(owner, name, wrapped)


def in_child(work: Callable[[], None]) -> int:
    """Run *work* in a forked process; return the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def write_and_die(path: Path, moment: int, overwrite: bool) -> None:
    """Write the store, but be killed before the event number *moment*."""
    left = moment

    def act() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    at_every_event(act)
    write(path, overwrite=overwrite)


# Up to the end, replacing a store is writing a new one.
@pytest.mark.parametrize(("overwrite", "first_moment"), [(False, 0), (True, 120)], ids=["new", "overwrite"])
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, overwrite: bool, first_moment: int) -> None:
    write(tmp_path / "expected")
    expected = files(tmp_path / "expected")
    assert len([name for name in expected if name.startswith("features")]) > 3
    path = tmp_path / "store"
    for moment in range(first_moment, 10_000):
        old = {}
        if overwrite:
            path.mkdir()
            (path / "store.json").write_text(OLD)
            old = files(path)
        killed = in_child(lambda moment=moment: write_and_die(path, moment, overwrite))  # type: ignore[misc]
        if not killed:
            assert files(path) == expected
            break
        # Under the store's name there is a whole store, or none.
        seen = files(path)
        assert seen in ({}, old, expected), f"killed at event {moment}"
        if seen == expected:
            assert verify(path).image_ids()[-1] == f"image-{IMAGES - 1}"
        else:
            write(path, overwrite=overwrite)
        assert files(path) == expected, f"killed at event {moment}"
        shutil.rmtree(path)
        shutil.rmtree(tmp_path / ".store.partial", ignore_errors=True)
    assert moment > 130
    assert not (tmp_path / ".store.partial").exists()


def test_many_kills_of_one_import(tmp_path: Path) -> None:
    write(tmp_path / "expected")
    path = tmp_path / "store"
    kills = 0
    while in_child(lambda: write_and_die(path, 45, False)):
        kills += 1
        assert not path.exists()
    assert kills >= 3
    assert files(path) == files(tmp_path / "expected")


def interrupted(path: Path, images: int = 7, **options: Any) -> None:
    with RegionWriter(path, WIDTH, journal_images=1, **({"source": SOURCE} | options)) as writer:
        for index in range(images):
            writer.add(f"image-{index}", *regions(2, seed=index), position=10 * index + 10)


def test_position_and_counts_are_those_of_the_journal(tmp_path: Path) -> None:
    interrupted(tmp_path / "store", images=7)
    with RegionWriter(tmp_path / "store", WIDTH, source=SOURCE) as writer:
        assert writer.resumed
        assert (writer.position, writer.images, writer.num_regions) == (70, 7, 14)
        with pytest.raises(DataError, match="image image-3 is there more than once"):
            writer.add("image-3", *regions(2), position=80)


def test_what_a_kill_left_behind_does_not_get_into_the_store(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    for name in ("features-00001.npy", ".store.json.77.tmp", "scores.npy"):
        (tmp_path / ".store.partial" / "data" / name).write_bytes(b"old")
    with RegionWriter(tmp_path / "store", WIDTH, source=SOURCE) as writer:
        writer.finish()
    names = {"boxes.npy", "features-00000.npy", "ids.npy", "offsets.npy", "store.json"}
    assert files(tmp_path / "store").keys() == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {"format": "other"}}, "format: test then, other now"),
        ({"max_regions": 50}, "max_regions: 100 then, 50 now"),
        ({"shard_bytes": 1000}, "shard_bytes: 1073741824 then, 1000 now"),
    ],
)
def test_other_options_than_those_of_the_unfinished_import(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    interrupted(tmp_path / "store")
    with pytest.raises(
        DataError, match=rf"\.store\.partial was started with other options \({message}\); pass --overwrite"
    ):
        RegionWriter(tmp_path / "store", WIDTH, **({"source": SOURCE} | options))
    with RegionWriter(tmp_path / "store", WIDTH, overwrite=True, **({"source": SOURCE} | options)) as writer:
        assert not writer.resumed
        assert (writer.position, writer.images) == (0, 0)


def test_an_unfinished_import_that_is_damaged(tmp_path: Path) -> None:
    interrupted(tmp_path / "store")
    os.truncate(tmp_path / ".store.partial" / "data" / "features-00000.npy", 200)
    with pytest.raises(DataError, match=r"features-00000\.npy has 200 bytes, at least 240 expected; pass --overwrite"):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    (tmp_path / ".store.partial" / "journal.json").write_text("{")
    with pytest.raises(DataError, match=r"its journal is unreadable .*pass --overwrite"):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    RegionWriter(tmp_path / "store", WIDTH, source=SOURCE, overwrite=True).close()


def test_an_unfinished_import_of_an_earlier_version(tmp_path: Path) -> None:
    """It is of hours of work: nothing is taken away unasked. Earlier versions wrote to `store`, with a flat journal."""
    old = tmp_path / ".store.partial"
    (old / "store").mkdir(parents=True)
    (old / "store" / "features-00000.npy").write_bytes(b"hours of work")
    (old / "journal.json").write_text('{"version": 1, "options": {}, "images": 7}')
    before = files(old)
    with pytest.raises(
        DataError, match=r"store\.partial was started by an earlier version .* pass --overwrite to start"
    ):
        RegionWriter(tmp_path / "store", WIDTH, source=SOURCE)
    assert files(old) == before
    write(tmp_path / "store", overwrite=True)
    write(tmp_path / "expected")
    assert files(tmp_path / "store") == files(tmp_path / "expected")
    assert not old.exists()


def test_nothing_stays_of_an_import_without_images(tmp_path: Path) -> None:
    with RegionWriter(tmp_path / "store", WIDTH):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_store(tmp_path: Path) -> None:
    with (
        RegionWriter(tmp_path / "store", WIDTH),
        pytest.raises(DataError, match=r"another import is writing .*store"),
    ):
        RegionWriter(tmp_path / "store", WIDTH)


def test_a_store_is_not_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path / "store")
    before = files(tmp_path / "store")
    with pytest.raises(DataError, match=r"store exists; pass --overwrite to replace it"):
        write(tmp_path / "store")
    with RegionWriter(tmp_path / "store", WIDTH, overwrite=True) as writer:
        writer.add("new", *regions(1), position=1)
        assert files(tmp_path / "store") == before  # until the new one is whole
        writer.finish()
    assert RegionStore(tmp_path / "store").image_ids() == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"dog")
    with pytest.raises(DataError, match=r"photos is not a region store .*it is not replaced"):
        RegionWriter(tmp_path / "photos", WIDTH, overwrite=True)
    assert (tmp_path / "photos" / "dog.jpg").exists()


def test_the_manifest_says_how_the_store_was_made(tmp_path: Path) -> None:
    write(tmp_path / "store")
    manifest = json.loads((tmp_path / "store" / "store.json").read_text())
    assert manifest["version"] == 1
    assert manifest["source"] == SOURCE
    assert [shard["first_row"] for shard in manifest["shards"]] == [
        sum(shard["rows"] for shard in manifest["shards"][:index]) for index in range(len(manifest["shards"]))
    ]
