"""Statistics of a region store's features, to tell stores of different detectors apart."""

from __future__ import annotations

from typing import Final

import numpy as np

from xgpt_fairseq.regions.format import FloatArray
from xgpt_fairseq.regions.store import RegionStore

# A sample of this size is precise enough, and takes seconds from a store of any size.
IMAGES: Final = 1000
REGIONS: Final = 50_000
# Fewer images may differ from a checkpoint's by what they show: of its detector, 156 photos were near.
FEWEST_IMAGES: Final = 150


def feature_statistics(
    store: RegionStore, *, images: int = IMAGES, regions: int = REGIONS
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the features in each dimension, (D,) float32 both, over a sample of regions.

    Args:
        store: the region store.
        images: most images to read, evenly spaced over the store; all regions of each are read.
        regions: most regions to read: if the images have more, fewer images are read, but at least one.
    """
    count = min(len(store), images, max(1, regions * len(store) // store.num_regions))
    total = 0
    sums = np.zeros((2, store.feature_dim))  # of the values and of their squares
    origin = None
    for image_index in store.ahead(np.linspace(0, len(store) - 1, count).round().astype(np.int64).tolist()):
        features = store.features(image_index).astype(np.float32)  # (n, D)
        if origin is None:
            origin = features.mean(axis=0)  # near the mean, to keep precision if the mean is far from 0
        features -= origin
        sums[0] += features.sum(axis=0)
        sums[1] += np.einsum("nd,nd->d", features, features)
        total += len(features)
    assert origin is not None
    mean, square = sums / total
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return (origin + mean).astype(np.float32), deviation.astype(np.float32)


def comparable_statistics(store: RegionStore) -> tuple[FloatArray, FloatArray] | None:
    """`feature_statistics` of a store that a trained model is used on; None: too few images to compare with them.

    At most 50 000 regions are read: 200 MB of features of width 2048.
    """
    return feature_statistics(store) if len(store) >= FEWEST_IMAGES else None
