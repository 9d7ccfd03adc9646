"""Dataset of sentences for text pre-training (section 5.4), for a corpus of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xgpt_fairseq.data.objective_dataset import ExampleMaker, ObjectiveDataset


class TextDataset(ObjectiveDataset):
    """Sentences, collated to batches of an objective.

    Args:
        sentences: token ids, item i int64 (T,) with end of sentence; with `.sizes` (sentences,).
        objectives, split, pad, seed, joint, shuffle: see `ObjectiveDataset`.
        sentences_per_epoch: each epoch uses the next N consecutive sentences, wrapping around, so that the memory of a
            process does not grow with the corpus; 0: all of them.
    """

    def __init__(
        self,
        sentences: Any,
        objectives: Mapping[str, ExampleMaker],
        *,
        split: str,
        pad: int,
        seed: int = 1,
        joint: bool = False,
        shuffle: bool = True,
        sentences_per_epoch: int = 0,
    ) -> None:
        super().__init__(
            np.asarray(sentences.sizes), objectives, split=split, pad=pad, seed=seed, joint=joint, shuffle=shuffle
        )
        self.sentences = sentences
        self.per_epoch = min(sentences_per_epoch or len(self), len(self))
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the sentences of *epoch* (1, 2, …) for `ordered_indices`."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item: one sentence."""
        epoch, objective, item = self.index_codec.unpack(index)
        return {"id": item, "epoch": epoch, "objective": objective, "tokens": self.sentences[item]}

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Merge sentences of one epoch and objective to a batch: see `ObjectiveDataset.collate_texts`."""
        if not samples:
            return {}
        return self.collate_texts(samples, [(sample["id"], sample["tokens"]) for sample in samples], {})

    def ordered_indices(self) -> np.ndarray:
        """The epoch's sentences sorted by length, in random order among equals, by numpy's seed."""
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        first = (self.epoch - 1) * self.per_epoch
        indices = (first + np.random.permutation(self.per_epoch)) % len(self)  # noqa: NPY002  (fairseq seeds this one)
        return indices[np.argsort(self.sizes[indices], kind="stable")]
