"""Tells images that look unlike a model's training images, whose captions are probably wrong.

The distance is PCA's reconstruction error, a common measure of novelty. An image is the mean of its regions' features,
(D,); a subspace is fitted to those of training images, and what it does not explain of an image is the distance.
Other training images, to which the subspace was not fitted, show which distances are usual.

Measured with grids of 4 x 4 cells at 224 pixels, EfficientNet-lite0, D = 1280; 1 000 training images each, 210 of the
scenes. Distances in units of the median:

    trained on        drawn scenes       Flickr8k           Flickr8k and COCO
    limit             1.34               1.61               1.53
    drawn scenes      0.74 to 1.52       1.08 to 1.68       1.04 to 1.64
    Flickr8k          1.47 to 2.54       0.67 to 1.48       0.70 to 1.50
    COCO              1.36 to 2.69       0.68 to 1.66       0.68 to 1.62

So a captioner of scenes notices nearly every photo. One of photos notices few scenes one by one, since photos differ
more among themselves, but ten of them together, by their median: 1.26 to 1.31, where other photos have at most 1.06.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.regions.format import FloatArray
from xgpt_fairseq.regions.store import RegionStore

Features = npt.NDArray[np.floating[Any]]

# A sample of this size is precise enough, and is read in a second.
IMAGES: Final = 1000
# Of fewer images, neither a subspace nor a limit can be known.
FEWEST_IMAGES: Final = 200
# Dimensions of the subspace, at most an eighth of all; 16 to 64 tell images apart about equally well.
DIRECTIONS: Final = 32
# Images that are judged together, by their median distance.
GROUP: Final = 10
_DRAWS: Final = 1000
_MARGIN: Final = 1.05  # other images than those that were looked at may be a little farther


@dataclass(frozen=True)
class NoveltyDetector:
    """Distances of images from a model's training images.

    Attributes:
        mean: (D,) of the training images.
        directions: (k, D) orthonormal rows that span the subspace.
        median: of the training images' distances, the unit of `distance`.
        limit: hardly any training image is farther: 5 % more than the farthest of those that were looked at, in units
            of the median.
        group_limit: of ten such images, drawn a thousand times, none had a larger median. In units of the median.
    """

    mean: FloatArray
    directions: FloatArray
    median: float
    limit: float
    group_limit: float

    @classmethod
    def fit(cls, store: RegionStore, image_indices: npt.NDArray[np.integer[Any]]) -> Self | None:
        """A detector of images unlike those with *image_indices* in *store*; None if they are too few.

        At most `IMAGES` of them are read. Half fit the subspace, the others the limits.
        """
        distinct = np.unique(image_indices)
        if len(distinct) < FEWEST_IMAGES:
            return None
        sample = np.random.default_rng(0).permutation(distinct)[:IMAGES].tolist()
        images = np.stack([_image(store.features(index)) for index in store.ahead(sample)])
        fitted, others = np.array_split(images, 2)
        mean = fitted.mean(axis=0)
        directions = np.linalg.svd(fitted - mean, full_matrices=False)[2][: min(DIRECTIONS, images.shape[1] // 8)]
        distances = _distances(others, mean, directions)
        median = max(float(np.median(distances)), float(np.finfo(np.float32).tiny))
        drawn = np.random.default_rng(0).choice(distances, (_DRAWS, GROUP))
        return cls(
            mean,
            directions,
            median,
            _MARGIN * float(distances.max()) / median,
            float(np.median(drawn, 1).max()) / median,
        )

    def distance(self, features: Features) -> float:
        """The distance of an image from the training images, by its regions' *features* (n, D); 1 for half of those."""
        return float(_distances(_image(features)[None], self.mean, self.directions)[0]) / self.median


def _image(features: Features) -> FloatArray:
    """(n, D) → (D,)"""
    mean: FloatArray = features.mean(axis=0, dtype=np.float32)
    return mean


def _distances(images: FloatArray, mean: FloatArray, directions: FloatArray) -> FloatArray:
    """images (N, D) → (N,)"""
    centred = images - mean
    rest = centred - centred @ directions.T @ directions
    distances: FloatArray = np.sqrt(np.einsum("nd,nd->n", rest, rest))
    return distances
