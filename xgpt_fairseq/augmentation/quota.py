"""The number of captions for each image, from their average."""

from __future__ import annotations

import math

import numpy as np


def quotas(images: int, per_image: float, seed: int) -> np.ndarray:
    """Per-image counts with a given mean: with 2.1, 2 for every image, and 3 for a random tenth (by *seed*).

    Args:
        images: number of images.
        per_image: average number of captions per image, 0 or more.
        seed: determines which images get one more.

    Returns:
        ndarray: int64 (images,); the sum is *images* × *per_image*, rounded.
    """
    total = math.floor(images * per_image + 0.5)
    counts = np.full(images, total // images if images else 0, dtype=np.int64)
    more = np.random.default_rng([seed, images]).permutation(images)[: total - counts.sum()]
    counts[more] += 1
    return counts
