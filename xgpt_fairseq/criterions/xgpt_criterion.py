"""The criterion `xgpt`: computes and logs the loss of a batch's objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

from xgpt_fairseq.data.objective_dataset import JOINT, batches_of
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import ALL_OBJECTIVES

# Logged for each objective: the sum of its loss without label smoothing, the numbers of predictions, of correct
# predictions and of image-caption pairs, and whether this was training.
LOGGED = ("sum", "predictions", "correct", "pairs", "training")


@dataclass
class XGPTCriterionConfig(FairseqDataclass):
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "weight of the uniform distribution in the target of word predictions (of --criterion "
                  "xgpt_scst: only in validation)"},
    )  # fmt: skip
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("xgpt", dataclass=XGPTCriterionConfig)
class XGPTCriterion(FairseqCriterion):
    """Sums an objective's loss over a batch; fairseq divides by the number of predictions (or of sentences).

    For a batch of several objectives ("joint") the loss is the weighted sum of their means, times the number of
    captions, by which fairseq divides: batches of an update, on several GPUs too, count by their captions.
    """

    def __init__(self, task: Any, label_smoothing: float, sentence_avg: bool) -> None:
        super().__init__(task)
        if not 0 <= label_smoothing < 1:
            raise DataError(f"--label-smoothing must be at least 0 and less than 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.sentence_avg = sentence_avg

    def forward(
        self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """Loss (scalar, summed), sample size, and the log, whose values are sums over batches and workers."""
        if sample["objective"] != JOINT:
            return self._run(model, sample)
        results = [self._run(model, part) for part in batches_of(sample)]
        captions = sample["nsentences"]
        loss = torch.stack([part_loss * (captions / part_size) for part_loss, part_size, _ in results]).sum()
        log = {key: sum(part_log[key] for _, _, part_log in results) for key in results[0][2]}
        log |= {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": captions,
            "sample_size": captions,
        }
        return loss, captions, log

    def _run(self, model: torch.nn.Module, sample: dict[str, Any]) -> tuple[torch.Tensor, int, dict[str, Any]]:
        objective = self.task.objectives[sample["objective"]]
        result = objective.loss(model, sample, label_smoothing=self.label_smoothing)
        loss = result.loss * self.task.objective_weights[objective.name]
        sample_size = sample["nsentences"] if self.sentence_avg else result.num_targets
        # fairseq sums logs by key over workers, one of which may have a dummy batch of another objective: every log has
        # the same keys, and as many tensors, which fairseq sends apart from numbers
        log = {f"{name}_{key}": 0 for name in self.task.objectives for key in LOGGED}
        log |= {
            "loss": loss.detach(),
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
            f"{objective.name}_sum": result.unsmoothed,
            f"{objective.name}_predictions": result.num_targets,
            f"{objective.name}_correct": loss.new_zeros(()) if result.correct is None else result.correct.detach(),
            f"{objective.name}_pairs": sample["nsentences"],
            f"{objective.name}_training": int(model.training),
        }
        return loss, sample_size, log

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the optimised loss, and the metrics of each objective.

            loss                        in bits, unless a squared error is part of it
            OBJECTIVE_nll_loss          bits per token (matching: per question)
            OBJECTIVE_ppl, _accuracy    perplexity; percent correct
            OBJECTIVE_mse               mean squared error (TIFG, instead of the three above)
            OBJECTIVE_updates, _pairs_per_s    in training

        Image captioning is also logged under fairseq's names, without a prefix (`nll_loss`, `ppl`, `accuracy`).
        """

        def total(name: str) -> float:
            return sum(float(log.get(name, 0)) for log in logging_outputs)

        sample_size = total("sample_size")
        if sample_size == 0:
            return
        found = {name: total(f"{name}_predictions") for name in ALL_OBJECTIVES}
        found = {name: predictions for name, predictions in found.items() if predictions}
        unit = math.log(2) if all(ALL_OBJECTIVES[name].metric_name == "nll" for name in found) else 1.0
        metrics.log_scalar("loss", total("loss") / sample_size / unit, sample_size, round=3)
        for name, predictions in found.items():
            objective = ALL_OBJECTIVES[name]
            if objective.metric_name == "mse":
                metrics.log_scalar(f"{name}_mse", total(f"{name}_sum") / predictions, predictions, round=3)
            else:
                nll, accuracy = total(f"{name}_sum"), total(f"{name}_correct")
                prefixes = ["", f"{name}_"] if name == "ic" else [f"{name}_"]
                for prefix in prefixes:
                    metrics.log_scalar(f"{prefix}nll_loss", nll / predictions / math.log(2), predictions, round=3)
                    metrics.log_derived(f"{prefix}ppl", _perplexity(f"{prefix}nll_loss"))
                    metrics.log_scalar(f"{prefix}accuracy", 100 * accuracy / predictions, predictions, round=2)
            if total(f"{name}_training"):
                metrics.log_scalar_sum(f"{name}_updates", 1)
                metrics.log_speed(f"{name}_pairs_per_s", total(f"{name}_pairs"), round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: all values are sums, and all workers run the same objective in the same update."""
        return True


def _perplexity(name: str) -> Callable[[Any], float | None]:
    """2 to the power of meter *name*; None if the objective has not run since the last log."""

    def perplexity(meters: Any) -> float | None:
        bits = meters[name].avg
        return None if bits is None else float(2 ** min(bits, 60))

    return perplexity
