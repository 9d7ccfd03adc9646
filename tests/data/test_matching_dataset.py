"""Pairs and their negatives: what they may be, what they depend on, and what is near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.hard_images import mean_features, nearest_images
from xgpt_fairseq.data.matching_dataset import MatchingDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import ALL_OBJECTIVES, Symbols, build_objectives


def dataset_of(tiny_data: Path, split: str = "train", **options: Any) -> MatchingDataset:
    directory = DataDirectory(tiny_data)
    dictionary = directory.vocabulary.dictionary
    common = {"split": split, "pad": dictionary.pad(), "seed": 1, "shuffle": split == "train", **options}
    return MatchingDataset(
        directory.captions(split),
        directory.pairs(split),
        directory.regions,
        build_objectives(["matching"], dictionary),
        **common,
    )


class Captions(list):
    """Token ids as the memory-mapped data set gives them."""

    def __init__(self, texts: list[list[int]]) -> None:
        super().__init__(torch.tensor([*text, 2]) for text in texts)
        self.sizes = np.array([len(text) + 1 for text in texts])


def made_up(texts: list[list[int]], image_rows: list[int], store: Any, **options: Any) -> MatchingDataset:
    matching = ALL_OBJECTIVES["matching"](Symbols(pad=1, eos=2, mask=99, words=(4, 99)))
    objectives = {"matching": matching}
    return MatchingDataset(Captions(texts), np.array(image_rows), store, objectives, split="train", pad=1, **options)


def drawn(dataset: MatchingDataset, epoch: int) -> list[list[tuple[int, int]]]:
    return [dataset[int(index)]["pairs"] for index in dataset.index_codec.pack(epoch, 0, np.arange(len(dataset)))]


def test_the_four_are_the_pair_a_wrong_caption_a_wrong_image_and_a_hard_caption(tiny_data: Path) -> None:
    dataset = dataset_of(tiny_data, hard_pool=2)
    rows = DataDirectory(tiny_data).pairs("train")
    image_of = dict(enumerate(np.asarray(rows).tolist()))
    near = nearest_images(mean_features(dataset.store, dataset.images), 2)
    pools = {row: {int(dataset.images[i]) for i in near[place]} for place, row in enumerate(dataset.images.tolist())}
    seen_hard = set()
    for epoch in range(1, 6):
        for own, wrong_caption, wrong_image, hard in drawn(dataset, epoch):
            row, number = own
            assert image_of[number] == row
            assert wrong_caption[0] == hard[0] == row and wrong_image[1] == number
            assert row not in (image_of[wrong_caption[1]], wrong_image[0], image_of[hard[1]])
            assert image_of[hard[1]] in pools[row]
            seen_hard.add((row, image_of[hard[1]]))
    assert seen_hard == {(row, other) for row, pool in pools.items() for other in pool}


def test_negatives_depend_on_seed_epoch_and_pair_alone(tiny_data: Path) -> None:
    first, again = dataset_of(tiny_data), dataset_of(tiny_data)
    epochs = [drawn(first, epoch) for epoch in (1, 2, 3)]
    assert [drawn(again, epoch) for epoch in (3, 2, 1)] == epochs[::-1]
    assert all(epochs[0] != other for other in (epochs[1], drawn(dataset_of(tiny_data, seed=2), 1)))
    changed = [a != b for a, b in zip(epochs[0], epochs[1], strict=True)]
    assert sum(changed) > 0.9 * len(changed)


def test_a_batch_asks_for_the_first_of_four(tiny_data: Path) -> None:
    dataset = dataset_of(tiny_data)
    samples = [dataset[int(index)] for index in dataset.index_codec.pack(2, 0, np.array([0, 7, 8]))]
    batch = dataset.collater(samples)
    assert batch["objective"] == "matching" and batch["nsentences"] == 12 and batch["target"] is None
    assert batch["choices"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    pairs = [pair for sample in samples for pair in sample["pairs"]]
    net_input = batch["net_input"]
    for place, (row, number) in enumerate(pairs):
        image = int(net_input["image_index"][place])
        stored = dataset.store.features(row)
        assert np.array_equal(net_input["features"][image, : len(stored)].numpy(), stored)
        assert int((~net_input["padding_mask"][image]).sum()) == len(stored)
        tokens = net_input["src_tokens"][place]
        assert tokens[tokens != dataset.pad].tolist() == dataset.captions[number].tolist()
    assert len(net_input["features"]) == len({row for row, _ in pairs})  # an image is read once
    assert dataset.num_tokens(0) == 4 * (dataset.store.region_count(samples[0]["image_row"]) + int(dataset.sizes[0]))
    assert dataset.collater([]) == {}
    in_batch = dataset_of(tiny_data, negatives="in-batch", max_negatives=6)
    assert in_batch.num_tokens(0) == 7 * dataset.num_tokens(0) / 4


def test_what_says_the_same_is_no_negative(tiny_store: Path, tiny_data: Path) -> None:
    store = DataDirectory(tiny_data).regions
    # images 0 and 1 are described alike, by one of their captions
    texts, rows = [[5, 6], [7, 8], [5, 6], [9], [10, 11]], [0, 0, 1, 1, 2]
    dataset = made_up(texts, rows, store, hard_pool=1)
    dataset.hard[:] = [[1], [0], [0]]
    for epoch in range(1, 30):
        for own, wrong_caption, wrong_image, hard in drawn(dataset, epoch):
            said = [texts[number] for number, row in enumerate(rows) if row == own[0]]
            assert texts[wrong_caption[1]] not in said and texts[hard[1]] not in said
            assert texts[own[1]] not in [texts[n] for n, row in enumerate(rows) if row == wrong_image[0]]
    in_batch = made_up(texts, rows, store, negatives="in-batch", max_negatives=9)
    pairs, choices = in_batch._cross([(0, 0), (1, 3), (2, 4)])
    assert (1, 0) not in pairs and len(pairs) == 8
    assert sorted(len([p for p in line if p >= 0]) for line in choices.tolist()) == [2, 2, 3, 3, 3, 3]


def test_where_all_say_the_same_a_negative_is_one_of_them(tiny_data: Path) -> None:
    store = DataDirectory(tiny_data).regions
    dataset = made_up([[5]] * 4, [0, 0, 1, 1], store)
    for own, wrong_caption, wrong_image, hard in drawn(dataset, 1):
        others = {number for number, row in enumerate([0, 0, 1, 1]) if row != own[0]}
        assert {wrong_caption[1], hard[1]} <= others and wrong_image[0] == 1 - own[0]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 5))
def test_in_batch_every_question_is_of_one_caption_or_one_image(rows: list[int], most: int) -> None:
    all_rows = rows if len(set(rows)) > 1 else [*rows, 7]
    texts = [[10 + number] for number in range(len(all_rows))]
    dataset = made_up(texts, all_rows, STORE, negatives="in-batch", max_negatives=most)
    items = [(row, number) for number, row in enumerate(rows)]
    pairs, choices = dataset._cross(items)
    assert len(set(pairs)) == len(pairs) and set(items) <= set(pairs)
    asked = set()
    for line in choices.tolist():
        chosen = [pairs[place] for place in line if place >= 0]
        assert chosen[0] in items and len(chosen) == len(set(chosen)) <= most + 1
        row, number = chosen[0]
        (kind,) = ({"image"} if all(n == number for _, n in chosen) else set()) | (
            {"caption"} if all(r == row for r, _ in chosen) else set()
        )
        # nothing of the same image
        assert all((r if kind == "image" else rows[n]) != row for r, n in chosen[1:])
        asked.add((kind, row, number))
    assert len(asked) == len(choices)
    if len(set(rows)) == len(rows) > 1:
        assert len(asked) == 2 * len(rows) and choices.shape[1] == min(most, len(rows) - 1) + 1


class _Store:
    """Enough of a region store."""

    feature_dim = 3

    def features(self, row: int) -> np.ndarray:
        return np.full((2, 3), row + 1, dtype=np.float16)


STORE: Any = _Store()


def test_a_batch_of_one_item_asks_nothing(tiny_data: Path) -> None:
    dataset = dataset_of(tiny_data, negatives="in-batch")
    batch = dataset.collater([dataset[0]])
    assert batch["choices"].shape == (0, 1) and batch["nsentences"] == 1


def test_negatives_are_no_longer_than_the_model_reads(tiny_data: Path) -> None:
    directory = DataDirectory(tiny_data)
    captions = directory.captions("train")  # kept, with the memory map that sizes are in
    sizes = np.array(captions.sizes)
    limit = int(np.median(sizes))
    dataset = dataset_of(tiny_data, longest=limit)
    for pairs in drawn(dataset, 1):
        assert all(sizes[number] <= limit for _, number in pairs[1:] if number != pairs[0][1])
    with pytest.raises(DataError, match="split 'train' has 0 images with captions that are short enough"):
        dataset_of(tiny_data, longest=1)
