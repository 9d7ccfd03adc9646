"""Training on several stores of the same images: which store an image's regions are taken from."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_caption_dataset import ALL, IC, dataset
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

VIEWS = 2


def shifted(store: Path, path: Path, shift: float, source: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A copy of *store* whose features are larger by *shift*; without the last `less` images, or regions of them."""
    original = RegionStore(store)
    images = len(original) - changes.get("fewer_images", 0)
    with RegionWriter(path, original.feature_dim + changes.get("wider", 0), source=source or {}) as writer:
        for row in range(images):
            features, boxes = original.features(row).astype(np.float32) + shift, original.boxes(row)
            features = np.pad(features, [(0, 0), (0, changes.get("wider", 0))])
            if changes.get("more_regions") and row == 3:
                features, boxes = np.concatenate([features, features]), np.concatenate([boxes, boxes])
            writer.add(original.image_id(row), features, boxes, position=row + 1)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def views(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RegionStore]:
    folder = tmp_path_factory.mktemp("views")
    return [RegionStore(shifted(tiny_store, folder / str(view), 100.0 * view)) for view in range(1, VIEWS + 1)]


def drawn(data: CaptionDataset, items: list[int], epoch: int, objective: int = 0) -> dict[str, int]:
    """Image id → which store its regions came from, by the features, which views have shifted by 100 each."""
    batch = data.collater([data[data.index_codec.pack(epoch, objective, item)] for item in items])
    features = batch["net_input"]["features"].float()
    found = {}
    for i, image_id in enumerate(batch["image_ids"]):
        kept = features[i][~batch["net_input"]["padding_mask"][i]]
        view = round(kept.mean().item() / 100)
        stores = [data.store, *data.views]
        row = stores[view].image_index(image_id)
        np.testing.assert_array_equal(kept.half().numpy(), stores[view].features(row))
        found[image_id] = view
    return found


def test_each_store_is_drawn_as_often_anew_in_each_epoch(tiny_store: Path, views: list[RegionStore]) -> None:
    data = dataset(tiny_store, [5] * 13, list(range(13)), views=views)
    epochs = [drawn(data, list(range(13)), epoch) for epoch in range(1, 91)]
    counts = collections.Counter(view for epoch in epochs for view in epoch.values())
    total = sum(counts.values())
    assert all(abs(counts[view] / total - 1 / 3) < 0.05 for view in range(VIEWS + 1))
    assert len({tuple(epoch.values()) for epoch in epochs}) > 80
    of_seed = drawn(dataset(tiny_store, [5] * 13, list(range(13)), views=views, seed=2), list(range(13)), 1)
    assert of_seed != epochs[0]


def test_the_draw_depends_on_seed_epoch_and_image_alone(tiny_store: Path, views: list[RegionStore]) -> None:
    """Not on the batch, nor on the caption, nor on the objective, whose turns see the same regions."""
    rows = [3, 3, 5, 5, 7, 9]
    data = dataset(tiny_store, [4, 6, 5, 5, 5, 5], rows, ALL, views=views)
    together = drawn(data, [0, 1, 2, 3, 4, 5], 2)
    for objective in range(len(ALL)):
        assert drawn(data, [0, 1, 2, 3, 4, 5], 2, objective) == together
    alone: dict[str, int] = {}
    for item in range(6):
        alone |= drawn(data, [item], 2)
    assert alone == together


@pytest.mark.parametrize("with_views", [True, False])
def test_a_batch_s_regions_are_asked_for_at_once_before_they_are_read(
    with_views: bool, tiny_store: Path, views: list[RegionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tiny_store, [5] * 8, [0, 4, 4, 7, 9, 11, 2, 5], views=views if with_views else [])
    asked: list[tuple[RegionStore, int]] = []
    read: list[tuple[RegionStore, int]] = []
    features = RegionStore.features

    def prefetch(store: RegionStore, rows: Iterable[int]) -> None:
        assert not read
        asked.extend((store, row) for row in rows)

    def seen(store: RegionStore, row: int) -> np.ndarray:
        read.append((store, row))
        return features(store, row)

    monkeypatch.setattr(RegionStore, "prefetch", prefetch)
    monkeypatch.setattr(RegionStore, "features", seen)
    for epoch in (1, 2):
        asked.clear()
        read.clear()
        data.collater([data[data.index_codec.pack(epoch, 0, item)] for item in range(8)])
        assert sorted(row for _, row in read) == [0, 2, 4, 5, 7, 9, 11]
        assert len(asked) == len(read) and {(id(store), row) for store, row in asked} == {
            (id(store), row) for store, row in read
        }


def test_without_views_it_is_the_store(tiny_store: Path) -> None:
    assert set(drawn(dataset(tiny_store, [5] * 4, [1, 2, 3, 4], IC), [0, 1, 2, 3], 1).values()) == {0}


def test_stores_that_do_not_fit_are_refused(
    tiny_data: Path, tiny_store: Path, write_store: Callable[..., Path], tmp_path: Path
) -> None:
    directory = DataDirectory(tiny_data)
    views = directory.views([str(shifted(tiny_store, tmp_path / "fits", 1.0, {"view": 1}))])
    assert [view.source for view in views] == [{"view": 1}]
    for name, changes, message in (
        ("fewer", {"fewer_images": 1}, "other images, or in another order"),
        ("wider", {"wider": 8}, "features of width 24, not 16"),
        ("more", {"more_regions": True}, "image 15 has 8 regions, not 4"),
        ("other", {"source": {"extractor": {"version": 2, "image_size": 64}}}, "made with image_size 64, not None"),
    ):
        path = shifted(tiny_store, tmp_path / name, 0.0, **changes)
        with pytest.raises(DataError, match=f"^--views: {path} does not fit {tiny_store}: .*{message}$"):
            directory.views([str(path)])
    with pytest.raises(DataError, match="none"):
        directory.views([str(tmp_path / "none")])


def test_a_view_is_not_taken_for_the_photos_own_store(tiny_data: Path, tiny_store: Path, tmp_path: Path) -> None:
    view = shifted(tiny_store, tmp_path / "view", 1.0, {"view": 3})
    with pytest.raises(
        DataError, match=f"{view} holds view 3 of the photos, which are cropped or mirrored: name it by"
    ):
        _ = DataDirectory(tiny_data, regions=view).regions
    assert torch.tensor(DataDirectory(tiny_data).regions.features(0)).isfinite().all()
