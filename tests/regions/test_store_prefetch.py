"""What a store asks the system to read ahead: the features and boxes of the images that are named, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.regions.stores import rewrite
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions import store as region_store
from xgpt_fairseq.regions.store import RegionStore

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The rows of the mapped arrays that the system is asked for."""
    rows: list[np.ndarray] = []
    monkeypatch.setattr(region_store, "read_ahead", lambda mapped, first, last: rows.append(mapped[first:last]))
    return rows


def same_memory(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether the arrays are the same views, one by one."""
    return [view.__array_interface__ for view in found] == [view.__array_interface__ for view in expected]


def test_features_and_boxes_of_these_images(store_path: Path, asked: list[np.ndarray]) -> None:
    store = RegionStore(store_path)
    assert len(store.manifest.shards) == 3
    for images in ([], [2], [0, 1, 2, 3], [3, 0]):
        asked.clear()
        store.prefetch(images)
        expected = [view for image in images for view in (store.features(image), store.boxes(image))]
        assert same_memory(asked, expected)


def test_images_one_by_one_are_asked_for_some_at_once(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RegionStore(store_path)
    events: list[Any] = []
    monkeypatch.setattr(store, "prefetch", lambda images: events.append(list(images)))
    for image in store.ahead(iter([3, 1, 2]), at_once=2):
        events.append(image)
    assert events == [[3, 1], 3, 1, [2], 2]


def test_what_cannot_be_read_is_the_same_error(store_path: Path) -> None:
    store = RegionStore(store_path)
    with pytest.raises(IndexError, match="image 4 in a store of 4 images"):
        store.prefetch([0, 4])
    rewrite(store_path, "offsets.npy", np.array([0, 3, 4, 9, 99]))
    with pytest.raises(DataError, match=r"offsets\.npy is damaged: image 3 has the regions 9 to 99"):
        RegionStore(store_path).prefetch([3])
    rewrite(store_path, "offsets.npy", np.array([0, 3, 6, 9, 11]))
    store = RegionStore(store_path)
    store.prefetch([1])
    with pytest.raises(DataError, match="image 1 has regions in two files of features"):
        store.features(1)


def test_a_store_in_memory(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = region_store.map_array
    monkeypatch.setattr(region_store, "map_array", lambda *file: real(*file).copy())
    store = RegionStore(store_path)
    store.prefetch(range(4))
    assert [len(store.features(image)) for image in range(4)] == [3, 1, 5, 2]


def test_twice_costs_no_more_files(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = region_store.map_array

    def counted(*file: Any) -> Any:
        opened.append(file)
        return real(*file)

    monkeypatch.setattr(region_store, "map_array", counted)
    store = RegionStore(store_path)
    for _ in range(2):
        store.prefetch(range(4))
        assert all(store.features(image).any() for image in range(1, 4))
    assert len(opened) == 5  # three of features, boxes, offsets
