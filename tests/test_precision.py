"""bfloat16 on CPUs: near float32, weights and losses float32, refused where the CPU has none."""

from __future__ import annotations

import pytest
import torch

from tests.models.small import build
from tests.objectives.test_objectives import images, objective_of, sample_of
from xgpt_fairseq import precision
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import SHARING_LAYERS
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_autocast_stays_near_float32(name: str, sharing: str) -> None:
    """On any CPU: where there is no bfloat16 arithmetic, torch computes the same more slowly."""
    objective, model = objective_of(name), build(sharing=sharing)
    sample, _ = sample_of(objective, images([4, 2, 3]))
    exact = objective.loss(model, sample, label_smoothing=0.1).loss
    with precision.autocast(True):
        result = objective.loss(model, sample, label_smoothing=0.1)
        result.loss.backward()
    assert result.loss.dtype == torch.float32
    assert float(result.loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)
    assert float(result.loss.detach()) != float(exact.detach())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_without_the_option_nothing_changes() -> None:
    with precision.autocast(False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with precision.autocast(True):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_cpu_without_bfloat16_is_refused(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    if machine == "x86_64":
        assert not precision.cpu_has_bfloat16()
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(DataError, match="--cpu-bf16: this CPU has no bfloat16 arithmetic"):
        precision.check_cpu_bfloat16()
