"""bfloat16 on CPUs: near float32, weights and losses float32, refused where the CPU has none. No TF32 on GPUs."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.models.small import build
from tests.objectives.test_objectives import images, objective_of, sample_of
from xgpt_fairseq import devices, precision
from xgpt_fairseq.cli import augment, caption, diagnose, evaluate
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


def calls_of_clear(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A list with one more entry for each call of `torch.clear_autocast_cache`; the end of autocast calls it, too."""
    calls: list[bool] = []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (calls.append(True), clear()))
    return calls


def test_weights_that_were_cast_without_gradient_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch 2.6, also where it is the same layer that runs first without a gradient."""
    calls = calls_of_clear(monkeypatch)
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with precision.autocast(True):
        with torch.no_grad():
            layer(x)
        precision.forget_casts()
        assert len(calls) == 1
        layer(x).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0
    calls.clear()
    precision.forget_casts()  # outside, there is nothing to forget
    assert not calls


def test_tifg_leaves_the_refiner_to_the_next_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its target is refined without gradient; in a joint step, image captioning trains the refiner."""
    calls = calls_of_clear(monkeypatch)
    model = build(heads=["tifg"])
    batch = images([4, 2, 3])
    with precision.autocast(True):
        losses = []
        for name in ("tifg", "ic"):
            objective = objective_of(name)
            losses.append(objective.loss(model, sample_of(objective, batch)[0], label_smoothing=0.1).loss)
        sum(losses).backward()
        assert len(calls) == 1
    refiner = dict(model.encoder.regions.refiner.named_parameters())
    assert refiner and all(p.grad is not None and p.grad.abs().sum() > 0 for p in refiner.values())


def test_casts_need_not_be_forgotten_with_a_later_torch() -> None:
    """If this fails, torch 2.6 is no longer supported: see whether the new least one needs `forget_casts`."""
    setup = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    assert re.findall(r'"torch>=([\d.]+)"', setup) == ["2.6"]


@pytest.mark.parametrize("before", [True, False])
def test_convolutions_are_exact_as_long_as_anyone_needs_it(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads: the first one's end must not turn TF32 on for the second, nor the second one's leave it off."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    first, second, seen = ExitStack(), ExitStack(), []
    for step in (
        lambda: first.enter_context(precision.exact_convolutions()),
        lambda: second.enter_context(precision.exact_convolutions()),
        first.close,
        second.close,
    ):
        step()
        seen.append(torch.backends.cudnn.allow_tf32)
    assert seen == [False, False, False, before]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (caption, ["photo.jpg"]),
        (augment, ["data", "--path", "averaged.pt", "--output", "new"]),
        (diagnose, ["averaged.pt", "data"]),
        (evaluate, ["--retrieval", "--path", "averaged.pt", "--data", "data"]),
    ],
    ids=lambda given: getattr(given, "__name__", "").rpartition(".")[2],
)
def test_a_gpu_is_no_cpu(
    program: ModuleType,
    arguments: list[str],
    call_program: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Said before anything is read, also where this CPU has bfloat16 arithmetic or lacks it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "usable_device", lambda _: "cuda")
    done = call_program(program.main, *arguments, "--cpu-bf16")
    assert done.status == 1
    assert done.error.startswith("--cpu-bf16 is for CPUs, and cuda would be used: ") and "--device cpu" in done.error
