"""(image, captions) items and their collater: an image of a batch is read once however many captions share it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor

from xgpt_fairseq.data.region_store import RegionStore
from xgpt_fairseq.data.turns import IndexCode
from xgpt_fairseq.workarounds import with_last_batch


def group_captions(image_rows: np.ndarray, captions_per_image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut the captions into items of one image with at most *captions_per_image* captions (0: all of the image's).

    Args:
        image_rows: (captions,) the image of each caption, in any order.

    Returns:
        tuple: order (captions,), first (items,), count (items,): item i has captions
        order[first[i] : first[i] + count[i]]; images come in the order of their first caption.
    """
    _, first_seen, image = np.unique(image_rows, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_seen))[image]  # images numbered by first appearance
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))  # where an image's captions begin in `order`
    sizes = np.diff(np.append(starts, len(order)))
    if captions_per_image <= 0:
        return order, starts, sizes
    pieces = -(-sizes // captions_per_image)  # items an image
    image_start = np.repeat(starts, pieces)
    number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, … within an image
    first = image_start + number * captions_per_image
    return order, first, np.minimum(captions_per_image, np.repeat(starts + sizes, pieces) - first)


class Corruption(Protocol):
    """What the data set needs of an objective: see `xgpt_fairseq.objectives.base.Objective`."""

    name: str
    uses_regions: bool
    random: bool

    def corrupt(self, tokens: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]: ...


class CaptionDataset(FairseqDataset):
    """Items of one image and up to *captions_per_image* of its captions, made into batches of an objective.

    An index packs epoch, objective and item (`IndexCode`); a plain item number is epoch 0 of the first objective.

    Args:
        captions: token ids, item i int64 (T,) ending in end of sentence; with `.sizes` (captions,).
        image_rows: (captions,) row of each caption's image in *store*.
        store: the regions.
        objectives: what batches are made for, by name, in the order of the turns.
        split: its name; batches carry it.
        pad: id of the padding symbol.
        seed: masks depend on (seed, epoch, objective, caption).
        joint: an item is collated for all objectives at once, to a batch of `parts`.
        captions_per_image: captions an item; 0: all of the image's.
        first_caption_only: one item an image with its first caption alone: what generation reads.
        shuffle: batches of random items of like length, new in every epoch; else the given order.
    """

    def __init__(
        self,
        captions: Any,
        image_rows: np.ndarray,
        store: RegionStore,
        objectives: Mapping[str, Corruption],
        *,
        split: str,
        pad: int,
        seed: int = 1,
        joint: bool = False,
        captions_per_image: int = 1,
        first_caption_only: bool = False,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        self.captions = captions
        self.image_rows = np.asarray(image_rows)
        self.store = store
        self.objectives = list(objectives.values())
        self.split = split
        self.pad = pad
        self.seed = seed
        self.joint = joint
        self.captions_per_image = captions_per_image
        self.shuffle = shuffle
        per_image = 0 if first_caption_only else captions_per_image
        self.order, self.first, self.count = group_captions(self.image_rows, per_image)
        if first_caption_only:
            self.count = np.ones_like(self.count)
        lengths = np.asarray(captions.sizes)[self.order]  # (captions,) in item order
        # the longest caption of each item decides how far the batch is padded
        ends = self.first + self.count
        self.sizes = np.maximum.reduceat(np.append(lengths, 0), np.stack([self.first, ends], axis=1).ravel())[
            ::2
        ].astype(np.int64)
        self.item_rows = self.image_rows[self.order[self.first]]
        self.code = IndexCode(items=len(self.first), objectives=len(self.objectives))

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item: its captions and the image's row; the regions are read by the collater, once an image."""
        epoch, objective, item = self.code.unpack(index)
        first = self.first[item]
        numbers = self.order[first : first + self.count[item]].tolist()
        return {
            "id": item,
            "epoch": epoch,
            "objective": objective,
            "image_row": int(self.item_rows[item]),
            "numbers": numbers,
            "captions": [self.captions[number] for number in numbers],
        }

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Merge items of one epoch and objective to a batch.

        Returns:
            dict: `id` (items,); `image_ids`, a list of str; `nsentences`, `ntokens`; `objective`; `split`;
            `target` (C, T) padded on the right, or None; `target_index` (ntokens,), the flat positions of its
            tokens; and `net_input`, what the model is called with: `features` (I, N, D) as stored, `boxes`
            (I, N, 4), `padding_mask` (I, N) True at padding, `image_index` (C,) the image of each caption, or None
            where each image has equally many captions, and the objective's `src_tokens` (C, S),
            `prev_output_tokens` (C, T) and `positions` (C, T). I images, C captions, N regions, S and T tokens.

            With *joint*, `objective` is "joint" and `parts` are such batches of the same items, one an objective.
        """
        if not samples:
            return {}
        rows, image = np.unique([sample["image_row"] for sample in samples], return_inverse=True)
        # an image's captions side by side; stable, so that items keep their order otherwise
        samples = [samples[i] for i in np.argsort(image, kind="stable")]
        captions = [pair for sample in samples for pair in zip(sample["numbers"], sample["captions"], strict=True)]
        image_index = np.repeat(np.sort(image), [len(sample["captions"]) for sample in samples])
        per_image = np.bincount(image_index)
        common = {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "image_ids": [self.store.image_id(int(row)) for row in rows],
            "nsentences": len(captions),
            "split": self.split,
        }
        images: dict[str, Any] = {
            "image_index": None if (per_image == per_image[0]).all() else torch.from_numpy(image_index)
        }
        chosen = self.objectives if self.joint else [self.objectives[samples[0]["objective"]]]
        if any(objective.uses_regions for objective in chosen):
            images |= load_regions(self.store, rows)
        parts = [
            {**common, **self._collate_text(objective, captions, samples[0]["epoch"], images)} for objective in chosen
        ]
        if self.joint:
            return {**common, "objective": "joint", "ntokens": sum(p["ntokens"] for p in parts), "parts": parts}
        return parts[0]

    def _collate_text(
        self, objective: Corruption, captions: list[tuple[int, Tensor]], epoch: int, images: dict[str, Any]
    ) -> dict[str, Any]:
        """The batch of *objective* but for what its objectives have in common."""
        name = zlib.crc32(objective.name.encode())
        examples = []
        for number, tokens in captions:
            rng = np.random.default_rng([self.seed, epoch, name, number]) if objective.random else None
            # without the end of sentence: corruption adds it where it belongs
            examples.append(objective.corrupt(tokens.numpy()[:-1], rng))
        padding = {"positions": 0}
        arrays = {key: pad_right([e[key] for e in examples], padding.get(key, self.pad)) for key in examples[0]}
        target = arrays.pop("target", None)
        target_index = None if target is None else torch.from_numpy(np.flatnonzero(target.numpy() != self.pad))
        ntokens = sum(len(e["src_tokens"]) for e in examples) if target_index is None else target_index.numel()
        return {
            "objective": objective.name,
            "ntokens": ntokens,
            "net_input": {**(images if objective.uses_regions else {}), **arrays},
            "target": target,
            "target_index": target_index,
        }

    def num_tokens(self, index: int) -> int:
        """Positions that an item takes, for --max-tokens: its regions and its captions' tokens."""
        return int(self.num_tokens_vec(np.array([index]))[0])

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """`num_tokens` of many items (items,)."""
        return self.store.region_counts(self.item_rows[indices]) + self.sizes[indices] * self.count[indices]

    def size(self, index: int) -> int:
        """Length of the item's longest caption in tokens, for the model's limit."""
        return int(self.sizes[index])

    def ordered_indices(self) -> np.ndarray:
        """Items of like length (and like number of captions) side by side, in random order within, by numpy's seed."""
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        indices = np.random.permutation(len(self)).astype(np.int64)  # noqa: NPY002  (fairseq seeds this one)
        return indices[np.lexsort((self.sizes[indices], self.count[indices]))]

    def filter_indices_by_size(self, indices: np.ndarray, max_sizes: Any) -> tuple[np.ndarray, list[int]]:
        """Leave out items with a caption longer than the model's text positions (the last of *max_sizes*)."""
        limit = max_sizes[-1] if isinstance(max_sizes, tuple | list) else max_sizes
        fits = self.sizes[indices] <= limit
        return indices[fits], indices[~fits].tolist()

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        """fairseq's batches, none left out. --batch-size counts captions in training, images elsewhere."""
        if self.captions_per_image > 1:
            # captions, not items: the batch of a recipe stays the same whatever --captions-per-image
            max_sentences = max_sentences and max(1, max_sentences // self.captions_per_image)
            required_batch_size_multiple = 1
        batches = super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        return with_last_batch(batches, indices)

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Yes: the iterator of `XGPTCaptionTask` draws batches anew, and the epoch travels in the indices."""
        return True


def pad_right(arrays: Sequence[np.ndarray], value: int) -> Tensor:
    """(T_i,) arrays → int64 (C, T), padded on the right with *value*."""
    padded = np.full((len(arrays), max(len(array) for array in arrays)), value, dtype=np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


def load_regions(store: RegionStore, rows: np.ndarray) -> dict[str, Tensor]:
    """Read the regions of images *rows* (I,) straight into padded tensors.

    Returns:
        dict: `features` (I, N, D) float16 as stored, `boxes` (I, N, 4) float32, `padding_mask` (I, N) True at padding.
    """
    counts = store.region_counts(rows)
    longest = int(counts.max())
    # `empty`, and zeros only where there is padding: each byte is written once
    features = np.empty((len(rows), longest, store.feature_dim), dtype=np.float16)
    boxes = np.zeros((len(rows), longest, 4), dtype=np.float32)
    for i, (row, count) in enumerate(zip(rows.tolist(), counts.tolist(), strict=True)):
        features[i, :count] = store.features(row)
        features[i, count:] = 0
        boxes[i, :count] = store.boxes(row)
    padding_mask = np.arange(longest)[None, :] >= counts[:, None]
    return {
        "features": torch.from_numpy(features),
        "boxes": torch.from_numpy(boxes),
        "padding_mask": torch.from_numpy(padding_mask),
    }
