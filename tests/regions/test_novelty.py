"""Distances from training images, against least squares in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.regions import novelty
from xgpt_fairseq.regions.novelty import NoveltyDetector
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

WIDTH = 64
BASIS = np.random.default_rng(1).normal(size=(4, WIDTH))


def boxes(count: int) -> np.ndarray:
    return np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1))


def image(number: int, *, away: float = 0.0) -> np.ndarray:
    """(n, WIDTH) regions whose mean lies near the span of BASIS, but for *away*."""
    random = np.random.default_rng(number)
    centre = random.normal(size=4) @ BASIS + 0.1 * random.normal(size=WIDTH)
    noise = random.normal(size=(1 + number % 3, WIDTH))
    far = np.random.default_rng(2).normal(size=WIDTH)
    return (centre + noise - noise.mean(axis=0) + away * far).astype(np.float16)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RegionStore:
    path = tmp_path_factory.mktemp("novelty") / "store"
    with RegionWriter(path, WIDTH) as writer:
        for number in range(300):
            features = image(number, away=0.0 if number < 200 else 1.0)
            writer.add(number, features, boxes(len(features)), position=number + 1)
        writer.finish()
    return RegionStore(path)


@pytest.fixture(scope="module")
def detector(store: RegionStore) -> NoveltyDetector:
    found = NoveltyDetector.fit(store, np.arange(200).repeat(3))
    assert found is not None
    return found


def test_the_distance_is_what_least_squares_leaves(store: RegionStore, detector: NoveltyDetector) -> None:
    assert detector.directions.shape == (8, WIDTH)  # an eighth of the width
    basis = detector.directions.astype(np.float64)
    for index in (0, 7, 250):
        centred = store.features(index).astype(np.float64).mean(axis=0) - detector.mean
        explained = basis.T @ np.linalg.lstsq(basis.T, centred, rcond=None)[0]
        expected = np.linalg.norm(centred - explained) / detector.median
        assert detector.distance(store.features(index)) == pytest.approx(expected, rel=1e-4)


def test_the_subspace_is_of_the_training_images_alone(store: RegionStore, detector: NoveltyDetector) -> None:
    """Where they vary, an image far away is not novel; what they never do, is."""
    along = BASIS[0] / np.linalg.norm(BASIS[0])
    middle = store.features(0).astype(np.float32)
    assert detector.distance(middle + 3 * along) < 2 * detector.limit
    assert detector.distance(image(5, away=1.0)) > 3 * detector.limit


def test_limits(store: RegionStore, detector: NoveltyDetector) -> None:
    seen = [detector.distance(store.features(index)) for index in range(200)]
    others = [detector.distance(store.features(index)) for index in range(200, 300)]
    assert 1.05 * max(seen) == pytest.approx(detector.limit)
    assert 1 < detector.group_limit < detector.limit < min(others)
    assert np.median(seen) == pytest.approx(1, abs=0.15)


def test_a_sample_is_read(store: RegionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "IMAGES", 120)
    read: list[int] = []
    features = store.features
    monkeypatch.setattr(store, "features", lambda index: read.append(index) or features(index))
    assert NoveltyDetector.fit(store, np.arange(300)) is not None
    assert len(read) == len(set(read)) == 120 and max(read) > 200


def test_too_few_images(store: RegionStore) -> None:
    assert NoveltyDetector.fit(store, np.arange(199).repeat(5)) is None


def test_images_that_are_all_the_same(tmp_path: Path) -> None:
    with RegionWriter(tmp_path / "same", WIDTH) as writer:
        for number in range(200):
            writer.add(number, np.ones((2, WIDTH), np.float16), boxes(2), position=number + 1)
        writer.finish()
    detector = NoveltyDetector.fit(RegionStore(tmp_path / "same"), np.arange(200))
    assert detector is not None and np.isfinite([detector.limit, detector.group_limit]).all()
    assert detector.distance(np.ones((1, WIDTH))) == 0 and detector.distance(np.zeros((1, WIDTH))) > detector.limit
