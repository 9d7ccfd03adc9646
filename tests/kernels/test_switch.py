"""With every kernel off, the model computes, trains and searches the same."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch

from tests.models.small import build, images
from tests.objectives.batches import objective_of, sample_of
from xgpt_fairseq.kernels import dropout, linear, switch
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.models.decoder import CACHE
from xgpt_fairseq.models.xgpt import SHARING_LAYERS
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES
from xgpt_fairseq.search.beam_search import CaptionGenerator


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("index", [None, [0, 0, 1], [1, 0, 1]], ids=str)
@pytest.mark.parametrize("name", PRETRAINING_OBJECTIVES)
def test_losses_and_gradients_are_the_same(name: str, index: list[int] | None, sharing: str) -> None:
    objective, model = objective_of(name), build(sharing=sharing).double()
    batch = images([4, 2, 3] if index is None else [4, 2], dtype=torch.float64)
    sample, _ = sample_of(objective, batch, image_index=None if index is None else torch.tensor(index))

    def run() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        model.zero_grad()
        loss = objective.loss(model, sample, label_smoothing=0.1).loss
        loss.backward()
        return loss.detach(), [p.grad for p in model.parameters()]

    fast, fast_gradients = run()
    with switch.plain():
        plain, plain_gradients = run()
    torch.testing.assert_close(plain, fast)
    for one, other in zip(plain_gradients, fast_gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_searches_find_the_same(beam: int, sharing: str) -> None:
    model, batch = build(sharing=sharing), images([4, 1, 30, 9])
    generator = CaptionGenerator([model], model.decoder.dictionary, beam_size=beam, max_len_b=20)

    def run() -> list[list[tuple[list[int], float]]]:
        found = generator.generate([], {"net_input": batch})
        return [[(each["tokens"].tolist(), float(each["score"])) for each in hypotheses] for hypotheses in found]

    fast = run()
    with switch.plain():
        plain = run()
    assert [[tokens for tokens, _ in image] for image in plain] == [[tokens for tokens, _ in image] for image in fast]
    scores = [[score for image in found for _, score in image] for found in (plain, fast)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4, abs=1e-5)


def test_it_turns_every_kernel_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packed weights, no dropout of our own, no groups, no shared cache."""
    model, batch = build(), images([4, 6])
    monkeypatch.setattr(dropout, "LEVELS", None)  # its own branch would fail
    with switch.plain(), torch.no_grad():
        assert not linear.can_pack() and not switch.fast()
        assert dropout.dropout(torch.ones(1000), 0.5, training=True).unique().tolist() == [0.0, 2.0]
        groups = Groups.of(torch.tensor([0, 0, 1]), 2)
        assert groups.row_at is None and groups.image is not None
        encoder_out = model.encoder.reorder_encoder_out(model.encoder(**batch), torch.tensor([0, 0, 1, 1]))
        assert encoder_out["memory"].states.size(0) == 4
        state: dict = {}
        model.decoder(torch.full((4, 1), 2), encoder_out, state)
        assert (state[CACHE].images, state[CACHE].group) == (4, 1)
    assert switch.fast()


def loaded(monkeypatch: pytest.MonkeyPatch, value: str) -> ModuleType:
    """The module as a new process would load it."""
    monkeypatch.setenv("XGPT_KERNELS", value)
    spec = importlib.util.spec_from_file_location("loaded_anew", switch.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("value", "fast"), [("plain", False), ("fast", True)])
def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch, value: str, fast: bool) -> None:
    assert loaded(monkeypatch, value).fast() is fast


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="XGPT_KERNELS is 'off'; it must be one of fast, plain"):
        loaded(monkeypatch, "off")
