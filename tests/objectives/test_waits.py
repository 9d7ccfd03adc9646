"""Where the host waits for a GPU within an update's passes: nowhere but where captions are in unequal groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.small import build, images
from tests.objectives.batches import objective_of, sample_of
from tests.waits import Waits
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES

WITHOUT_IMAGES = ("mlm", "mass")


def waits_of(name: str, batch: dict[str, torch.Tensor], image_index: torch.Tensor | None = None) -> list[str]:
    """The operators for which the host waits in a loss and its gradients."""
    # without dropout, which has a kernel of its own on CPUs
    options: dict[str, Any] = {"heads": [name], "dropout": 0.0, "attention_dropout": 0.0}
    if not batch:
        options["feature_dim"] = None
    model, objective = build(**options).train(), objective_of(name)
    sample, _ = sample_of(objective, batch, image_index=image_index)
    with Waits() as waits:
        objective.loss(model, sample, label_smoothing=0.1).loss.backward()
    return waits.seen


@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_a_loss_and_its_gradients_wait_for_nothing(name: str) -> None:
    assert waits_of(name, {} if name in WITHOUT_IMAGES else images([4, 2, 3])) == []


def test_unequal_groups_of_captions_wait_once() -> None:
    """For the size of the largest, which all layers use; `docs/speed.md` says so."""
    assert len(waits_of("ic", images([4, 2]), image_index=torch.tensor([0, 0, 1]))) == 1
