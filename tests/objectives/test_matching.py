"""Image-text matching against a plain computation, what it trains, and what scoring a pool reuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.models import reference
from tests.models.small import HEADS, LAYERS, build, dictionary_of, images
from tests.objectives.test_objectives import CAPTIONS, SYMBOLS, regions_of
from xgpt_fairseq.data.objective_dataset import pad_right
from xgpt_fairseq.models.xgpt import SHARING_LAYERS
from xgpt_fairseq.objectives import ALL_OBJECTIVES, PRETRAINING_OBJECTIVES, build_objectives

MATCHING = ALL_OBJECTIVES["matching"](SYMBOLS)
# pairs of (image, caption); the questions, each among some of them
PAIRS = [(0, 0), (0, 2), (1, 0), (2, 1), (2, 2), (1, 1)]
CHOICES = [[0, 1, 2], [3, 4, -1], [4, 3, 1]]


def sample_of(batch: dict[str, torch.Tensor]) -> dict:
    texts = [MATCHING.make_example(np.array(CAPTIONS[caption]), None)["src_tokens"] for _, caption in PAIRS]
    image_index = torch.tensor([image for image, _ in PAIRS])
    return {
        "net_input": {**batch, "image_index": image_index, "src_tokens": pad_right(texts, SYMBOLS.pad)},
        "choices": torch.tensor(CHOICES),
        "nsentences": len(PAIRS),
    }


def plain_score(p: reference.Parameters, batch: dict[str, torch.Tensor], image: int, caption: int, pre_norm: bool):
    v = regions_of(p, batch, image) + reference.segment(p, 1)
    x = reference.embed_text(p, [*CAPTIONS[caption], SYMBOLS.eos])
    states = reference.encode_row(p, np.concatenate([v, x]), HEADS, LAYERS, pre_norm)
    pooled = []
    for name, part in (("regions", states[: len(v)]), ("text", states[len(v) :])):
        mean = sum(part) / len(part)
        pooled.append(np.maximum(p[f"heads.matching.{name}.weight"] @ mean + p[f"heads.matching.{name}.bias"], 0))
    return float(p["heads.matching.score.weight"][0] @ (pooled[0] * pooled[1]) + p["heads.matching.score.bias"][0])


def plain_loss(scores: list[float]) -> tuple[float, int]:
    total, correct = 0.0, 0
    for question in CHOICES:
        chosen = [scores[pair] for pair in question if pair >= 0]
        total += math.log(sum(math.exp(score) for score in chosen)) - chosen[0]
        correct += all(chosen[0] > score for score in chosen[1:])
    return total, correct


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_the_loss_equals_a_plain_computation(sharing: str, pre_norm: bool) -> None:
    model = build(heads=["tifg", "matching"], sharing=sharing, normalize_before=pre_norm).double()
    batch = images([4, 2, 3], dtype=torch.float64)
    sample = sample_of(batch)
    p = reference.parameters_of(model)
    expected = [plain_score(p, batch, image, caption, pre_norm) for image, caption in PAIRS]
    scores = model("matching", **sample["net_input"])
    assert scores.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)  # scores are float32
    result = MATCHING.loss(model, sample, label_smoothing=0.1)
    loss, correct = plain_loss(expected)
    assert float(result.loss.detach()) == pytest.approx(loss, rel=1e-5)
    assert (result.num_targets, int(result.correct)) == (3, correct)


def test_ties_are_no_answer() -> None:
    model = build(heads=["tifg", "matching"])
    with torch.no_grad():
        model.heads["matching"].score.weight.zero_()
    result = MATCHING.loss(model, sample_of(images([4, 2, 3])), label_smoothing=0.0)
    assert int(result.correct) == 0
    assert float(result.loss.detach()) == pytest.approx(2 * math.log(3) + math.log(2))


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_the_gradient_reaches_head_and_encoder_and_nothing_else(sharing: str) -> None:
    model = build(heads=["tifg", "matching"], sharing=sharing)
    MATCHING.loss(model, sample_of(images([4, 2, 3])), label_smoothing=0.0).loss.backward()
    for name, parameter in model.named_parameters():
        if name == "heads.matching.score.bias":
            continue  # the same for all choices
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        expected = name.startswith(("heads.matching.", "encoder.")) and not name.startswith("encoder.alignment.")
        assert reached == expected, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(dtype: torch.dtype) -> None:
    sample = sample_of(images([4, 2, 3]))
    exact = MATCHING.loss(build(heads=["tifg", "matching"]), sample, label_smoothing=0.0).loss
    half = MATCHING.loss(build(heads=["tifg", "matching"]).to(dtype), sample, label_smoothing=0.0).loss
    assert half.dtype == torch.float32
    assert float(half.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_golden_loss() -> None:
    loss = MATCHING.loss(
        build(heads=["tifg", "matching"]).double(), sample_of(images([4, 2, 3])), label_smoothing=0.0
    ).loss
    assert float(loss.detach()) == pytest.approx(GOLDEN, rel=1e-5)


GOLDEN = 2.808637


def test_matching_is_no_objective_of_pre_training() -> None:
    assert "matching" not in PRETRAINING_OBJECTIVES
    assert list(build_objectives(["matching"], dictionary_of(5))) == ["matching"]
