"""The order of a caption data set's items, and its batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_caption_dataset import CAPTIONS, IC, PAD, dataset, made_up, pieces_of
from tests.thorough import examples
from xgpt_fairseq.data.caption_dataset import CaptionDataset, region_classes
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore


@given(CAPTIONS, st.integers(0, 5))
def test_order(tiny_store: Path, captions: list[tuple[int, int]], per_image: int) -> None:
    """Up to --captions-per-image captions of an image lie side by side, by their number and the longest of them."""
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, captions_per_image=per_image)
    np.random.seed(3)  # noqa: NPY002
    indices = data.ordered_indices().tolist()
    assert sorted(indices) == list(range(len(data)))
    numbers = [number for i in indices for number in data[i]["numbers"]]
    pieces = {piece[0]: piece for piece in pieces_of(rows, per_image)}
    keys = []
    while numbers:
        piece = pieces.pop(numbers[0])
        assert numbers[: len(piece)] == piece
        numbers = numbers[len(piece) :]
        keys.append((len(piece), max(lengths[number] for number in piece)))
    assert not pieces and keys == sorted(keys)
    np.random.seed(3)  # noqa: NPY002
    assert data.ordered_indices().tolist() == indices


def test_the_order_of_pairs_is_that_of_a_permutation(tiny_store: Path) -> None:
    """With a caption an image, the order of an epoch is what it was before several could lie side by side."""
    data = dataset(tiny_store, [5, 3, 4, 3, 5, 3, 4, 4], [3, 5, 3, 2, 1, 5, 0, 3])
    np.random.seed(7)  # noqa: NPY002
    order = np.random.permutation(8)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    assert data.ordered_indices().tolist() == sorted(order.tolist(), key=lambda item: data.sizes[item])


def test_items_of_one_length_come_in_any_order(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5] * 40 + [3] * 40, [i % 13 for i in range(80)])
    orders = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        orders.append(data.ordered_indices().tolist())
    assert orders[0] != orders[1]
    for order in orders:
        assert data.sizes[order].tolist() == [3] * 40 + [5] * 40
        assert order[:40] != sorted(order[:40])


# Classes of like numbers of regions


@given(st.lists(st.integers(1, 100), min_size=1, max_size=200), st.integers(0, 10**6))
def test_a_class_has_neighbouring_numbers_of_regions(regions: list[int], captions: int) -> None:
    classes = region_classes(np.array(regions), captions).tolist()
    for number, own in zip(regions, classes, strict=True):
        for other, another in zip(regions, classes, strict=True):
            assert own <= another if number <= other else own >= another
    assert len(set(classes)) <= min(16, max(1, (captions / 2000) ** 0.5 + 0.5))


@pytest.mark.parametrize(("captions", "classes"), [(0, 1), (4_000, 1), (5_000, 2), (32_000, 4), (10**7, 16)])
def test_classes_are_about_equally_large(captions: int, classes: int) -> None:
    regions = np.random.default_rng(1).integers(10, 101, 10_000)
    sizes = np.bincount(region_classes(regions, captions))
    assert len(sizes) == classes
    assert 0.75 * 10_000 / classes < sizes.min() <= sizes.max() < 1.25 * 10_000 / classes


class Counts:
    """Of a store, the images' numbers of regions."""

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts

    def region_counts(self, rows: np.ndarray) -> np.ndarray:
        return self.counts[rows]


@pytest.mark.parametrize("per_image", [1, 5])
def test_batches_have_images_of_like_numbers_of_regions(per_image: int) -> None:
    """Against batches by length alone: less than a third of their padded regions, and less padding in all."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.poisson(9, 20_000) + 5, 6, 40)
    captions = made_up([1] * len(lengths))
    rows, store = np.arange(20_000) // 5, Counts(rng.integers(10, 37, 4_000))
    data = CaptionDataset(captions, rows, store, IC, split="train", pad=PAD, captions_per_image=per_image)  # type: ignore[arg-type]
    data.sizes = lengths  # of items, which are captions in order

    def padding(ordered: np.ndarray) -> tuple[int, int]:
        regions = texts = 0
        for batch in data.batch_by_size(ordered, None, 64):
            counts = store.region_counts(np.unique(data.item_rows[batch]))
            regions += len(counts) * counts.max() - counts.sum()
            texts += len(batch) * lengths[batch].max() - lengths[batch].sum()
        return regions, texts

    np.random.seed(1)  # noqa: NPY002
    grouped = padding(data.ordered_indices())
    data.store = Counts(np.full(4_000, 10))  # type: ignore[assignment]
    by_length = padding(data.ordered_indices())
    assert grouped[0] < by_length[0] / 3
    assert sum(grouped) < sum(by_length) * (0.35 if per_image == 1 else 0.8)


def test_a_window_of_neighbours_is_divided_by_its_own_size(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(regions: np.ndarray, captions: int) -> np.ndarray:
        asked.append(captions)
        return region_classes(regions, captions)

    monkeypatch.setattr("xgpt_fairseq.data.caption_dataset.region_classes", watched)
    for locality in (0, 1, 5, 13, 20):
        dataset(tiny_store, [5] * 260, list(range(13)) * 20, locality=locality).ordered_indices()
    assert asked == [260, 20, 100, 260, 260]


@examples(25)
@given(CAPTIONS, st.integers(1, 15), st.integers(0, 9))
def test_windows_hold_neighbours_of_the_store(
    tiny_store: Path, captions: list[tuple[int, int]], locality: int, seed: int
) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, locality=locality, captions_per_image=2)
    ordered = data.ordered_indices()
    windows = data.windows(ordered, np.random.default_rng(seed))
    images = sorted(set(rows))
    covered: list[int] = []
    for window in windows:
        places = [images.index(data.item_rows[item]) for item in window]
        assert max(places) - min(places) < locality
        covered += sorted(set(places))
        kept = [item for item in ordered.tolist() if item in set(window.tolist())]
        assert window.tolist() == kept  # like lengths stay side by side
    assert sorted(covered) == list(range(len(images)))  # no image in two windows
    assert sorted(item for window in windows for item in window.tolist()) == list(range(len(data)))


def test_windows_move_and_change_places(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5] * 13, list(range(13)), locality=4)
    ordered = data.ordered_indices()
    cuts = [[sorted(w.tolist()) for w in data.windows(ordered, np.random.default_rng(seed))] for seed in range(8)]
    assert len({tuple(sorted(map(tuple, cut))) for cut in cuts}) > 1  # bounds
    assert any(cut != sorted(cut) for cut in cuts)  # order
    assert cuts[0] == [sorted(w.tolist()) for w in data.windows(ordered, np.random.default_rng(0))]


def test_without_locality_there_is_one_window(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5] * 13, list(range(13)))
    (window,) = data.windows(np.array([3, 1, 2]), np.random.default_rng(1))
    assert window.tolist() == [3, 1, 2]
    (window,) = dataset(tiny_store, [5] * 13, list(range(13)), locality=2).windows(np.array([3, 1, 2]), None)
    assert window.tolist() == [3, 1, 2]  # validation keeps its order


def test_without_shuffling_the_order_is_the_files(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5, 2, 9, 3], [4, 4, 1, 0], shuffle=False)
    assert data.ordered_indices().tolist() == [0, 1, 2, 3]
    assert data.ordered_indices().dtype == np.int64


@given(CAPTIONS, st.integers(2, 9), st.integers(0, 3))
def test_filter_by_size(tiny_store: Path, captions: list[tuple[int, int]], limit: int, per_image: int) -> None:
    data = dataset(tiny_store, [length for _, length in captions], [row for row, _ in captions],
                   captions_per_image=per_image)  # fmt: skip
    indices = data.ordered_indices()
    fits = [i for i in indices.tolist() if all(len(tokens) <= limit for tokens in data[i]["captions"])]
    # the model's limits are (regions, tokens); fairseq passes a number where there is one limit
    for limits in [(100_000, limit), [7, limit], limit]:
        kept, left_out = data.filter_indices_by_size(indices, limits)
        assert kept.tolist() == fits
        assert sorted(kept.tolist() + left_out) == sorted(indices.tolist())


@examples(25)
@given(CAPTIONS, st.integers(0, 3))
def test_num_tokens(tiny_store: Path, captions: list[tuple[int, int]], per_image: int) -> None:
    data = dataset(tiny_store, [length for _, length in captions], [row for row, _ in captions],
                   captions_per_image=per_image)  # fmt: skip
    expected = []
    for index in range(len(data)):
        item = data[index]
        padded = len(item["captions"]) * max(len(tokens) for tokens in item["captions"])
        expected.append(data.store.region_count(item["image_row"]) + padded)
    assert [data.num_tokens(index) for index in range(len(data))] == expected
    assert data.num_tokens_vec(np.arange(len(data))).tolist() == expected


@examples(25)
@given(
    CAPTIONS,
    st.integers(0, 5),
    st.one_of(st.none(), st.integers(1, 12)),
    st.one_of(st.none(), st.integers(100, 300)),
    st.integers(1, 9),
)
def test_every_item_is_in_one_batch(
    tiny_store: Path,
    captions: list[tuple[int, int]],
    per_image: int,
    max_sentences: int | None,
    max_tokens: int | None,
    multiple: int,
) -> None:
    data = dataset(tiny_store, [length for _, length in captions], [row for row, _ in captions],
                   captions_per_image=per_image)  # fmt: skip
    ordered = data.ordered_indices()
    batches = data.batch_by_size(ordered, max_tokens, max_sentences, multiple)
    assert [int(i) for batch in batches for i in batch] == ordered.tolist()
    for batch in batches:
        assert len(batch) > 0
        assert max_sentences is None or len(batch) <= max_sentences
        if max_tokens is not None and per_image > 1:
            assert positions(data, batch) <= max_tokens
        elif max_tokens is not None:
            # fairseq's measure: as if all items of a batch were as large as the largest
            assert len(batch) * max(data.num_tokens(i) for i in batch) <= max_tokens


def positions(data: CaptionDataset, batch: Any) -> int:
    """What a batch of captions takes as it is padded, an image once for its captions that lie side by side."""
    rows = [data.item_rows[i] for i in batch]
    images = sum(row != before for row, before in zip(rows, [None, *rows[:-1]], strict=True))
    return images * max(map(data.store.region_count, rows)) + len(rows) * max(data.sizes[i] for i in batch)


@examples(25)
@given(CAPTIONS, st.integers(1, 7), st.integers(1, 12), st.sampled_from([1, 4, 8]), st.sampled_from([None, 10_000]))
def test_batches_hold_exactly_the_captions_that_were_asked_for(
    tiny_store: Path, captions: list[tuple[int, int]], per_image: int, size: int, multiple: int, max_tokens: int | None
) -> None:
    rows = [row for row, _ in captions]
    data = dataset(tiny_store, [length for _, length in captions], rows, captions_per_image=per_image)
    batches = data.batch_by_size(data.ordered_indices(), max_tokens, size, multiple)
    collated = [data.collater([data[int(i)] for i in batch]) for batch in batches]
    assert [batch["nsentences"] for batch in collated[:-1]] == [size] * (len(batches) - 1)
    assert sum(batch["nsentences"] for batch in collated) == len(captions)
    # an image is read once for a piece of its captions, and once more for each batch that a piece goes on in
    read = sum(batch["net_input"]["features"].size(0) for batch in collated)
    assert read <= len(pieces_of(rows, per_image)) + len(batches) - 1


def test_64_captions_of_5_an_image(tiny_store: Path) -> None:
    """A batch of 64 has 13 or 14 times five captions or less of an image; an image at a cut is in two batches."""
    store = RegionStore(tiny_store)
    rows = np.repeat(np.arange(13), 50)
    data = CaptionDataset(made_up([4] * 650), rows, store, IC, split="train", pad=PAD, captions_per_image=5)
    batches = data.batch_by_size(data.ordered_indices(), None, 64, 8)
    assert [len(batch) for batch in batches] == [64] * 10 + [10]
    pieces = [{int(i) // 5 for i in batch} for batch in batches]  # an item is a caption, in the images' order
    assert [len(piece) for piece in pieces] == [13, 14, 14, 14, 13, 13, 14, 14, 14, 13, 2]
    in_two = [len(batch & after) for batch, after in itertools.pairwise(pieces)]
    assert in_two == [1, 1, 1, 1, 0, 1, 1, 1, 1, 0]


@examples(25)
@given(CAPTIONS, st.integers(2, 5), st.integers(16, 60), st.one_of(st.none(), st.integers(1, 12)))
def test_with_max_tokens_a_batch_takes_what_goes_in(
    tiny_store: Path, captions: list[tuple[int, int]], per_image: int, max_tokens: int, size: int | None
) -> None:
    data = dataset(tiny_store, [length for _, length in captions], [row for row, _ in captions],
                   captions_per_image=per_image)  # fmt: skip
    batches = data.batch_by_size(data.ordered_indices(), max_tokens, size)
    for batch, after in itertools.pairwise(batches):
        assert positions(data, batch) <= max_tokens
        assert len(batch) == size or positions(data, [*batch, after[0]]) > max_tokens


def test_a_caption_that_max_tokens_leaves_no_room_for(tiny_store: Path) -> None:
    data = dataset(tiny_store, [4, 9, 4], [1, 1, 2], captions_per_image=2)
    image, regions = data.store.image_id(1), data.store.region_count(1)
    message = f"--max-tokens 10: image {image} has {regions} regions and a caption of 9 tokens, which is more"
    with pytest.raises(DataError, match=message):
        data.batch_by_size(data.ordered_indices(), 10)
