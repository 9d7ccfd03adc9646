"""Mean and spread of a store's features against numpy's, over the sample that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.regions.statistics import feature_statistics
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

WIDTH = 6


def write(path: Path, images: list[np.ndarray]) -> RegionStore:
    """A store of the given features, (n, WIDTH) an image, in several shards."""
    with RegionWriter(path, WIDTH, shard_bytes=1000) as writer:
        for number, features in enumerate(images, start=1):
            boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (len(features), 1))
            writer.add(number, features, boxes, position=number)
        writer.finish()
    return RegionStore(path)


def draw(count: int, seed: int = 0) -> list[np.ndarray]:
    """Features of different means and spreads, 1 to 9 regions an image."""
    rng = np.random.default_rng(seed)
    means, spreads = rng.normal(size=WIDTH), rng.uniform(0.1, 3, WIDTH)
    return [(means + spreads * rng.normal(size=(1 + n % 9, WIDTH))).astype(np.float32) for n in range(count)]


def check(store: RegionStore, rows: list[int], **limits: int) -> None:
    expected = np.concatenate([store.features(row) for row in rows]).astype(np.float64)
    mean, deviation = feature_statistics(store, **limits)
    assert mean.dtype == deviation.dtype == np.float32 and mean.shape == deviation.shape == (WIDTH,)
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(deviation, expected.std(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 37])
def test_a_small_store_is_read_whole(tmp_path: Path, count: int) -> None:
    check(write(tmp_path / "store", draw(count)), list(range(count)))


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        ({"images": 5}, [0, 9, 18, 27, 36]),
        ({"images": 1}, [0]),
        ({"regions": 20}, [0, 12, 24, 36]),  # 4.9 an image
        ({"regions": 1}, [0]),
        ({"images": 2, "regions": 20}, [0, 36]),
    ],
    ids=str,
)
def test_of_a_large_store_images_that_lie_evenly_over_it(
    tmp_path: Path, limits: dict[str, int], rows: list[int]
) -> None:
    check(write(tmp_path / "store", draw(37)), rows, **limits)


def test_nothing_but_the_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write(tmp_path / "store", draw(1200))
    read: list[int] = []
    features = RegionStore.features
    monkeypatch.setattr(RegionStore, "features", lambda self, row: read.append(row) or features(self, row))
    feature_statistics(store)
    assert len(read) == len(set(read)) == 1000


def test_a_small_spread_far_from_zero(tmp_path: Path) -> None:
    """Squares of such values leave nothing of their spread in float32."""
    rng = np.random.default_rng(1)
    images = [(2048 + 2 * rng.integers(0, 2, (50, WIDTH))).astype(np.float32) for _ in range(20)]
    check(write(tmp_path / "store", images), list(range(20)))


def test_the_largest_float16_and_dimensions_without_spread(tmp_path: Path) -> None:
    images = [np.tile(np.array([65504, -65504, 65504, 0, 7, 0.1], np.float32), (4, 1)) for _ in range(3)]
    images[1][:, 0] *= -1
    store = write(tmp_path / "store", images)
    check(store, [0, 1, 2])
    assert feature_statistics(store)[1][1:].tolist() == [0.0] * 5
