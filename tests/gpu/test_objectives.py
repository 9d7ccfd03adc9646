"""Each objective and structure on a GPU: loss and gradients as on a CPU in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.gpu.conftest import PRECISIONS
from tests.models.small import build, images
from tests.objectives.batches import objective_of, sample_of
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTModel
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES

SIZES = {"hidden_size": 128, "ffn_size": 256, "attention_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}
WITHOUT_IMAGES = ("mlm", "mass")


def on(device: torch.device, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: on(device, part) for name, part in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def loss_and_gradient(
    model: XGPTModel, name: str, device: torch.device, dtype: torch.dtype
) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean loss, and its gradients, of three captions on two images of unlike numbers of regions."""
    text = name in WITHOUT_IMAGES
    batch = {} if text else images([40, 33])
    sample, _ = sample_of(objective_of(name), batch, image_index=None if text else torch.tensor([0, 0, 1]))
    with torch.no_grad():  # of a trained model's size: the wide ones of `build` make the softmax a maximum
        for parameter_name, parameter in model.named_parameters():
            if "norm" not in parameter_name:
                parameter.mul_(0.15)
    model = model.to(device, dtype).train()
    result = objective_of(name).loss(model, on(device, sample), label_smoothing=0.1)
    loss = result.loss / result.num_targets
    loss.backward()
    found = {name: p.grad.cpu().double() for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


@pytest.fixture
def no_waits(device: torch.device) -> Iterator[None]:
    """On a GPU, an operator for which the host waits is an error."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    yield
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_a_loss_and_its_gradients_wait_for_nothing(device, name, request):
    text = name in WITHOUT_IMAGES
    model = build(heads=[name], **SIZES | ({"feature_dim": None} if text else {})).to(device).train()
    sample = on(device, sample_of(objective_of(name), {} if text else images([40, 33, 20]))[0])
    request.getfixturevalue("no_waits")
    objective_of(name).loss(model, sample, label_smoothing=0.1).loss.backward()


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_loss_and_gradients_are_those_of_a_cpu(device, name, sharing, dtype):
    options = {"sharing": sharing, **SIZES} | ({"feature_dim": None} if name in WITHOUT_IMAGES else {})
    expected, exact = loss_and_gradient(build(heads=[name], **options), name, torch.device("cpu"), torch.float32)
    found, gradients = loss_and_gradient(build(heads=[name], **options), name, device, dtype)
    assert found == pytest.approx(expected, rel=TOLERANCE[dtype])
    assert gradients.keys() == exact.keys()
    norm = torch.cat([g.flatten() for g in exact.values()]).norm()
    difference = torch.cat([(exact[key] - gradients[key]).flatten() for key in exact]).norm()
    assert float(difference / norm) < 10 * TOLERANCE[dtype]
