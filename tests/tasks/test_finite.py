"""Batches that are run again since their gradients were not finite."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.tasks.finite import RepeatedBatches, refuse_not_finite


def batch(*, objective: str = "ic", images: int = 3) -> dict[str, Any]:
    values = {"features": torch.zeros(images, 2, 4), "boxes": torch.zeros(images, 2, 4)}
    ids = [str(n) for n in range(images)]
    return {"image_ids": ids, "id": torch.arange(images), "objective": objective, "net_input": values}


def test_a_batch_that_comes_again_within_an_update() -> None:
    batches = RepeatedBatches()
    assert not batches.is_repeated(batch(), 5)
    assert not batches.is_repeated(batch(objective="tifg"), 5)  # of --update-freq 2
    assert not batches.is_repeated({**batch(), "id": torch.tensor([5, 6, 7])}, 5)  # other captions of the same images
    assert batches.is_repeated(batch(), 5)
    assert not batches.is_repeated(batch(), 6)
    assert not batches.is_repeated({"objective": "mlm"}, 6) and not batches.is_repeated({"objective": "mlm"}, 6)


@pytest.mark.parametrize("name", ["features", "boxes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_regions(name: str, value: float) -> None:
    sample = batch()
    refuse_not_finite(sample, 0, diverged=False)
    sample["net_input"][name][1, 0, 2] = value
    parts = [{"objective": "mlm", "uses_regions": False, "net_input": {}}, {"uses_regions": True, "net_input": {}}]
    joint = {**batch(), "objective": "joint", "images": sample["net_input"], "parts": parts}
    for each, objective in ((sample, "ic"), (joint, "joint")):
        message = f"update 7, objective {objective}: the {name} of image 1 are not finite; the region store has changed"
        with pytest.raises(DataError, match=re.escape(message)):
            refuse_not_finite(each, 6, diverged=False)


def test_a_training_that_diverges() -> None:
    message = "update 1, objective ic: the gradients are not finite, though the regions are (images 0, 1, 2, 3, 4 "
    with pytest.raises(DataError, match=re.escape(message)):
        refuse_not_finite(batch(images=8), 0, diverged=True)
