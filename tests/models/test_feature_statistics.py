"""Which features are far from each other: against numpy, on made-up features and on those of real photos."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xgpt_fairseq.models.feature_statistics import Distance, distance

Statistics = tuple[Tensor, Tensor]


def of(features: np.ndarray) -> Statistics:
    """(n, D) → mean and standard deviation (D,)."""
    exact = features.astype(np.float64)
    return torch.from_numpy(exact.mean(axis=0)).float(), torch.from_numpy(exact.std(axis=0)).float()


def made_up(seed: int, dimensions: int = 512, network: int = 0, regions: int = 2000) -> np.ndarray:
    """Features (n, D) as ReLUs give them; each *network* has its own dimensions."""
    own = np.random.default_rng(network)
    scale, shift = own.uniform(0.5, 1.5, dimensions), own.uniform(-1, 0.5, dimensions)
    return np.maximum(np.random.default_rng([seed, 7]).normal(size=(regions, dimensions)) * scale + shift, 0)


def test_against_numpy() -> None:
    a, b = made_up(1), 1.2 * made_up(2, network=1) + 0.1
    found = distance(of(a), of(b))
    spread = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2)
    assert found.dimensions == 512
    assert found.shift == pytest.approx(np.sqrt((((a.mean(axis=0) - b.mean(axis=0)) / spread) ** 2).mean()), rel=1e-4)
    assert found.ratio == pytest.approx(np.sqrt(b.var(axis=0).mean() / a.var(axis=0).mean()), rel=1e-4)
    of_means = np.corrcoef(a.mean(axis=0), b.mean(axis=0))[0, 1]
    of_spreads = np.corrcoef(a.std(axis=0), b.std(axis=0))[0, 1]
    assert found.correlation == pytest.approx((of_means + of_spreads) / 2, rel=1e-3)
    assert distance(of(b), of(a)) == pytest.approx(found)


def test_other_features_of_one_network_are_near() -> None:
    for factor in (0.7, 1, 1.4):
        assert not distance(of(made_up(1)), of(factor * made_up(2))).far


FAR: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "dimensions in another order": lambda features: features[:, np.random.default_rng(0).permutation(512)],
    "one dimension further": lambda features: np.roll(features, 1, axis=1),
    "another network": lambda features: made_up(2, network=1),
    "twice as large": lambda features: 2 * features,
    "half as large": lambda features: features / 2,
    "in 0 to 255": lambda features: 255 * features,
    "of length 1": lambda features: features / np.linalg.norm(features, axis=1, keepdims=True),
    "of mean 0 and spread 1": lambda features: (features - features.mean(axis=0)) / features.std(axis=0),
    "shifted": lambda features: features + 1,
}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("change", FAR.values(), ids=FAR)
def test_what_is_far(change: Callable[[np.ndarray], np.ndarray], half: bool) -> None:
    pair = of(made_up(1)), of(change(made_up(2)))
    if half:  # as a model in float16 has them
        pair = tuple((mean.half(), spread.half()) for mean, spread in pair)  # type: ignore[assignment]
    assert distance(*pair).far


def test_large_values_in_half_precision() -> None:
    """Their squares are infinite in float16."""
    a, b = ((mean.half(), spread.half()) for mean, spread in (of(9000 * made_up(1)), of(9000 * made_up(2))))
    found = distance(a, b)
    assert not found.far and found[1:] == pytest.approx(distance(of(made_up(1)), of(made_up(2)))[1:], rel=0.01)


def test_few_dimensions_correlate_by_chance() -> None:
    """So that their order says nothing; scale and shift do."""
    found = distance(of(made_up(1, 16)), of(made_up(2, 16, network=5)))
    assert found.correlation < found.by_chance and found.shift > 0.1 and not found.far
    assert distance(of(made_up(1, 16)), of(2 * made_up(2, 16))).far


def test_dimensions_that_are_all_alike_are_near() -> None:
    """No order can be seen in them, and none matters."""
    draw = np.random.default_rng(0).normal(size=(2, 5000, 512))
    assert not distance(of(draw[0]), of(draw[1])).far


def test_features_that_never_fire() -> None:
    """A dimension that is 0 in one store and rarely more in the other tells nothing; nor do stores of one value."""
    a, b = made_up(1), made_up(2)
    a[:, :20] = b[:, :20] = 0
    b[0, :20] = 0.01
    assert distance(of(a), of(b)).shift < 0.1
    constant = torch.ones(512), torch.zeros(512)
    assert distance(constant, constant) == Distance(512, 0.0, 1.0, 0.0)
    assert not distance(constant, constant).far
    assert distance(constant, (torch.zeros(512), torch.zeros(512))).far
    assert distance(of(a), constant).far


def test_it_is_said_in_numbers() -> None:
    assert str(Distance(900, 0.127, 1.934, -0.04)) == (
        "the means are 0.13 of a spread apart (far: 0.5), the spreads differ by a factor of 1.93 (far: 1.75), and over "
        "the 900 dimensions both correlate by -0.04 (far: below 0.10, as by chance)"
    )
    assert Distance(900, 0.2, 1.0, 0.0).by_chance == 3 / math.sqrt(900)


def test_real_photos(coco_mini: Path) -> None:
    """Boxes in half of the photos against boxes in the others, and against cells of a grid by the same network."""
    extractor_of = pytest.importorskip("xgpt_fairseq.vision.extractor").RegionExtractor
    files = sorted((coco_mini / "att").iterdir())
    first, second = (np.concatenate([np.load(file)["feat"] for file in files[start::2]]) for start in (0, 1))
    extractor = extractor_of(grid=4, image_size=224, device="cpu")
    photos = sorted((coco_mini / "images").iterdir())[::4]
    cells = np.concatenate([each.features for each in extractor.extract([extractor.load(photo) for photo in photos])])
    boxes, other_boxes, grid = of(first), of(second), of(cells)
    assert not distance(boxes, other_boxes).far
    assert not distance(boxes, grid).far
    shuffled = np.random.default_rng(0).permutation(1280)
    for mine, yours in ((boxes, other_boxes), (boxes, grid)):
        assert distance(mine, tuple(each[shuffled] for each in yours)).far  # type: ignore[arg-type]
    assert distance(boxes, tuple(2 * each for each in other_boxes)).far  # type: ignore[arg-type]
