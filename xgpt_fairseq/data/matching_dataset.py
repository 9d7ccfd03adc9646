"""Pairs and their negatives for retrieval: batches of the objective `matching`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from xgpt_fairseq.data.caption_dataset import CaptionDataset, group_captions, load_regions
from xgpt_fairseq.data.hard_images import hard_images
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore

DRAWS = 20  # attempts to find a negative; if all captions are equal there is none

Pair = tuple[int, int]  # row of the image, number of the caption


class MatchingDataset(CaptionDataset):
    """Items of an image and one of its captions; the collater adds negatives.

    `four-way`, as in ViLBERT's training (`RetreivalDataset` of vilbert-multi-task): one question per item, with four
    choices: the pair; its image with a random other image's caption; its caption with a random other image; and its
    image with a caption of a hard image, one of the *hard_pool* images whose mean region features are nearest to its
    own by cosine. ViLBERT draws the last one at random in validation; here it is a hard one there, too.

    `in-batch`: the items of a batch are each other's negatives. Item i's caption is scored with its own image and with
    those of items i + 1 … i + n, cyclically; n is *max_negatives*, or less where the batch is small. Of three items
    with n = 1 these pairs are scored:

                    image 0  image 1  image 2
        caption 0   right    wrong
        caption 1            right    wrong
        caption 2   wrong             right

    Each row is a question text-to-image (which image has this caption?), each column one image-to-text.

    No negative has the item's image. A caption that equals a caption of the image, word by word, is not a negative
    either: it is drawn again (`four-way`; up to `DRAWS` times) or left out (`in-batch`). Negatives of `four-way` depend
    only on (seed, epoch, pair); those of `in-batch` on the batch, which depends on (seed, epoch).

    Args:
        captions, image_rows, store, split, pad, seed, shuffle: see `CaptionDataset`.
        objectives: only `matching`.
        negatives: `four-way` or `in-batch`.
        hard_pool: number of nearest images to draw the hard image from.
        max_negatives: most negatives per question of `in-batch`.
        longest: most tokens of a negative (end of sentence included), the model's limit; None: any.
        device: where the nearest images are searched, when the dataset is made.

    Raises:
        DataError: the split has fewer than two images with captions.
    """

    def __init__(
        self,
        captions: Any,
        image_rows: np.ndarray,
        store: RegionStore,
        objectives: Any,
        *,
        negatives: str = "four-way",
        hard_pool: int = 100,
        max_negatives: int = 3,
        longest: int | None = None,
        device: str = "cpu",
        **common: Any,
    ) -> None:
        super().__init__(captions, image_rows, store, objectives, captions_per_image=1, **common)
        self.negatives = negatives
        self.max_negatives = max_negatives
        fits = np.arange(len(image_rows))
        if longest is not None:
            fits = np.flatnonzero(np.asarray(captions.sizes) <= longest)
        order, self._first, self._count = group_captions(np.asarray(image_rows)[fits], 0)
        self._numbers = fits[order]  # caption numbers, image by image
        self.images = np.asarray(image_rows)[self._numbers[self._first]] if len(order) else order  # rows in the store
        if len(self.images) < 2:
            raise DataError(
                f"split {self.split!r} has {len(self.images)} image{'s' * (len(self.images) != 1)} with captions that "
                f"are short enough: negatives need two"
            )
        self._place = {row: place for place, row in enumerate(self.images.tolist())}
        self.hard = None
        if negatives == "four-way":
            self.hard = hard_images(store, self.images, hard_pool, split=self.split, device=device)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """An item: its pair and, for `four-way`, its negatives."""
        item = super().__getitem__(index)
        pair = (item["image_row"], item["numbers"][0])
        item["pairs"] = [pair, *self._draw(pair, item["epoch"])] if self.negatives == "four-way" else [pair]
        return item

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Merge items of one epoch to a batch.

        Returns:
            dict: as from `CaptionDataset.collater`, with a caption in `net_input` for each of P pairs, always
            `image_index` (P,), `nsentences` = P, and `choices` (Q, K), see `ImageTextMatching`.
        """
        if not samples:
            return {}
        pairs: list[Pair]
        if self.negatives == "four-way":
            pairs = [pair for sample in samples for pair in sample["pairs"]]
            choices = np.arange(len(pairs)).reshape(len(samples), -1)
        else:
            pairs, choices = self._cross([sample["pairs"][0] for sample in samples])
        rows, image_index = np.unique([row for row, _ in pairs], return_inverse=True)
        read = {number: self.captions[number] for number in {number for _, number in pairs}}
        images = {"image_index": torch.from_numpy(image_index), **load_regions(self.store, rows)}
        texts = [(number, read[number]) for _, number in pairs]
        image_ids = [self.store.image_id(int(row)) for row in rows]
        return self.collate_texts(samples, texts, images, image_ids=image_ids, choices=torch.from_numpy(choices))

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Number of positions of items (items,), for --max-tokens: regions and tokens of each scored pair."""
        per_item = 4 if self.negatives == "four-way" else 1 + self.max_negatives
        return per_item * super().num_tokens_vec(indices)

    def _draw(self, pair: Pair, epoch: int) -> list[Pair]:
        """The pair's three negatives: a wrong caption, a wrong image, a hard caption."""
        row, number = pair
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(b"negatives"), number])
        own = self._place[row]
        others = _others(rng, len(self.images), own)
        wrong = self._wrong_caption(rng, others, own)
        image = self._wrong_image(others, number)
        assert self.hard is not None
        hard = self._wrong_caption(rng, _some(rng, self.hard[own]), own)
        return [(row, wrong), (int(self.images[image]), number), (row, hard)]

    def _wrong_caption(self, rng: np.random.Generator, images: Iterator[int], own: int) -> int:
        """A caption of one of *images* that equals no caption of image *own*."""
        for _ in range(DRAWS):
            numbers = self._captions_of(next(images))
            number = int(numbers[rng.integers(len(numbers))])
            if not self._describes(number, own):
                break
        return number

    def _wrong_image(self, images: Iterator[int], number: int) -> int:
        """One of *images* that does not have caption *number*."""
        for _ in range(DRAWS):
            image = next(images)
            if not self._describes(number, image):
                break
        return image

    def _describes(self, number: int, image: int) -> bool:
        """Whether caption *number* equals, token by token, a caption of *image*."""
        tokens, sizes = self.captions[number], self.captions.sizes
        return any(
            sizes[other] == sizes[number] and torch.equal(tokens, self.captions[other])
            for other in self._captions_of(image).tolist()
        )

    def _captions_of(self, image: int) -> np.ndarray:
        first = self._first[image]
        return self._numbers[first : first + self._count[image]]

    def _cross(self, items: list[Pair]) -> tuple[list[Pair], np.ndarray]:
        """The scored pairs of a batch's *items*, and the questions about them (Q, K)."""
        n = min(self.max_negatives, len(items) - 1)
        places: dict[Pair, int] = {}  # each pair is scored once, even if several items have the image
        of_caption: list[list[int]] = [[] for _ in items]
        of_image: list[list[int]] = [[] for _ in items]
        for i, (row, number) in enumerate(items):
            for step in range(n + 1):
                j = (i + step) % len(items)
                other = items[j][0]
                if step and (other == row or self._describes(number, self._place[other])):
                    continue
                if (other, number) not in places:
                    places[other, number] = len(places)
                    of_caption[i].append(places[other, number])
                of_image[j].append(places[other, number])
        # an image's own pair may not be the first
        own = [places[pair] for pair in items]
        questions = of_caption + [
            [first, *(place for place in asked if place != first)] for first, asked in zip(own, of_image, strict=True)
        ]
        questions = [asked for asked in questions if len(asked) > 1]  # a question needs a negative
        width = max([len(asked) for asked in questions], default=1)
        choices = np.full((len(questions), width), -1, dtype=np.int64)
        for line, asked in zip(choices, questions, strict=True):
            line[: len(asked)] = asked
        return list(places), choices


def _others(rng: np.random.Generator, images: int, own: int) -> Iterator[int]:
    """Endless random images other than *own*."""
    while True:
        image = int(rng.integers(images - 1))
        yield image + (image >= own)


def _some(rng: np.random.Generator, images: np.ndarray) -> Iterator[int]:
    """Endless random draws from *images*."""
    while True:
        yield int(images[rng.integers(len(images))])
