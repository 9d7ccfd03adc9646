"""Items and batches of captions, against plain loops over the same captions and regions."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from tests.thorough import examples
from xgpt_fairseq.data.caption_dataset import CaptionDataset, group_captions, load_regions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.objective_dataset import batches_of, pad_right
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols
from xgpt_fairseq.regions.store import RegionStore

PAD, EOS = 1, 2
SYMBOLS = Symbols(pad=PAD, eos=EOS, mask=20_000, words=(4, 20_000))
ALL = {name: PRETRAINING_OBJECTIVES[name](SYMBOLS) for name in ("ic", "imlm", "ida", "tifg")}
IC = {"ic": ALL["ic"]}


class Captions(list[Tensor]):
    """Token ids with `.sizes`, as fairseq's indexed datasets have them."""

    @property
    def sizes(self) -> np.ndarray:
        return np.array([len(tokens) for tokens in self], dtype=np.int32)


def made_up(lengths: list[int]) -> Captions:
    """Captions of these lengths, end of sentence included, no two tokens alike."""
    numbers = iter(range(10, 10_000))
    return Captions(torch.tensor([*(next(numbers) for _ in range(n - 1)), EOS]) for n in lengths)


def dataset(store: Path, lengths: list[int], rows: list[int], objectives: Any = IC, **options: Any) -> CaptionDataset:
    captions = made_up(lengths)
    return CaptionDataset(
        captions, np.array(rows), RegionStore(store), objectives, split="train", pad=PAD, **options
    )  # fmt: skip


# (row in the store, length) of every caption: images in any order, of 1 to 6 captions
CAPTIONS = st.lists(st.tuples(st.integers(0, 12), st.integers(2, 9)), min_size=1, max_size=30)


# Grouping


def pieces_of(rows: list[int], captions_per_image: int) -> list[list[int]]:
    """The captions of each image, cut into pieces of so many (0: not cut)."""
    of_image: dict[int, list[int]] = {}
    for caption, row in enumerate(rows):
        of_image.setdefault(row, []).append(caption)
    pieces = []
    for captions in of_image.values():
        step = captions_per_image or len(captions)
        pieces += [captions[start : start + step] for start in range(0, len(captions), step)]
    return pieces


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 7))
def test_group_captions_against_a_loop(rows: list[int], captions_per_image: int) -> None:
    expected = pieces_of(rows, captions_per_image)
    order, first, count = group_captions(np.array(rows, dtype=np.int32), captions_per_image)
    assert [order[f : f + c].tolist() for f, c in zip(first, count, strict=True)] == expected


@given(CAPTIONS, st.integers(0, 7))
def test_every_caption_is_in_one_item(tiny_store: Path, captions: list[tuple[int, int]], per_image: int) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, captions_per_image=per_image)
    seen = []
    for index in range(len(data)):
        item = data[index]
        assert item["id"] == index
        assert per_image == 0 or len(item["captions"]) == 1
        assert data.sizes[index] == data.size(index) == max(len(tokens) for tokens in item["captions"])
        seen += [(item["image_row"], tuple(tokens.tolist())) for tokens in item["captions"]]
    expected = [(row, tuple(tokens.tolist())) for row, tokens in zip(rows, data.captions, strict=True)]
    assert sorted(seen) == sorted(expected)


@given(CAPTIONS)
def test_for_generation_an_image_comes_once_with_its_first_caption(
    tiny_store: Path, captions: list[tuple[int, int]]
) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, first_caption_only=True, shuffle=False)
    images = list(dict.fromkeys(rows))
    assert [data[i]["image_row"] for i in range(len(data))] == images
    for index, row in enumerate(images):
        (tokens,) = data[index]["captions"]
        assert torch.equal(tokens, data.captions[rows.index(row)])
        assert data.sizes[index] == len(tokens)


# The collater


@given(st.lists(st.lists(st.integers(10, 99), min_size=1, max_size=6), min_size=1, max_size=6))
def test_pad_right(captions: list[list[int]]) -> None:
    padded = pad_right([np.array(tokens) for tokens in captions], PAD)
    longest = max(map(len, captions))
    assert padded.tolist() == [tokens + [PAD] * (longest - len(tokens)) for tokens in captions]
    assert padded.dtype == torch.int64


@examples(25)
@given(CAPTIONS, st.integers(0, 5), st.data())
def test_collater_against_a_loop(
    tiny_store: Path, captions: list[tuple[int, int]], per_image: int, draw: st.DataObject
) -> None:
    rows, lengths = [row for row, _ in captions], [length for _, length in captions]
    data = dataset(tiny_store, lengths, rows, captions_per_image=per_image)
    chosen = draw.draw(st.lists(st.sampled_from(range(len(data))), min_size=1, unique=True))
    items = [data[index] for index in chosen]
    batch = data.collater(items)

    # the plain way: image by image in the order of the store, each with its captions in the order of the items
    images = sorted({item["image_row"] for item in items})
    by_image = {row: [item for item in items if item["image_row"] == row] for row in images}
    flat = [(row, tokens.tolist()) for row in images for item in by_image[row] for tokens in item["captions"]]
    longest = max(len(tokens) for _, tokens in flat)
    regions = max(data.store.region_count(row) for row in images)

    assert batch["id"].tolist() == [item["id"] for row in images for item in by_image[row]]
    assert batch["image_ids"] == [data.store.image_id(row) for row in images]
    assert (batch["objective"], batch["split"]) == ("ic", "train")
    assert batch["nsentences"] == len(flat)
    assert batch["ntokens"] == sum(len(tokens) for _, tokens in flat)
    assert batch["target"].tolist() == [tokens + [PAD] * (longest - len(tokens)) for _, tokens in flat]
    expected = [i * longest + t for i, (_, tokens) in enumerate(flat) for t in range(len(tokens))]
    assert batch["target_index"].tolist() == expected

    inputs = batch["net_input"]
    assert set(inputs) == {"features", "boxes", "padding_mask", "padded", "prev_output_tokens", "image_index"}
    assert inputs["padded"] is any(data.store.region_count(row) < regions for row in images)
    previous = [[EOS, *tokens[:-1]] + [PAD] * (longest - len(tokens)) for _, tokens in flat]
    assert inputs["prev_output_tokens"].tolist() == previous
    numbers = [images.index(row) for row, _ in flat]
    assert batch["image_index"].tolist() == numbers
    if len(set(collections.Counter(numbers).values())) == 1:
        assert inputs["image_index"] is None
    else:
        assert inputs["image_index"].tolist() == numbers
    assert inputs["features"].dtype == torch.float16
    assert inputs["boxes"].dtype == torch.float32
    assert inputs["features"].shape == (len(images), regions, data.store.feature_dim)
    assert inputs["boxes"].shape == (len(images), regions, 4)
    for i, row in enumerate(images):
        count = data.store.region_count(row)
        assert inputs["features"][i, :count].numpy().tobytes() == data.store.features(row).tobytes()
        assert inputs["boxes"][i, :count].numpy().tobytes() == data.store.boxes(row).tobytes()
        assert not inputs["features"][i, count:].any()
        assert not inputs["boxes"][i, count:].any()
        assert inputs["padding_mask"][i].tolist() == [False] * count + [True] * (regions - count)


def test_empty_batch(tiny_store: Path) -> None:
    assert dataset(tiny_store, [3], [0]).collater([]) == {}


def test_a_shared_image_is_read_once(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(tiny_store, [4] * 7, [3, 5, 3, 3, 5, 3, 2])
    read = []
    features = data.store.features
    monkeypatch.setattr(data.store, "features", lambda row: read.append(row) or features(row))
    items = [data[index] for index in range(7)]
    assert read == []  # not by the items
    batch = data.collater(items)
    assert sorted(read) == [2, 3, 5]
    assert batch["nsentences"] == 7
    assert batch["net_input"]["features"].size(0) == 3
    assert batch["net_input"]["image_index"].tolist() == [0, 1, 1, 1, 1, 2, 2]


def test_padding_of_regions_is_zero_whatever_the_memory_held(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dirty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan, dtype=dtype)

    monkeypatch.setattr(np, "empty", dirty)
    images = load_regions(RegionStore(tiny_store), np.arange(13))
    features, mask = images["features"], images["padding_mask"]
    assert mask.any()
    assert (features[mask] == 0).all()
    assert torch.isfinite(features).all()


def test_masks_depend_on_epoch_objective_and_pair_alone(tiny_store: Path) -> None:
    """Whatever the batch, the worker or the number of captions an item; and another epoch or seed gives others."""
    lengths, rows = [12, 9, 12, 7, 12], [3, 5, 3, 2, 5]
    data = dataset(tiny_store, lengths, rows, ALL)
    grouped = dataset(tiny_store, lengths, rows, ALL, captions_per_image=0)
    other_seed = dataset(tiny_store, lengths, rows, ALL, seed=2)

    def source(data: CaptionDataset, objective: int, epoch: int, items: list[int]) -> dict[int, list[int]]:
        samples = [data[int(i)] for i in data.index_codec.pack(epoch, objective, np.array(items))]
        batch = data.collater(samples)
        order = sorted(samples, key=lambda sample: sample["image_row"])
        numbers = [number for sample in order for number in sample["numbers"]]
        tokens = [[t for t in row if t != PAD] for row in batch["net_input"]["src_tokens"].tolist()]
        return dict(zip(numbers, tokens, strict=True))

    for objective in (1, 2):  # imlm, ida
        whole = source(data, objective, 3, [0, 1, 2, 3, 4])
        two = source(data, objective, 3, [4, 1])
        assert len(two) == 2 and two == {number: whole[number] for number in two}
        assert source(grouped, objective, 3, [0, 1, 2]) == whole
        assert source(data, objective, 4, [0, 1, 2, 3, 4]) != whole
        assert source(other_seed, objective, 3, [0, 1, 2, 3, 4]) != whole


def leaves(value: Any, name: str = "") -> Iterator[str]:
    """The names of all tensors in a batch, one for each time that it is there."""
    if isinstance(value, torch.Tensor):
        yield name
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(each, str(key))


def test_joint_batches_hold_one_part_an_objective(tiny_store: Path) -> None:
    data = dataset(tiny_store, [5, 4, 6], [3, 5, 3], ALL, joint=True)
    batch = data.collater([data[i] for i in range(3)])
    assert batch["objective"] == "joint"
    assert [part["objective"] for part in batch["parts"]] == ["ic", "imlm", "ida", "tifg"]
    assert sorted(leaves(batch)).count("features") == 1  # fairseq and torch copy each that they find
    assert [part["objective"] for part in batches_of(batch)] == ["ic", "imlm", "ida", "tifg"]
    for part in batches_of(batch):
        turn = dataset(tiny_store, [5, 4, 6], [3, 5, 3], {part["objective"]: ALL[part["objective"]]})
        alone = turn.collater([turn[i] for i in range(3)])
        assert part["ntokens"] == alone["ntokens"]
        for name, value in alone["net_input"].items():
            found = part["net_input"][name]
            assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found is value


@pytest.fixture
def training(tiny_data: Path) -> CaptionDataset:
    """The tiny training captions as the task opens them."""
    directory = DataDirectory(tiny_data)
    return CaptionDataset(
        directory.captions("train"), directory.pairs("train"), directory.regions, IC,
        split="train", pad=PAD, captions_per_image=2,
    )  # fmt: skip


def assert_same_batch(batch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert batch["image_ids"] == expected["image_ids"]
    for name in ("id", "target", "target_index"):
        assert torch.equal(batch[name], expected[name])
    for name in ("features", "boxes", "padding_mask", "prev_output_tokens"):
        assert torch.equal(batch["net_input"][name], expected["net_input"][name])


def test_worker_processes(training: CaptionDataset) -> None:
    batches = training.batch_by_size(training.ordered_indices(), max_sentences=6)
    expected = [training.collater([training[i] for i in batch]) for batch in batches]  # opens files before the fork
    loader = DataLoader(training, batch_sampler=batches, collate_fn=training.collater, num_workers=2)
    loaded = list(loader)
    assert len(loaded) == len(batches) > 2
    for batch, here in zip(loaded, expected, strict=True):
        assert_same_batch(batch, here)


def test_pickles_for_workers_that_are_spawned(training: CaptionDataset) -> None:
    items = [training[i] for i in range(len(training))]
    again = pickle.loads(pickle.dumps(training))
    assert_same_batch(again.collater([again[i] for i in range(len(again))]), training.collater(items))
