"""Training without some of each image's regions: which ones, and how many."""

from __future__ import annotations

import collections
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_caption_dataset import ALL, CAPTIONS, IC, dataset
from tests.data.test_views import shifted
from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.regions.store import RegionStore

RATES = st.sampled_from([0.05, 0.2, 0.4, 0.5, 0.9, 0.99])


def expected_count(regions: int, rate: float) -> int:
    """Regions that stay, in exact numbers: the dropped ones are rounded, but one stays."""
    return max(1, regions - round(Fraction(regions) * Fraction(str(rate))))


def seen(data: CaptionDataset, items: list[int], epoch: int, objective: int = 0) -> dict[str, list[int]]:
    """Image id → which of its regions a batch holds, by their boxes, which must come with their own features."""
    batch = data.collater([data[data.index_codec.pack(epoch, objective, item)] for item in items])
    inputs = batch["net_input"]
    found = {}
    for i, image_id in enumerate(batch["image_ids"]):
        real = ~inputs["padding_mask"][i].numpy()
        row = data.store.image_index(image_id)
        features, boxes = data.store.features(row), data.store.boxes(row)
        numbers = []
        for feature, box in zip(inputs["features"][i].numpy()[real], inputs["boxes"][i].numpy()[real], strict=True):
            (number,) = [n for n in range(len(boxes)) if (boxes[n] == box).all() and (features[n] == feature).all()]
            numbers.append(number)
        found[image_id] = numbers
    return found


@given(CAPTIONS, RATES, st.integers(1, 5))
def test_so_many_regions_stay_each_once_and_in_order(
    tiny_store: Path, captions: list[tuple[int, int]], rate: float, epoch: int
) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, region_dropout=rate)
    for image_id, numbers in seen(data, list(range(len(rows))), epoch).items():
        assert numbers == sorted(set(numbers))
        regions = data.store.region_count(data.store.image_index(image_id))
        assert len(numbers) == expected_count(regions, rate)


def test_the_draw_depends_on_seed_epoch_and_image_alone(tiny_store: Path) -> None:
    rows = [3, 3, 5, 5, 7, 9]
    data = dataset(tiny_store, [4, 6, 5, 5, 5, 5], rows, ALL, region_dropout=0.5)
    together = seen(data, [0, 1, 2, 3, 4, 5], 2)
    for objective in range(len(ALL)):
        assert seen(data, [0, 1, 2, 3, 4, 5], 2, objective) == together
    alone: dict[str, list[int]] = {}
    for item in range(6):
        alone |= seen(data, [item], 2)
    assert alone == together
    assert seen(data, [0, 1, 2, 3, 4, 5], 3) != together
    assert seen(dataset(tiny_store, [5] * 6, rows, region_dropout=0.5, seed=2), [0, 1, 2, 3, 4, 5], 2) != together


def test_each_region_is_left_out_as_often(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5] * 13, list(range(13)), region_dropout=0.5)
    counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for epoch in range(1, 201):
        for image_id, numbers in seen(data, list(range(13)), epoch).items():
            counts[image_id].update(numbers)
    for image_id, count in counts.items():
        regions = data.store.region_count(data.store.image_index(image_id))
        share = expected_count(regions, 0.5) / regions
        assert all(abs(count[number] / 200 - share) < 0.15 for number in range(regions)), image_id


def test_of_the_store_that_views_draw(tiny_store: Path, tmp_path: Path) -> None:
    view = RegionStore(shifted(tiny_store, tmp_path / "view", 100.0))
    data = dataset(tiny_store, [5] * 13, list(range(13)), views=[view], region_dropout=0.5)
    both: collections.Counter[bool] = collections.Counter()
    for epoch in range(1, 41):
        batch = data.collater([data[data.index_codec.pack(epoch, 0, item)] for item in range(13)])
        real = ~batch["net_input"]["padding_mask"]
        assert real.sum(1).tolist() == [expected_count(n, 0.5) for n in data.store.region_counts().tolist()]
        for features, kept in zip(batch["net_input"]["features"], real, strict=True):
            large = {bool(feature.float().mean() > 50) for feature in features[kept]}
            assert len(large) == 1  # all regions of an image are from one store
            both.update(large)
    assert abs(both[True] / both.total() - 0.5) < 0.1


@given(CAPTIONS, RATES)
def test_positions_are_counted_as_they_are_seen(tiny_store: Path, captions: list[tuple[int, int]], rate: float) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, captions_per_image=5, region_dropout=rate)
    counts = data.store.region_counts(np.array(rows))
    expected = [
        expected_count(int(counts[data.order[item]]), rate) + lengths[data.order[item]] for item in range(len(data))
    ]
    assert data.num_tokens_vec(np.arange(len(data))).tolist() == expected
    for batch in data.batch_by_size(data.ordered_indices(), max_tokens=40):
        of_batch = data.collater([data[int(index)] for index in batch])
        features, target = of_batch["net_input"]["features"], of_batch["target"]
        assert features.shape[0] * features.shape[1] + target.numel() <= 40


@pytest.mark.parametrize("options", [{}, {"region_dropout": 0.0}])
def test_by_default_all_stay(tiny_store: Path, options: dict[str, Any]) -> None:
    data = dataset(tiny_store, [5] * 4, [1, 2, 3, 4], IC, **options)
    for image_id, numbers in seen(data, [0, 1, 2, 3], 1).items():
        assert numbers == list(range(data.store.region_count(data.store.image_index(image_id))))
