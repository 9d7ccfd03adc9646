"""The images that look most like an image, for hard negatives: those whose mean region features are nearest."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from xgpt_fairseq.data.caption_dataset import load_regions
from xgpt_fairseq.io.workers import available_cores
from xgpt_fairseq.regions.format import FloatArray
from xgpt_fairseq.regions.store import RegionStore

logger = logging.getLogger(__name__)

BLOCK: Final = 1024  # images whose similarities to all others are in memory at once
READ: Final = 16  # images whose regions are in memory at once


def hard_images(store: RegionStore, rows: np.ndarray, count: int, *, split: str, device: str) -> np.ndarray:
    """(I, count) the nearest other images of each of *rows* (I,), as places in *rows*: see `nearest_images`.

    Reads the regions of all images once. Equally near images may come in another order on another *device*, as its
    products are rounded otherwise.

    Args:
        split: its name, for the log.
        device: the GPU to compute on, whose memory is free again afterwards; a CPU does what it cannot hold.
    """
    if device != "cpu" and not _fits(len(rows), store.feature_dim, device):
        logger.info(f"{split}: {len(rows):,} images of width {store.feature_dim} do not fit the memory of {device}")
        device = "cpu"
    logger.info(f"{split}: searching the {count} nearest images of each of {len(rows):,} (device: {device})")
    try:
        with own_cores():
            return nearest_images(mean_features(store, rows), count, device)
    finally:
        if device != "cpu":
            torch.cuda.empty_cache()


def mean_features(store: RegionStore, rows: np.ndarray) -> FloatArray:
    """(I, D) float32: the mean of each image's region features. Reads them once, `READ` images at a time."""
    means = np.empty((len(rows), store.feature_dim), dtype=np.float32)
    for start in _progress("reading regions", len(rows), READ):
        images = load_regions(store, rows[start : start + READ])
        regions = (~images["padding_mask"]).sum(dim=1, keepdim=True)  # padding is zeros
        means[start : start + READ] = (images["features"].sum(dim=1, dtype=torch.float32) / regions).numpy()
    return means


def nearest_images(features: FloatArray, count: int, device: str = "cpu") -> np.ndarray:
    """(I, count) int32: the nearest other images of each by cosine, nearest first; ties by index.

    Of images that are as near as the last one, any may be it. *count* is limited to the I - 1 other images.
    Similarities are computed for `BLOCK` images at a time, so that memory grows with I, not with its square.

    Args:
        features: (I, D) float32.
        device: where to compute, in float32.
    """
    unit = F.normalize(torch.from_numpy(features).to(device))
    count = min(count, len(unit) - 1)
    nearest = np.empty((len(unit), count), dtype=np.int32)
    for start in _progress("nearest images", len(unit), BLOCK):
        similarity = unit[start : start + BLOCK] @ unit.T  # (≤ BLOCK, I)
        similarity.diagonal(start).fill_(-torch.inf)  # with itself
        near, places = similarity.topk(count)
        by_index = places.argsort(dim=1)
        order = near.gather(1, by_index).sort(dim=1, descending=True, stable=True).indices
        nearest[start : start + BLOCK] = places.gather(1, by_index).gather(1, order).cpu().numpy()
    return nearest


@contextlib.contextmanager
def own_cores() -> Iterator[None]:
    """torch computes on this process's share of the cores: of several on a machine, torchrun gives each one thread."""
    before, processes = torch.get_num_threads(), os.environ.get("LOCAL_WORLD_SIZE", "")
    if processes.isdigit() and int(processes) > 1:
        torch.set_num_threads(max(before, available_cores() // int(processes)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fits(images: int, width: int, device: str) -> bool:
    """Whether the GPU holds the features twice, and the similarities of a block with room for their largest."""
    free, _ = torch.cuda.mem_get_info(device)
    return bool(4 * images * (2 * width + 4 * BLOCK) < free)


def _progress(what: str, images: int, at_once: int) -> Iterator[int]:
    """0, *at_once*, … below *images*, with a bar on the terminal of the first process."""
    another = torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank()
    with tqdm(total=images, desc=what, unit=" images", unit_scale=True, disable=True if another else None) as bar:
        for start in range(0, images, at_once):
            yield start
            bar.update(min(at_once, images - start))
