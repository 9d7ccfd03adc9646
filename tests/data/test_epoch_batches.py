"""The batches of an epoch: drawn by seed and epoch alone, and as many as are wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xgpt_fairseq.data.epoch_batches import EpochBatches, too_long_error, turns
from xgpt_fairseq.data.schedule import IndexCodec
from xgpt_fairseq.errors import DataError


class Texts:
    """Twelve texts, as a data set has them, in one window."""

    split, shuffle, sizes = "train", True, np.arange(3, 15)

    def __init__(self, objectives: int = 2, *, joint: bool = False) -> None:
        self.objectives, self.joint = list(range(objectives)), joint
        self.index_codec = IndexCodec(items=12, objectives=1 if joint else objectives)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def ordered_indices(self) -> np.ndarray:
        return np.random.permutation(12)  # noqa: NPY002  (the state that fairseq sets)

    def windows(self, indices: np.ndarray, rng: Any) -> list[np.ndarray]:
        return [indices]

    def batch_by_size(self, indices: np.ndarray, max_tokens: Any, max_sentences: int, multiple: int) -> list[Any]:
        return [indices[i : i + max_sentences] for i in range(0, len(indices), max_sentences)]


def drawn(texts: Texts, epoch: int = 1, **options: Any) -> list[list[int]]:
    given = {"fitting": lambda items: items, "max_tokens": None, "max_sentences": 3, "multiple": 1, "seed": 1,
             "block": lambda epoch: 1, **options}  # fmt: skip
    return [np.asarray(batch).tolist() for batch in EpochBatches(texts, **given)(texts, epoch)]


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    first = drawn(Texts())
    np.random.seed(7)  # noqa: NPY002
    assert drawn(Texts()) == first
    assert drawn(Texts(), 2) != first and drawn(Texts(), seed=2) != first
    assert len(first) == 8 and sum(map(len, first)) == 24  # each of the two objectives has all twelve


def test_as_many_as_are_wanted() -> None:
    assert drawn(Texts(), most=3) == drawn(Texts())[:3]


def test_empty_batches_are_left_out_where_one_process_repeats_several() -> None:
    few = {"block": lambda epoch: 16, "max_sentences": 12}
    with_empty = drawn(Texts(1), **few)
    assert len(with_empty) == 16 and [] in with_empty
    assert drawn(Texts(1), leave_out_empty=True, **few) == [batch for batch in with_empty if batch]


def test_no_text_fits() -> None:
    with pytest.raises(DataError, match=r"split 'train': all texts are longer .* \(the shortest has 3 tokens"):
        drawn(Texts(), fitting=lambda items: items[:0])


def test_turns_and_the_error() -> None:
    assert turns(Texts(4)) == 4 and turns(Texts(4, joint=True)) == 1
    assert str(too_long_error("valid", 1, 2000, limit=9, longest=12, remedy="shorten it")) == (
        "split 'valid': 1 of 2,000 items have a text longer than the model's --max-target-positions 9, the longest 12 "
        "tokens with the end of sentence: shorten it"
    )
