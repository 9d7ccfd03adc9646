"""Dataset of images with captions. A batch reads each of its images once, however many captions share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.data.objective_dataset import ExampleMaker, ObjectiveDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore


def group_captions(image_rows: np.ndarray, captions_per_image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split the captions into pieces of one image with at most *captions_per_image* captions (0: no limit).

    Args:
        image_rows: (captions,) the image of each caption, in any order.

    Returns:
        tuple: order (captions,), first (pieces,), count (pieces,): piece i has captions
        order[first[i] : first[i] + count[i]]; images come in the order of their first caption.
    """
    _, first_seen, image = np.unique(image_rows, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first_seen))[image]  # images numbered by first appearance
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))  # where an image's captions begin in `order`
    sizes = np.diff(np.append(starts, len(order)))
    if captions_per_image <= 0:
        return order, starts, sizes
    pieces = -(-sizes // captions_per_image)  # of an image
    first = np.repeat(starts, pieces) + count_within(pieces) * captions_per_image
    return order, first, np.minimum(captions_per_image, np.repeat(starts + sizes, pieces) - first)


def count_within(sizes: np.ndarray) -> np.ndarray:
    """The concatenation of 0, 1, …, sizes[i] - 1 for each i: (sizes.sum(),)."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


class CaptionDataset(ObjectiveDataset):
    """Items of one image and one or all of its captions, collated to batches of an objective.

    Args:
        captions: token ids, item i int64 (T,) with end of sentence; with `.sizes` (captions,).
        image_rows: (captions,) index of each caption's image in *store*.
        store: the regions.
        objectives, split, pad, seed, joint, shuffle: see `ObjectiveDataset`.
        captions_per_image: 0: an item is an image with all its captions. K: an item is one caption, and the order of an
            epoch keeps up to K captions of an image together, to share one encoding of it. Batches are filled
            completely; an image whose captions are split between two batches is in both.
        first_caption_only: one item per image, with only its first caption, for generation.
        any_length: the model does not read the captions, which may be longer than it could.
        locality: see `windows`; 0: the order of an epoch is independent of the store's.
        views: other stores of the same images, with as many regions of each. In each epoch, an image's regions come
            from one of all stores, each as likely, by a draw of (seed, epoch, image).
        region_dropout: share, below 1, of each image's regions that are left out, rounded, but for one at least; others
            in each epoch, by the same draw. All objectives, and all captions of the image, see the same regions. As
            PatchDropout (Liu et al. 2022).
    """

    def __init__(
        self,
        captions: Any,
        image_rows: np.ndarray,
        store: RegionStore,
        objectives: Mapping[str, ExampleMaker],
        *,
        split: str,
        pad: int,
        seed: int = 1,
        joint: bool = False,
        captions_per_image: int = 1,
        first_caption_only: bool = False,
        any_length: bool = False,
        locality: int = 0,
        shuffle: bool = True,
        views: Sequence[RegionStore] = (),
        region_dropout: float = 0.0,
    ) -> None:
        image_rows = np.asarray(image_rows)
        self.order, first, count = group_captions(image_rows, 0 if first_caption_only else captions_per_image)
        if captions_per_image and not first_caption_only:
            self._pieces = first, count  # of items, which are consecutive
            self.first = np.arange(len(self.order))
            self.count = np.ones_like(self.first)
        else:
            self._pieces = np.arange(len(first)), np.ones_like(first)
            self.first, self.count = first, np.ones_like(count) if first_caption_only else count
        lengths = np.asarray(captions.sizes)[self.order]  # (captions,) in item order
        # the longest caption of each item determines the padding
        ends = self.first + self.count
        bounds = np.stack([self.first, ends], axis=1).ravel()
        sizes = np.maximum.reduceat(np.append(lengths, 0), bounds)[::2].astype(np.int64)
        super().__init__(sizes, objectives, split=split, pad=pad, seed=seed, joint=joint, shuffle=shuffle)
        self.captions = captions
        self.store = store
        self.views = views
        self.region_dropout = region_dropout
        self.captions_per_image = captions_per_image
        self.item_rows = image_rows[self.order[self.first]]
        self.locality = locality
        self.any_length = any_length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item: its captions and the image's index. The collater reads the regions, once per image."""
        epoch, objective, item = self.index_codec.unpack(index)
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
            dict: as from `ObjectiveDataset.collate_texts`, with `image_ids`, a list of str, and `image_index`, int64
            (C,) of numpy, which stays off the GPU: the image of each caption, ascending. The `net_input` of objectives
            that use regions also has `features` (I, N, D) as stored, `boxes` (I, N, 4), `padding_mask` (I, N) True at
            padding, `padded`, whether it is True anywhere, and `image_index` as a tensor, or None if all images have
            the same number of captions. I images, C captions, N regions.
        """
        if not samples:
            return {}
        rows, image = np.unique([sample["image_row"] for sample in samples], return_inverse=True)
        # group captions by image; stable, so that items keep their order otherwise
        samples = [samples[i] for i in np.argsort(image, kind="stable")]
        captions = [pair for sample in samples for pair in zip(sample["numbers"], sample["captions"], strict=True)]
        image_index = np.repeat(np.sort(image), [len(sample["captions"]) for sample in samples])
        per_image = np.bincount(image_index)
        images: dict[str, Any] = {
            "image_index": None if (per_image == per_image[0]).all() else torch.from_numpy(image_index)
        }
        if any(objective.uses_regions for objective in self.chosen_objectives(samples)):
            images |= self._load_regions(rows, samples[0]["epoch"])
            images["padded"] = bool(images["padding_mask"].any())
        image_ids = [self.store.image_id(int(row)) for row in rows]
        return self.collate_texts(samples, captions, images, image_ids=image_ids, image_index=image_index)

    def _load_regions(self, rows: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """Regions of images *rows* (I,), from a store and without others as drawn: all objectives see the same."""
        if not self.views and not self.region_dropout:
            return load_regions(self.store, rows)
        stores = [self.store, *self.views]
        drawn: list[tuple[RegionStore, int, Any]] = []  # store, row, and which of its regions
        for row, kept in zip(rows.tolist(), self._region_counts(rows).tolist(), strict=True):
            rng = np.random.default_rng([self.seed, epoch, row])
            store = stores[rng.integers(len(stores))]
            count = store.region_count(row)
            # sorted: the whole photo stays the first, and cells stay in their order
            chosen = slice(None) if kept == count else np.sort(rng.choice(count, kept, replace=False, shuffle=False))
            drawn.append((store, row, chosen))
        for each in stores:
            each.prefetch(row for store, row, _ in drawn if store is each)
        return pad_regions(
            [store.features(row)[chosen] for store, row, chosen in drawn],
            [store.boxes(row)[chosen] for store, row, chosen in drawn],
        )

    def _region_counts(self, rows: np.ndarray) -> np.ndarray:
        """(I,) how many regions of images *rows* (I,) the model sees."""
        counts = self.store.region_counts(rows)
        return counts - np.minimum(np.rint(counts * self.region_dropout).astype(counts.dtype), counts - 1)

    def filter_indices_by_size(self, indices: np.ndarray, max_sizes: Any) -> tuple[np.ndarray, list[int]]:
        """Leave out items with a caption that the model cannot read."""
        return (indices, []) if self.any_length else super().filter_indices_by_size(indices, max_sizes)

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Number of positions of items (items,), for --max-tokens: regions and tokens of the captions."""
        return self._region_counts(self.item_rows[indices]) + self.sizes[indices] * self.count[indices]

    def ordered_indices(self) -> np.ndarray:
        """Pieces by number of captions, then of regions, then by length; equal ones in random order, by numpy's seed.

        Numbers of regions are compared only roughly: see `region_classes`.
        """
        if not self.shuffle:
            return np.arange(len(self), dtype=np.int64)
        first, items = self._pieces
        captions, longest = np.add.reduceat(self.count, first), np.maximum.reduceat(self.sizes, first)  # (pieces,)
        regions = region_classes(self._region_counts(self.item_rows[first]), self._captions_of_a_window())
        order = np.random.permutation(len(first))  # noqa: NPY002  (fairseq seeds this one)
        order = order[np.lexsort((longest[order], regions[order], captions[order]))]
        first, items = first[order], items[order]
        return (np.repeat(first, items) + count_within(items)).astype(np.int64)

    def _captions_of_a_window(self) -> int:
        """How many captions are batched together: see `windows`."""
        captions = int(self.count.sum())
        images = len(np.unique(self.item_rows)) if self.locality else 0
        return captions * self.locality // images if images > self.locality else captions

    def windows(self, indices: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Partition ordered items (items,) so that each window covers `locality` consecutive images of the store.

        A store larger than memory is then read from one window at a time. Window offsets and their order are random per
        epoch; items inside a window keep their order.
        """
        if not self.locality or rng is None:
            return [indices]
        _, place = np.unique(self.item_rows, return_inverse=True)  # (all items,) of its image in the split
        window = (place[indices] + rng.integers(self.locality)) // self.locality
        order = np.argsort(window, kind="stable")
        bounds = np.flatnonzero(np.diff(window[order])) + 1
        windows = np.split(indices[order], bounds)
        return [windows[i] for i in rng.permutation(len(windows))]

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Any]:
        """fairseq's batches, none dropped. --batch-size counts captions in training, images elsewhere.

        Raises:
            DataError: a caption and its image have more than *max_tokens* positions.
        """
        if self.captions_per_image <= 1 or not max_tokens:
            return super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        # fairseq counts the largest item times the number of items, that is, an image once for each of its captions
        rows, lengths = self.item_rows[indices], self.sizes[indices]
        regions = self._region_counts(rows)
        if (too_many := regions + lengths > max_tokens).any():
            i = int(too_many.argmax())
            raise DataError(
                f"--max-tokens {max_tokens}: image {self.store.image_id(int(rows[i]))} has {regions[i]} regions and a "
                f"caption of {lengths[i]} tokens, which is more than fits"
            )
        bounds = full_batches(rows, regions, lengths, max_tokens=max_tokens, max_captions=max_sentences)
        return np.split(indices, bounds)


def region_classes(regions: np.ndarray, captions: int) -> np.ndarray:
    """Divide pieces into classes of like numbers of regions, so that batches of a class have little padding.

    Within a class, pieces are sorted by length. The more classes, the less padding of regions, and the more of text,
    as a batch must then take captions of more different lengths. So their number grows with the square root of
    *captions*, and the size of a class does, too. Classes are about equally large, but pieces with as many regions are
    in one: where all have the same number, there is one class.

    Args:
        regions: (pieces,) number of regions.
        captions: number of captions that are divided.

    Returns:
        np.ndarray: (pieces,) the class, ascending with the number of regions.
    """
    classes = min(16, max(1, round((captions / 2000) ** 0.5)))
    if classes == 1:
        return np.zeros_like(regions)
    edges = np.quantile(regions, np.arange(1, classes) / classes, method="lower")
    return np.searchsorted(edges, regions)


def full_batches(
    rows: np.ndarray, regions: np.ndarray, lengths: np.ndarray, *, max_tokens: int, max_captions: int | None
) -> list[int]:
    """Boundaries of batches that take captions in order until they are full.

    With padding, a batch has images × most regions + captions × longest caption positions.

    Args:
        rows: (captions,) the image of each caption; consecutive captions of an image share it.
        regions: (captions,) number of regions of that image.
        lengths: (captions,) number of tokens of each caption.
        max_tokens: most positions of a batch; each caption fits with its image.
        max_captions: most captions of a batch; None: any number.

    Returns:
        list[int]: the first caption of every batch except the first.
    """
    bounds: list[int] = []
    start = images = most = longest = 0
    last = None
    for i, (row, region_count, length) in enumerate(
        zip(rows.tolist(), regions.tolist(), lengths.tolist(), strict=True)
    ):
        images += row != last
        most, longest, last = max(most, region_count), max(longest, length), row
        captions = i + 1 - start
        if images * most + captions * longest > max_tokens or (max_captions and captions > max_captions):
            bounds.append(i)
            start, images, most, longest = i, 1, region_count, length
    return bounds


def load_regions(store: RegionStore, rows: np.ndarray) -> dict[str, Tensor]:
    """Read the regions of images *rows* (I,) straight into padded tensors.

    Returns:
        dict: `features` (I, N, D) float16 as stored, `boxes` (I, N, 4) float32, `padding_mask` (I, N) True at padding.
    """
    rows = rows.tolist()
    store.prefetch(rows)
    return pad_regions([store.features(row) for row in rows], [store.boxes(row) for row in rows])


def pad_regions(features: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Pad the regions of I images, features (n, D) float16 and boxes (n, 4), to tensors.

    Returns:
        dict: as from `load_regions`.
    """
    counts = np.array([len(each) for each in features])  # (I,)
    longest = int(counts.max())
    # `empty`, with zeros written only to the padding: each byte is written once
    padded = np.empty((len(features), longest, features[0].shape[1]), dtype=np.float16)
    corners = np.zeros((len(features), longest, 4), dtype=np.float32)
    for i, count in enumerate(counts.tolist()):
        padded[i, :count] = features[i]
        padded[i, count:] = 0
        corners[i, :count] = boxes[i]
    padding_mask = np.arange(longest)[None, :] >= counts[:, None]
    return {
        "features": torch.from_numpy(padded),
        "boxes": torch.from_numpy(corners),
        "padding_mask": torch.from_numpy(padding_mask),
    }
