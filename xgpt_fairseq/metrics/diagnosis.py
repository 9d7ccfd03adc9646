"""Whether each objective uses its source: its validation loss with the right source, and with wrong ones.

An objective that learns from a text and an image must predict worse if one of them is another pair's. Otherwise it does
not use its source, however low its loss is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives.base import Objective, Symbols
from xgpt_fairseq.precision import autocast

OWN, OTHER_TEXT, OTHER_REGIONS, NEITHER = "own", "other text", "other regions", "neither"
SOURCES = (OWN, OTHER_TEXT, OTHER_REGIONS, NEITHER)
# Of fewer batches there is no interval: two agree by chance, and one agrees with itself.
LEAST_BATCHES = 5
# Where there would be fewer than 8 batches, they are made smaller, so as to be 20.
_FEW, _ENOUGH = 8, 20

Sample = dict[str, Any]


@dataclass(frozen=True)
class Losses:
    """The loss of one objective with one source.

    Attributes:
        sums: (B,) sum of the loss over the predictions of each batch: nats, or squared error.
        predictions: (B,) number of predictions in each sum.
    """

    sums: np.ndarray
    predictions: np.ndarray

    @property
    def mean(self) -> float:
        """The mean over all predictions."""
        return float(self.sums.sum() / self.predictions.sum())


def difference(
    a: Losses, b: Losses, *, resamples: int = 2000, seed: int = 1
) -> tuple[float, tuple[float, float] | None]:
    """The mean loss of *a* minus that of *b* on the same batches, and its 95 % interval (low, high).

    A paired bootstrap: batches are drawn with replacement, the same ones for both. Batches have different images, so
    the interval is over the choice of images. Its ends are moved away from the mean as far as Student's t is wider than
    the normal distribution: a bootstrap of few batches is too narrow. Of fewer than `LEAST_BATCHES` there is none.
    """
    if not np.array_equal(a.predictions, b.predictions):
        raise ValueError("the losses are of different batches")
    if len(a.sums) < LEAST_BATCHES:
        return a.mean - b.mean, None
    draws = np.random.default_rng(seed).integers(len(a.sums), size=(resamples, len(a.sums)))
    means = (a.sums - b.sums)[draws].sum(axis=1) / a.predictions[draws].sum(axis=1)  # (resamples,)
    mean = a.mean - b.mean
    low, high = mean + _widening(len(a.sums)) * (np.quantile(means, [0.025, 0.975]) - mean)
    return mean, (float(low), float(high))


def _widening(count: int) -> float:
    """How many times as wide as its 95 % bootstrap the interval of a mean of *count* values has to be.

    The bootstrap's variance is short of one in *count*; its quantiles are those of a known variance, not of an
    estimated one: t's, by Abramowitz and Stegun 26.7.5, of which the terms left out are less than 0.01.
    """
    z, degrees = 1.959964, count - 1
    t = (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )
    return t / z * math.sqrt(count / degrees)


def number_of_batches(images: int, batch_size: int) -> int:
    """How many batches *images* (2 or more) are divided into, of about *batch_size* or, where they are few, fewer.

    Each batch has another image's caption for each of its own: at least 2 images.
    """
    batches = -(-images // batch_size)
    return min(_ENOUGH if batches < _FEW else batches, images // 2)


def diagnose(
    model: torch.nn.Module,
    dataset: CaptionDataset,
    objectives: dict[str, Objective],
    *,
    symbols: Symbols,
    mean_features: Tensor,
    batch_size: int = 32,
    seed: int = 1,
    cpu_bf16: bool = False,
    progress: Callable[[Sequence[Any]], Iterator[Any]] = iter,
) -> dict[str, dict[str, Losses]]:
    """Compute the losses of *objectives* on *dataset*, with the right and with wrong sources.

    Args:
        model: the model, in its final precision and on its device.
        dataset: dataset of the objectives; an item is an image with its captions.
        symbols: ids of the dictionary.
        mean_features: (D,) features of the single region that replaces an image.
        batch_size: images per batch; of few images, see `number_of_batches`.
        seed: determines which images share a batch, and so the wrong captions and regions.
        progress: wraps the batches, for a progress bar.

    Returns:
        dict: objective → source (of `SOURCES`, if the objective has it) → losses.

    Raises:
        DataError: the data has only one image.
    """
    if len(dataset) < 2:
        raise DataError(f"split {dataset.split!r} has one image: there is no other one for wrong captions or regions")
    device = next(model.parameters()).device
    order = np.random.default_rng(seed).permutation(len(dataset))
    batches = np.array_split(order, number_of_batches(len(order), batch_size))
    found: dict[str, dict[str, list[tuple[float, int]]]] = {name: {} for name in objectives}
    model.eval()
    with torch.no_grad(), autocast(cpu_bf16):
        for batch in progress(batches):
            for place, (name, objective) in enumerate(objectives.items()):
                packed = dataset.index_codec.pack(0, place, batch)
                sample = _to(device, dataset.collater([dataset[int(index)] for index in packed]))
                target = objective.predicts_regions
                others = sources(sample, symbols=symbols, mean_features=mean_features, predicts_regions=target)
                for source, changed in others.items():
                    result = objective.loss(model, changed, label_smoothing=0.0)
                    found[name].setdefault(source, []).append((float(result.unsmoothed), result.num_targets))
    return {
        name: {source: Losses(*np.array(values).T) for source, values in by_source.items()}
        for name, by_source in found.items()
    }


def sources(
    sample: Sample, *, symbols: Symbols, mean_features: Tensor, predicts_regions: bool = False
) -> dict[str, Sample]:
    """*sample* with its own source and with the possible wrong ones; targets do not change.

    The encoder's text (IMLM, IDA, TIFG) and regions (IC, IMLM, IDA) can be exchanged; TIFG's regions are its target.
    Other captions are those of another image, masked as for their own prediction. `neither` removes the source: the
    text becomes one [MASK] and the end of sentence, the regions one region with the mean of all features.

    Args:
        predicts_regions: whether the regions are the target (`Objective.predicts_regions`).
    """
    net_input = sample["net_input"]
    has_text, has_regions = "src_tokens" in net_input, "features" in net_input and not predicts_regions
    found = {OWN: sample}
    if has_text:
        found[OTHER_TEXT] = _with(sample, src_tokens=_other_captions(sample))
    if has_regions:
        images = len(net_input["features"])
        shift = images // 2
        rolled = {name: net_input[name].roll(shift, 0) for name in ("features", "boxes", "padding_mask")}
        found[OTHER_REGIONS] = _with(sample, **rolled)
    nothing: dict[str, Tensor] = {}
    if has_text:
        text = net_input["src_tokens"]
        nothing["src_tokens"] = text.new_tensor([symbols.mask, symbols.eos]).expand(text.size(0), -1)  # (C, 2)
    if has_regions:
        features, boxes = net_input["features"], net_input["boxes"]
        nothing["features"] = mean_features.to(features).expand(images, 1, -1)  # (I, 1, D)
        nothing["boxes"] = boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(images, 1, -1)  # (I, 1, 4)
        nothing["padding_mask"] = net_input["padding_mask"].new_zeros(images, 1)  # (I, 1)
    found[NEITHER] = _with(sample, **nothing)
    return found


def _other_captions(sample: Sample) -> Tensor:
    """(C, S) source texts of other images' captions, one for each caption."""
    text = sample["net_input"]["src_tokens"]  # (C, S)
    images = len(sample["image_ids"])
    image = torch.from_numpy(sample["image_index"]).to(text.device)  # (C,), in order
    counts = torch.bincount(image, minlength=images)  # (I,)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(text.size(0), device=text.device) - starts[image]
    other = (image + images // 2) % images
    return text.index_select(0, starts[other] + rank % counts[other])


def _with(sample: Sample, **changed: Tensor) -> Sample:
    return {**sample, "net_input": {**sample["net_input"], **changed}}


def _to(device: torch.device, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return {key: _to(device, each) for key, each in value.items()} if isinstance(value, dict) else value
