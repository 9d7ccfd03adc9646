"""From detected regions to the encoder's input, against the plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import reference
from tests.models.small import (
    HEADS,
    build,
    images,
)
from xgpt_fairseq.models.xgpt import SHARING_LAYERS


def test_refiner_equals_appendix_a1():
    model = build(refine_layers=2).double()
    batch = images([4], dtype=torch.float64)
    mask = ~batch["padding_mask"][:, None, None, :]
    ours = model.encoder.regions(batch["features"], batch["boxes"], mask)[0].detach().numpy()
    p = reference.parameters_of(model)
    expected = reference.regions(p, batch["features"][0].double().numpy(), batch["boxes"][0].numpy(), HEADS)
    np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_normalized_regions_have_length_one():
    model = build(normalize_regions=True).double()
    batch = images([4], dtype=torch.float64)
    p = reference.parameters_of(model)
    features = batch["features"][0].double().numpy()
    scaled = np.array([row / np.sqrt((row**2).sum()) for row in features])
    mask = ~batch["padding_mask"][:, None, None, :]
    ours = model.encoder.regions(batch["features"], batch["boxes"], mask)[0].detach().numpy()
    expected = reference.regions(p, scaled, batch["boxes"][0].numpy(), HEADS)
    np.testing.assert_allclose(ours, expected, atol=1e-6)  # the length is taken in float32


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_regions_are_a_set(sharing):
    model = build(sharing=sharing)
    batch = images([6])
    order = torch.randperm(6)
    tokens = torch.tensor([[2, 5, 6]])
    shuffled = {name: tensor[:, order] for name, tensor in batch.items()}
    with torch.no_grad():
        logits, _ = model(**batch, prev_output_tokens=tokens)
        again, _ = model(**shuffled, prev_output_tokens=tokens)
    torch.testing.assert_close(logits, again, atol=1e-5, rtol=1e-5)
