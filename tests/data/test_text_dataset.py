"""Sentences an epoch at a time, made into batches of MLM and MASS."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from fairseq.data import data_utils
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.data.text_dataset import TextDataset
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols

SYMBOLS = Symbols(pad=1, eos=2, mask=23, words=(4, 23))
BOTH = {name: PRETRAINING_OBJECTIVES[name](SYMBOLS) for name in ("mlm", "mass")}


class Sentences:
    """Sentences of given lengths, end of sentence included; no word comes twice in one."""

    def __init__(self, lengths: list[int]) -> None:
        self.sizes = np.array(lengths, dtype=np.int32)

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng(index)
        return torch.from_numpy(np.append(4 + rng.permutation(19)[: self.sizes[index] - 1], SYMBOLS.eos))


def dataset(lengths: list[int], **options) -> TextDataset:
    return TextDataset(Sentences(lengths), BOTH, split="train", pad=SYMBOLS.pad, **options)


def indices_of(data: TextDataset, epoch: int) -> list[int]:
    data.set_epoch(epoch)
    with data_utils.numpy_seed(epoch):
        return data.ordered_indices().tolist()


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12))
def test_epochs_follow_one_another_through_the_corpus(sentences: int, per_epoch: int, epochs: int) -> None:
    """Every epoch has min(per_epoch, sentences) different ones; over epochs none is read twice more than another."""
    data = dataset([2 + i % 7 for i in range(sentences)], sentences_per_epoch=per_epoch)
    read: Counter[int] = Counter(dict.fromkeys(range(sentences), 0))
    for epoch in range(1, epochs + 1):
        indices = indices_of(data, epoch)
        assert len(indices) == len(set(indices)) == min(per_epoch, sentences)
        read.update(indices)
    assert max(read.values()) - min(read.values()) <= 1


def test_sentences_of_like_length_lie_side_by_side_in_another_order_every_epoch() -> None:
    lengths = [2 + i % 5 for i in range(40)]
    data = dataset(lengths)
    first, second = indices_of(data, 1), indices_of(data, 2)
    assert sorted(first) == sorted(second) == list(range(40)) and first != second
    assert [lengths[i] for i in first] == sorted(lengths)
    assert indices_of(data, 1) == first
    assert indices_of(dataset(lengths, shuffle=False), 3) == list(range(40))


def test_batches_hold_exactly_the_sentences_that_were_asked_for() -> None:
    """fairseq's --required-batch-size-multiple is 8 unless it is named; with --max-tokens alone it is kept."""
    data = dataset([5] * 150)
    indices = data.ordered_indices()
    assert [len(batch) for batch in data.batch_by_size(indices, None, 60, 8)] == [60, 60, 30]
    assert [len(batch) for batch in data.batch_by_size(indices, 1000, 60, 8)] == [60, 60, 30]
    assert [len(batch) for batch in data.batch_by_size(indices, 5 * 60, None, 8)] == [56, 56, 32, 6]


@pytest.mark.parametrize("name", ["mlm", "mass"])
def test_a_batch_is_what_the_objective_makes_of_its_sentences(name: str) -> None:
    data = dataset([6, 9, 3])
    code = data.index_codec.pack(1, list(BOTH).index(name), np.arange(3))
    batch = data.collater([data[i] for i in code])
    assert batch["objective"] == name and batch["nsentences"] == 3 and batch["split"] == "train"
    inputs = batch["net_input"]
    assert set(inputs) == {"src_tokens"} if name == "mlm" else {"src_tokens", "prev_output_tokens", "positions"}
    assert inputs["src_tokens"].shape == (3, 9)
    predicted = batch["target"].view(-1)[batch["target_index"]]
    assert batch["ntokens"] == len(predicted) and (predicted != SYMBOLS.pad).all()
    for row in range(3):
        words = set(data.sentences[row].tolist()[:-1])
        assert set(batch["target"][row].tolist()) - {SYMBOLS.pad} <= words


def test_masks_depend_on_seed_epoch_and_sentence_alone() -> None:
    data, other = dataset([12] * 6), dataset([12] * 6, seed=2)

    def batch(data: TextDataset, epoch: int, items: list[int]) -> torch.Tensor:
        return data.collater([data[i] for i in data.index_codec.pack(epoch, 1, np.array(items))])["net_input"][
            "src_tokens"
        ]

    whole = batch(data, 1, [0, 1, 2, 3, 4, 5])
    assert torch.equal(batch(data, 1, [4, 2]), whole[[4, 2]])
    assert not torch.equal(batch(data, 2, [0, 1, 2, 3, 4, 5]), whole)
    assert not torch.equal(batch(other, 1, [0, 1, 2, 3, 4, 5]), whole)


def test_joint_batches_hold_a_part_of_each_objective() -> None:
    data = dataset([5, 4], joint=True)
    batch = data.collater([data[0], data[1]])
    assert batch["objective"] == "joint" and [part["objective"] for part in batch["parts"]] == ["mlm", "mass"]
    assert batch["ntokens"] == sum(part["ntokens"] for part in batch["parts"])
    assert data.collater([]) == {}
