"""The region writer: what it refuses, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.verify import verify
from xgpt_fairseq.regions.writer import RegionWriter

WIDTH = 4

pytestmark = pytest.mark.usefixtures("no_fsync")


def regions(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random features (count, WIDTH) float32 and boxes (count, 4) in 0..1."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), axis=1)
    return rng.standard_normal((count, WIDTH), dtype=np.float32), corners.reshape(count, 4)


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
        ({"features": replaced(FEATURES, 0, 1, 70000)}, "image 42, region 0: feature 1 is 70000; .*float16.* 65504"),
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
        ({"size": (0, 480)}, "image 42: its size is 0 x 480 pixels; 1 to 2147483647 are possible"),
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
    with pytest.raises(DataError, match=r"image 42 occurs more than once \(here as '42\.jpg'\)"):
        writer.add("42.jpg", FEATURES, BOXES, position=2)


@pytest.mark.parametrize("name", ["scores", "labels", "size"])
def test_optional_columns_are_for_all_images_or_none(writer: RegionWriter, name: str) -> None:
    value = {"scores": np.ones(3), "labels": ["a", "b", "c"], "size": (640, 480)}[name]
    writer.add("1", FEATURES, BOXES, position=1)
    with pytest.raises(DataError, match=r"image 2 comes with .*, the images before it without; all images must agree"):
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


@pytest.mark.parametrize("max_regions", [0, 1025])
def test_max_regions_has_bounds(tmp_path: Path, max_regions: int) -> None:
    with pytest.raises(DataError, match=f"max_regions is {max_regions}; 1 to 1024"):
        RegionWriter(tmp_path / "store", WIDTH, max_regions=max_regions)
