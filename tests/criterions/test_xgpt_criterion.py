"""The criterion: what it returns, and what fairseq's meters make of it over batches and workers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from fairseq.logging import metrics

from xgpt_fairseq.criterions.xgpt_criterion import XGPTCriterion
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols
from xgpt_fairseq.objectives.base import ObjectiveLoss


class FixedModel(torch.nn.Module):
    """Returns the logits it was given, whatever the batch."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, output_index: torch.Tensor) -> tuple[torch.Tensor, dict]:
        return self.logits.index_select(0, output_index), {}


def sample_of(target: list[int], nsentences: int = 2) -> dict:
    tensor = torch.tensor([target])
    index = (tensor.view(-1) != 1).nonzero().squeeze(1)
    return {
        "objective": "ic",
        "uses_regions": False,
        "net_input": {},
        "target": tensor,
        "target_index": index,
        "ntokens": len(index),
        "nsentences": nsentences,
    }


def criterion(weights: dict[str, float] | None = None, **options) -> XGPTCriterion:
    task = SimpleNamespace(
        objectives={"ic": PRETRAINING_OBJECTIVES["ic"](Symbols(1, 2, 3, (4, 6)))},
        objective_weights=weights or {"ic": 1.0},
    )
    return XGPTCriterion(task, **{"label_smoothing": 0.0, "sentence_avg": False, **options})


def plain_nll(logits: torch.Tensor, target: list[int]) -> float:
    rows = logits.double().tolist()
    return sum(
        -(row[word] - math.log(sum(math.exp(value) for value in row)))
        for row, word in zip(rows, target, strict=True)
        if word != 1
    )


def test_loss_is_the_sum_over_words_and_never_over_padding():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    target = [5, 2, 1, 1]
    loss, sample_size, log = criterion()(FixedModel(logits), sample_of(target))
    assert float(loss.detach()) == pytest.approx(plain_nll(logits, target), rel=1e-5)
    assert sample_size == 2
    assert (log["ntokens"], log["nsentences"], log["ic_predictions"]) == (2, 2, 2)


def test_sentence_average_divides_by_sentences():
    _, sample_size, _ = criterion(sentence_avg=True)(FixedModel(torch.zeros(4, 6)), sample_of([5, 3, 4, 2], 3))
    assert sample_size == 3


def test_label_smoothing_changes_the_loss_but_not_the_logged_nll():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    target = [5, 3, 4, 2]
    plain, _, _ = criterion()(FixedModel(logits), sample_of(target))
    smooth, _, log = criterion(label_smoothing=0.1)(FixedModel(logits), sample_of(target))
    uniform = sum(plain_nll(logits, [word] * 4) for word in range(6) if word != 1)
    # word 1 is padding for `plain_nll`, so that it is added by hand
    uniform += sum(-float(torch.log_softmax(row.double(), 0)[1]) for row in logits)
    assert float(smooth.detach()) == pytest.approx(0.9 * float(plain.detach()) + 0.1 * uniform / 6, rel=1e-5)
    assert float(log["ic_sum"]) == pytest.approx(float(plain.detach()), rel=1e-6)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_label_smoothing_outside_its_range_is_refused(value):
    with pytest.raises(ValueError, match="--label-smoothing must be at least 0 and less than 1"):
        criterion(label_smoothing=value)


def test_the_weight_scales_the_loss_and_nothing_that_is_logged_of_the_objective():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    plain, size, log = criterion()(FixedModel(logits), sample_of([5, 3, 4, 2]))
    weighted, weighted_size, weighted_log = criterion({"ic": 0.3})(FixedModel(logits), sample_of([5, 3, 4, 2]))
    assert float(weighted.detach()) == pytest.approx(0.3 * float(plain.detach()))
    assert weighted_size == size
    assert float(weighted_log["ic_sum"]) == float(log["ic_sum"])


def test_a_joint_batch_is_the_weighted_sum_of_the_means():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
    one, two = sample_of([5, 2, 1, 1]), sample_of([3, 4, 5, 2])
    joint = {"objective": "joint", "images": {}, "parts": [one, two], "ntokens": 6, "nsentences": 2}
    loss, size, log = criterion({"ic": 0.5})(FixedModel(logits), joint)
    expected = 0.5 * (plain_nll(logits, [5, 2, 1, 1]) / 2 + plain_nll(logits, [3, 4, 5, 2]) / 4)
    assert float(loss.detach()) / size == pytest.approx(expected, rel=1e-5)
    assert (size, log["ntokens"], log["sample_size"]) == (2, 6, 2)


def test_joint_batches_of_an_update_count_by_their_captions():
    """The last batch of an epoch may have few; on one GPU or several, an update is the same."""
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(5))
    losses, sizes, means = [], [], []
    for target, captions in (([5, 2, 1, 1], 1), ([3, 4, 5, 2], 7)):
        batch = {"objective": "joint", "images": {}, "parts": [sample_of(target)], "ntokens": 6, "nsentences": captions}
        loss, size, log = criterion()(FixedModel(logits), batch)
        losses.append(float(loss.detach()))
        sizes.append(size)
        means.append(plain_nll(logits, target) / sum(word != 1 for word in target))
        assert float(log["loss"]) == losses[-1]
    assert sum(losses) / sum(sizes) == pytest.approx((means[0] + 7 * means[1]) / 8, rel=1e-5)


def test_metrics_over_batches_are_those_of_all_their_words():
    generator = torch.Generator().manual_seed(2)
    batches = [
        ([5, 2, 1, 1], torch.randn(4, 6, generator=generator)),
        ([3, 4, 5, 2], torch.randn(4, 6, generator=generator)),
    ]
    logs = [criterion()(FixedModel(logits), sample_of(target))[2] for target, logits in batches]
    with metrics.aggregate() as meters:
        XGPTCriterion.reduce_metrics(logs[:1])
        XGPTCriterion.reduce_metrics(logs[1:])
        separate = meters.get_smoothed_values()
    with metrics.aggregate() as meters:
        XGPTCriterion.reduce_metrics(logs)
        together = meters.get_smoothed_values()
    nll = sum(plain_nll(logits, target) for target, logits in batches)
    right = sum(
        int(row.argmax()) == word
        for target, logits in batches
        for row, word in zip(logits, target, strict=True)
        if word != 1
    )
    for values in (separate, together):
        assert values["nll_loss"] == pytest.approx(nll / 6 / math.log(2), abs=1e-3)
        assert values["loss"] == values["nll_loss"]
        assert values["ppl"] == pytest.approx(math.exp(nll / 6), rel=1e-2)
        assert values["accuracy"] == pytest.approx(100 * right / 6, abs=0.01)


@pytest.mark.parametrize("words", [0, 6])
def test_a_squared_error_is_not_counted_in_bits(words):
    """Nor is a joint batch that it is a part of."""
    log = {
        "loss": 3.0,
        "sample_size": 2,
        "tifg_sum": 3.0,
        "tifg_predictions": 2,
        "ic_sum": 1.0,
        "ic_predictions": words,
    }
    with metrics.aggregate() as meters:
        XGPTCriterion.reduce_metrics([log])
        values = meters.get_smoothed_values()
    assert values["loss"] == values["tifg_mse"] == 1.5
    assert ("nll_loss" in values) == bool(words)


def test_a_batch_without_words_logs_nothing():
    with metrics.aggregate() as meters:
        XGPTCriterion.reduce_metrics([])
    assert "loss" not in meters.get_smoothed_values()


def test_logged_values_can_be_summed_over_workers():
    assert XGPTCriterion.logging_outputs_can_be_summed()
    _, _, log = criterion()(FixedModel(torch.zeros(2, 6)), sample_of([5, 2]))
    assert all(isinstance(value, int) or value.dim() == 0 for value in log.values())


def test_logs_of_all_objectives_have_as_many_tensors():
    """fairseq sends them apart from numbers: a process with a dummy batch of another objective would end the others."""

    def tensors(correct: torch.Tensor | None) -> int:
        made = criterion()
        one = torch.tensor(1.0)
        result = ObjectiveLoss(loss=one, unsmoothed=one, num_targets=1, correct=correct)
        made.task.objectives["ic"].loss = lambda *_, **__: result
        return sum(torch.is_tensor(value) for value in made(torch.nn.Linear(1, 1), sample_of([5]))[2].values())

    assert tensors(None) == tensors(torch.tensor(1))
