"""Base class of all datasets: items of text, collated to batches of one objective, or of all at once."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor

from xgpt_fairseq.data.schedule import IndexCodec
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.workarounds import with_last_batch

JOINT = "joint"  # in place of an objective's name, of a batch of all of them


class ExampleMaker(Protocol):
    """The dataset's view of an objective: see `xgpt_fairseq.objectives.base.Objective`."""

    name: str
    uses_regions: bool
    random: bool

    def make_example(self, tokens: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]: ...


class ObjectiveDataset(FairseqDataset):
    """Items of one or several texts. An index packs epoch, objective and item (`IndexCodec`).

    A plain item number is epoch 0 of the first objective.

    Args:
        sizes: (items,) length in tokens of each item's longest text, end of sentence included.
        objectives: the objectives of the batches, by name, in the order of their updates.
        split: name of the split, which batches contain.
        pad: id of the padding symbol.
        seed: masks depend on (seed, epoch, objective, text).
        joint: collate an item for all objectives at once, to a batch of `parts`.
        shuffle: batches of random items of similar length, new in every epoch; else in the given order.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        objectives: Mapping[str, ExampleMaker],
        *,
        split: str,
        pad: int,
        seed: int,
        joint: bool,
        shuffle: bool,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.objectives = list(objectives.values())
        self.split = split
        self.pad = pad
        self.seed = seed
        self.joint = joint
        self.shuffle = shuffle
        self.index_codec = IndexCodec(items=len(sizes), objectives=len(self.objectives))

    def __len__(self) -> int:
        return len(self.sizes)

    def chosen_objectives(self, samples: Sequence[dict[str, Any]]) -> list[ExampleMaker]:
        """The objectives of a batch of *samples*: one, or all with `joint`."""
        return self.objectives if self.joint else [self.objectives[samples[0]["objective"]]]

    def collate_texts(
        self,
        samples: Sequence[dict[str, Any]],
        texts: list[tuple[int, Tensor]],
        images: Mapping[str, Any],
        **common: Any,
    ) -> dict[str, Any]:
        """Collate numbered *texts* (T,), with *images* in the `net_input` of objectives that use regions.

        Returns:
            dict: `id` (items,); `nsentences`, `ntokens`; `objective`; `split`; `target` (C, T) padded on the right, or
            None; `target_index` (ntokens,), the flat positions of its tokens; and `net_input`, the arguments of the
            model: *images* and the objective's `src_tokens` (C, S), `prev_output_tokens` (C, T) and `positions`
            (C, T), for C texts. Also everything in *common*.

            With `joint`, `objective` is "joint" and `parts` are such batches of the same items, one per objective, but
            without *images*, which the batch has once, as `images`: of each part, they would be copied to the device
            anew. `batches_of` puts both together.
        """
        common |= {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(texts),
            "split": self.split,
        }
        parts = [
            {**common, **self._collate_objective(objective, texts, samples[0]["epoch"])}
            for objective in self.chosen_objectives(samples)
        ]
        ntokens = sum(part["ntokens"] for part in parts)
        batch = {**common, "objective": JOINT, "ntokens": ntokens, "images": images, "parts": parts}
        return batch if self.joint else batches_of(batch)[0]

    def _collate_objective(
        self, objective: ExampleMaker, texts: list[tuple[int, Tensor]], epoch: int
    ) -> dict[str, Any]:
        """The batch of *objective*, without images and the entries that all objectives have in common."""
        name = zlib.crc32(objective.name.encode())
        examples = []
        for number, tokens in texts:
            rng = np.random.default_rng([self.seed, epoch, name, number]) if objective.random else None
            # without the end of sentence, which the objective adds
            examples.append(objective.make_example(tokens.numpy()[:-1], rng))
        padding = {"positions": 0}
        arrays = {key: pad_right([e[key] for e in examples], padding.get(key, self.pad)) for key in examples[0]}
        target = arrays.pop("target", None)
        target_index = None if target is None else torch.from_numpy(np.flatnonzero(target.numpy() != self.pad))
        ntokens = sum(len(e["src_tokens"]) for e in examples) if target_index is None else target_index.numel()
        return {
            "objective": objective.name,
            "uses_regions": objective.uses_regions,
            "ntokens": ntokens,
            "net_input": arrays,
            "target": target,
            "target_index": target_index,
        }

    def size(self, index: int) -> int:
        """Length of the item's longest text in tokens, for the model's limit."""
        return int(self.sizes[index])

    def num_tokens(self, index: int) -> int:
        """Number of positions of an item, for --max-tokens."""
        return int(self.num_tokens_vec(np.array([index]))[0])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """`num_tokens` of many items (items,)."""
        return self.sizes[indices]

    def filter_indices_by_size(self, indices: np.ndarray, max_sizes: Any) -> tuple[np.ndarray, list[int]]:
        """Leave out items with a text longer than the model's text positions (the last of *max_sizes*)."""
        limit = max_sizes[-1] if isinstance(max_sizes, tuple | list) else max_sizes
        fits = self.sizes[indices] <= limit
        return indices[fits], indices[~fits].tolist()

    def windows(self, indices: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Partition ordered items (items,) into windows that are batched and shuffled separately: here one."""
        return [indices]

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        """fairseq's batches, none dropped, of exactly the requested size: fairseq makes batches of 56 for 60.

        Raises:
            DataError: an item has more than *max_tokens* positions.
        """
        if max_tokens and (positions := self.num_tokens_vec(indices)).max(initial=0) > max_tokens:
            raise DataError(
                f"--max-tokens {max_tokens}: item {indices[positions.argmax()]} of split {self.split!r} has "
                f"{positions.max()} positions (texts, and the regions of images), which is more than fits"
            )
        if max_sentences:
            required_batch_size_multiple = 1
        batches = super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        return with_last_batch(batches, indices)

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """True: the iterator of `XGPTTask` makes new batches, and the indices contain the epoch."""
        return True


def batches_of(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The batches of one objective each that *sample* consists of, with the images of those that use regions.

    That is itself, or of a batch of several objectives (`joint`) its parts.
    """
    if sample["objective"] != JOINT:
        return [dict(sample)]
    images = sample["images"]
    return [
        {**part, "net_input": {**images, **part["net_input"]}} if part["uses_regions"] else part
        for part in sample["parts"]
    ]


def pad_right(arrays: Sequence[np.ndarray], value: int) -> Tensor:
    """(T_i,) arrays → int64 (C, T), padded on the right with *value*."""
    padded = np.full((len(arrays), max(len(array) for array in arrays)), value, dtype=np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)
