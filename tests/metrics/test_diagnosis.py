"""Sources of an objective, changed: whose they are, and what that does to losses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.diagnosis import (
    NEITHER,
    OTHER_REGIONS,
    OTHER_TEXT,
    OWN,
    Losses,
    diagnose,
    difference,
    number_of_batches,
    sources,
)
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols
from xgpt_fairseq.objectives.base import ObjectiveLoss
from xgpt_fairseq.regions.store import RegionStore

SYMBOLS = Symbols(pad=1, eos=2, mask=900, words=(4, 900))
MEAN = torch.full((16,), 0.5)


class Captions(list):
    sizes: np.ndarray


def dataset(store, rows: list[int], objectives: dict[str, Any]) -> CaptionDataset:
    """Captions of these images; the words of caption n are 10 n + 10, 10 n + 11, …"""
    captions = Captions(torch.tensor([*range(10 * n + 10, 10 * n + 13 + n % 3), 2]) for n in range(len(rows)))
    captions.sizes = np.array([len(tokens) for tokens in captions])
    return CaptionDataset(
        captions, np.array(rows), RegionStore(store), objectives, split="valid", pad=1, captions_per_image=0,
        shuffle=False,
    )  # fmt: skip


def batch(store, rows: list[int], name: str) -> dict[str, Any]:
    data = dataset(store, rows, {name: PRETRAINING_OBJECTIVES[name](SYMBOLS)})
    return data.collater([data[i] for i in range(len(data))])


def caption_of(text: torch.Tensor) -> list[int]:
    """The caption that each row of a source text (C, S) was made of, by most of its kept words: a few are random."""
    return [Counter((w - 10) // 10 for w in row if w not in (1, 2, 900)).most_common(1)[0][0] for row in text.tolist()]


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2], [3, 4, 4]], ids=str)
@pytest.mark.parametrize("name", ["imlm", "ida", "tifg", "mlm", "mass"])
def test_the_other_text_is_a_caption_of_another_image(name: str, rows: list[int], tiny_store) -> None:
    sample = batch(tiny_store, rows, name)
    found = sources(sample, symbols=SYMBOLS, mean_features=MEAN)
    own, other = (caption_of(found[source]["net_input"]["src_tokens"]) for source in (OWN, OTHER_TEXT))
    assert own == list(range(len(rows)))
    assert all(rows[a] != rows[b] for a, b in zip(own, other, strict=True))
    for key in ("features", "boxes", "prev_output_tokens"):
        assert found[OTHER_TEXT]["net_input"].get(key) is sample["net_input"].get(key)
    assert found[OTHER_TEXT]["target"] is sample["target"]


@pytest.mark.parametrize("name", ["ic", "imlm", "ida"])
def test_the_other_regions_are_another_image_s(name: str, tiny_store) -> None:
    sample = batch(tiny_store, [0, 0, 3, 5, 5], name)
    other = sources(sample, symbols=SYMBOLS, mean_features=MEAN)[OTHER_REGIONS]["net_input"]
    store = RegionStore(tiny_store)
    for place, row in enumerate([5, 0, 3]):  # half of three images on: one
        count = len(store.features(row))
        np.testing.assert_array_equal(other["features"][place, :count].numpy(), store.features(row))
        np.testing.assert_array_equal(other["boxes"][place, :count].numpy(), store.boxes(row))
        assert other["padding_mask"][place].tolist() == [i >= count for i in range(other["features"].size(1))]
    assert other.get("src_tokens") is sample["net_input"].get("src_tokens")


def test_each_objective_has_the_sources_that_it_has(tiny_store) -> None:
    kinds = {
        name: set(
            sources(
                batch(tiny_store, [0, 1, 2], name),
                symbols=SYMBOLS,
                mean_features=MEAN,
                predicts_regions=objective.predicts_regions,
            )
        )
        for name, objective in PRETRAINING_OBJECTIVES.items()
    }
    assert kinds == {
        "ic": {OWN, OTHER_REGIONS, NEITHER},
        "imlm": {OWN, OTHER_TEXT, OTHER_REGIONS, NEITHER},
        "ida": {OWN, OTHER_TEXT, OTHER_REGIONS, NEITHER},
        "tifg": {OWN, OTHER_TEXT, NEITHER},  # its regions are the target
        "mlm": {OWN, OTHER_TEXT, NEITHER},
        "mass": {OWN, OTHER_TEXT, NEITHER},
    }


def test_neither_leaves_nothing_of_the_source(tiny_store) -> None:
    left = sources(batch(tiny_store, [0, 0, 3], "ida"), symbols=SYMBOLS, mean_features=MEAN)[NEITHER]["net_input"]
    assert left["src_tokens"].tolist() == [[900, 2]] * 3
    assert left["features"].shape == (2, 1, 16) and (left["features"] == 0.5).all()
    assert left["boxes"].tolist() == [[[0, 0, 1, 1]]] * 2 and not left["padding_mask"].any()


class FirstWord:
    """A loss that reads the text alone: 0 where its first word is the target's, else 2 a prediction."""

    name, uses_regions, predicts_regions, random, metric_name = "ida", True, False, False, "nll"

    def make_example(self, tokens: np.ndarray, rng: Any) -> dict[str, np.ndarray]:
        return {"src_tokens": tokens, "target": tokens}

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        right = sample["net_input"]["src_tokens"][:, 0] == sample["target"][:, 0]
        words = (sample["target"] != 1).sum(dim=1)
        loss = (2.0 * words * ~right).sum()
        return ObjectiveLoss(loss=loss, unsmoothed=loss, num_targets=int(words.sum()), correct=None)


def test_what_an_objective_does_not_read_makes_no_difference(tiny_store) -> None:
    data = dataset(tiny_store, [0, 0, 1, 2, 3, 4, 4, 5], {"ida": FirstWord()})
    found = diagnose(
        torch.nn.Linear(1, 1), data, {"ida": FirstWord()}, symbols=SYMBOLS, mean_features=MEAN, batch_size=2
    )["ida"]
    assert len(found[OWN].sums) == 3  # batches of two images
    assert found[OWN].mean == 0
    assert difference(found[OTHER_REGIONS], found[OWN]) == (0, None)  # of three batches there is no interval
    assert difference(found[OTHER_TEXT], found[OWN]) == (2, None)
    assert found[NEITHER].mean == 2


def test_one_image_has_no_other(tiny_store) -> None:
    with pytest.raises(DataError, match="split 'valid' has one image: there is no other"):
        diagnose(
            torch.nn.Linear(1, 1), dataset(tiny_store, [0, 0], {"ida": FirstWord()}), {"ida": FirstWord()},
            symbols=SYMBOLS, mean_features=MEAN,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("images", "size", "batches"),
    [
        (2, 32, 1), (4, 32, 2), (5, 2, 2), (20, 32, 10), (40, 32, 20), (100, 32, 20), (224, 32, 20),
        (252, 32, 8), (5000, 32, 157), (21, 2, 10),
    ],
)  # fmt: skip
def test_few_images_are_in_small_batches(images: int, size: int, batches: int) -> None:
    assert number_of_batches(images, size) == batches
    assert min(len(each) for each in np.array_split(np.arange(images), batches)) >= 2


@pytest.mark.parametrize(("images", "has_interval"), [(4, False), (20, True)])
def test_few_images_have_an_interval_or_none(images: int, has_interval: bool) -> None:
    batches = number_of_batches(images, 32)
    predictions = np.full(batches, 100)
    own = Losses(np.linspace(100, 300, batches), predictions)
    other = Losses(own.sums + 50 + np.random.default_rng(0).normal(0, 10, batches), predictions)
    mean, interval = difference(other, own)
    assert mean == pytest.approx(0.5, abs=0.1)
    assert (interval is not None) == has_interval
    if interval is not None:
        assert interval[0] < mean < interval[1]


@pytest.mark.parametrize(("batches", "t"), [(5, 2.776), (8, 2.365), (20, 2.093), (1000, 1.962)])
def test_few_batches_have_a_wider_interval(batches: int, t: float) -> None:
    """As wide as Student's interval of their mean: a bootstrap of 8 would contain the truth 88 times in 100."""
    values = np.random.default_rng(1).normal(0.5, 1, size=batches)
    values = 0.5 + (values - values.mean()) / values.std(ddof=1)
    ones = np.ones(batches)
    mean, interval = difference(Losses(values, ones), Losses(0 * ones, ones), resamples=20_000)
    assert mean == pytest.approx(0.5) and interval is not None
    # the bootstrap's own quantiles stray a little: of five values they are not quite the normal distribution's
    assert (interval[1] - interval[0]) / 2 == pytest.approx(t / batches**0.5, rel=0.1)


def test_the_interval_is_paired() -> None:
    """Batches that differ widely, and a difference that is the same in all of them."""
    rng = np.random.default_rng(0)
    predictions = rng.integers(50, 60, size=40)
    b = Losses(rng.uniform(1, 9, size=40) * predictions, predictions)
    a = Losses(b.sums + 0.5 * predictions, predictions)
    mean, interval = difference(a, b)
    assert mean == pytest.approx(0.5) and interval == pytest.approx((0.5, 0.5))
    noisy = Losses(a.sums + rng.normal(0, 0.2, size=40) * predictions, predictions)
    mean, interval = difference(noisy, b)
    assert interval is not None
    low, high = interval
    assert low < mean < high
    assert (high - low) / 2 == pytest.approx(1.96 * 0.2 / 40**0.5, rel=0.4)  # standard error of a mean of 40
    with pytest.raises(ValueError, match="of different batches"):
        difference(a, Losses(b.sums, predictions + 1))
