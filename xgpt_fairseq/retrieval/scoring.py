"""Scores all pairs of a pool of captions and images with a retrieval model, to compute recall.

Regions are embedded and refined once per image, and captions are embedded once per block. Regions and text attend to
each other in all of the encoder's layers, so each of the C · I pairs goes through all layers. (Only the first layer's
projections are the same for all pairs of a caption or an image.)

A folder of scores, which any model can write:

    scores.npy    (C, I) float32: one row per caption, one column per image; higher is better
    ids.json      {"captions": the image id of each row's caption, "images": the image id of each column}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.caption_dataset import load_regions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.objective_dataset import pad_right
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import write_json
from xgpt_fairseq.loading import open_model
from xgpt_fairseq.models.xgpt import XGPTModel
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.precision import autocast
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.store import RegionStore

SCORES, IDS = "scores.npy", "ids.json"
IMAGES_AT_ONCE = 64  # per batch, with as many captions as its size allows


@dataclass(frozen=True)
class Pool:
    """The captions and images to search.

    Attributes:
        captions: (C,) token ids (T,) with end of sentence.
        image_rows: (I,) indices in the region store.
        image_of_caption: (C,) the index of each caption's image in *image_rows*.
        image_ids: ids of the images.
        truncated_captions: number of captions longer than the model's limit.
    """

    captions: list[np.ndarray]
    image_rows: np.ndarray
    image_of_caption: np.ndarray
    image_ids: list[str]
    truncated_captions: int = 0


def read_pool(directory: DataDirectory, splits: Sequence[str], *, longest: int) -> Pool:
    """Read all captions and images of *splits* as one pool.

    Args:
        longest: most tokens of a caption, end of sentence included; longer captions are truncated.

    Raises:
        DataError: a split is not in the directory, or is named twice.
    """
    if len(set(splits)) < len(splits):
        raise DataError(f"--splits {','.join(splits)}: a split is named twice")
    captions: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    truncated_captions = 0
    for split in splits:
        rows.append(np.asarray(directory.pairs(split)))
        for tokens in directory.captions(split):
            array = tokens.numpy()
            if len(array) > longest:
                array, truncated_captions = np.append(array[: longest - 1], array[-1]), truncated_captions + 1
            captions.append(array)
    image_rows, image_of_caption = np.unique(np.concatenate(rows), return_inverse=True)
    image_ids = [directory.regions.image_id(int(row)) for row in image_rows]
    return Pool(captions, image_rows, image_of_caption, image_ids, truncated_captions)


def load_model(path: Path, directory: DataDirectory) -> XGPTModel:
    """Load the retrieval model in checkpoint *path* for the vocabulary and regions of *directory*.

    Raises:
        DataError: another kind of model, or one with another feature width or dictionary.
    """
    objectives = build_objectives(["matching"], directory.vocabulary.dictionary)
    return open_model(path, load_checkpoint(path), directory, objectives=objectives)


class PoolScorer:
    """Scores the captions of a pool, block by block, against all of its images.

    Captions are sorted by length and images by number of regions, to minimise padding.

    Args:
        model: a model with a matching head, in its final precision.
        store: the regions of *pool*.
        batch_size: pairs per batch of the encoder.
        cpu_bf16: compute in bfloat16 on a CPU.

    Attributes:
        blocks: number of blocks of captions.
    """

    def __init__(
        self, model: XGPTModel, pool: Pool, store: RegionStore, *, batch_size: int, cpu_bf16: bool = False
    ) -> None:
        self.model = model
        self.head: Any = model.heads["matching"]
        self.pool = pool
        self.cpu_bf16 = cpu_bf16
        self.device = model.dictionary_digest.device
        self.captions = np.argsort([len(tokens) for tokens in pool.captions], kind="stable")
        images = np.argsort(store.region_counts(pool.image_rows), kind="stable")
        at_once = min(IMAGES_AT_ONCE, batch_size, len(images))
        self.captions_at_once = batch_size // at_once
        self.blocks = -(-len(self.captions) // self.captions_at_once)
        # (places in the pool, regions (b, N, H), mask (b, 1, 1, N)): kept for all captions, I · N · H values
        self.images: list[tuple[np.ndarray, Tensor, Tensor]] = []
        with torch.inference_mode(), autocast(cpu_bf16):
            for start in range(0, len(images), at_once):
                places = images[start : start + at_once]
                batch = {name: x.to(self.device) for name, x in load_regions(store, pool.image_rows[places]).items()}
                self.images.append((places, *model.encoder.embed_images(**batch)))

    @torch.inference_mode()
    def score(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Score block *block*. Returns its captions' indices (c,) in the pool, and their scores (c, I) float32."""
        places = self.captions[block * self.captions_at_once :][: self.captions_at_once]
        tokens = pad_right([self.pool.captions[i] for i in places], self.model.encoder.padding_idx).to(self.device)
        scores = np.empty((len(places), len(self.pool.image_rows)), dtype=np.float32)
        with autocast(self.cpu_bf16):
            text, text_mask = self.model.encoder.embed_text(tokens)  # (c, S, H), (c, 1, 1, S)
            for images, regions, mask in self.images:
                b = len(images)
                encoded = self.model.encoder.encode_pairs(
                    regions,
                    mask,
                    text.repeat_interleave(b, dim=0),
                    text_mask.repeat_interleave(b, dim=0),
                    torch.arange(b, device=self.device).repeat(len(places)),
                )
                matched = self.head.score_encoded(encoded, regions.size(1))  # (c · b,)
                scores[:, images] = matched.view(len(places), b).cpu().numpy()
        return places, scores


def score_pool(
    scorer: PoolScorer,
    file: Path,
    *,
    start: int,
    save: Callable[[int], None],
    every: int,
    progress: Callable[[int], object],
) -> None:
    """Fill *file*, scores.npy of the pool, from block *start* on.

    Args:
        save: called with the number of blocks on disk, every *every* blocks and at the end.
        progress: called after each block with its number of captions.
    """
    pool = scorer.pool
    shape = (len(pool.captions), len(pool.image_rows))
    mode: Any = "r+" if start else "w+"
    matrix = np.lib.format.open_memmap(file, mode=mode, dtype=np.float32, shape=None if start else shape)
    for block in range(start, scorer.blocks):
        places, scores = scorer.score(block)
        matrix[places] = scores
        progress(len(places))
        if (block + 1) % every == 0 or block + 1 == scorer.blocks:
            matrix.flush()
            save(block + 1)


def write_ids(folder: Path, pool: Pool) -> None:
    """Write ids.json of *pool*."""
    captions = [pool.image_ids[i] for i in pool.image_of_caption.tolist()]
    write_json(folder / IDS, {"captions": captions, "images": pool.image_ids}, indent=None)


def read_scores(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Read a folder of scores: the matrix (C, I), memory-mapped; the column of each caption's image; the image ids.

    Raises:
        DataError: a file is missing or invalid, or the files do not agree.
    """
    matrix_file, ids_file = folder / SCORES, folder / IDS
    try:
        ids = json.loads(ids_file.read_text(encoding="utf-8"))
        captions, images = ([canonical_image_id(each) for each in ids[name]] for name in ("captions", "images"))
    except OSError as error:
        raise DataError(f"{ids_file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{ids_file} is not {{"captions": [image id of each row], "images": [image id of each column]}}: {error!r}'
        ) from None
    column = {image: place for place, image in enumerate(images)}
    if len(column) < len(images):
        raise DataError(f'{ids_file}: an image occurs twice in "images"')
    unknown = [image for image in captions if image not in column]
    if unknown:
        raise DataError(f'{ids_file}: image {unknown[0]} of a caption is not among "images"')
    try:
        matrix = np.load(matrix_file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{matrix_file}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{matrix_file} is not an array of numbers: {error}") from None
    if matrix.shape != (len(captions), len(images)) or matrix.dtype.kind not in "fiu":
        raise DataError(
            f"{matrix_file} has shape {matrix.shape} and type {matrix.dtype}; {ids_file.name} names {len(captions)} "
            f"captions and {len(images)} images: numbers of shape ({len(captions)}, {len(images)}) are needed"
        )
    return matrix, np.array([column[image] for image in captions], dtype=np.int64), images
