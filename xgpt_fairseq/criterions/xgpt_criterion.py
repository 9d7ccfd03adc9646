"""The criterion `xgpt`: runs the objective that a batch was made for, and logs it."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II

from xgpt_fairseq.objectives import OBJECTIVES


@dataclass
class XGPTCriterionConfig(FairseqDataclass):
    label_smoothing: float = field(
        default=0.0, metadata={"help": "weight of the uniform distribution in the target of word predictions"}
    )
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("xgpt", dataclass=XGPTCriterionConfig)
class XGPTCriterion(FairseqCriterion):
    """Sum of an objective's loss over a batch; fairseq divides by the number of predictions (or of sentences)."""

    def __init__(self, task: Any, label_smoothing: float, sentence_avg: bool) -> None:
        super().__init__(task)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"--label-smoothing must be at least 0 and less than 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.sentence_avg = sentence_avg

    def forward(
        self, model: torch.nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[torch.Tensor, int, dict[str, Any]]:
        """Loss (scalar, summed), sample size, and what to log: sums, so that batches and workers add up."""
        objective = OBJECTIVES[sample["objective"]]
        result = objective.loss(model, sample, label_smoothing=self.label_smoothing)
        sample_size = sample["nsentences"] if self.sentence_avg else result.predictions
        log = {
            "loss": result.loss.detach(),
            "nll_loss": result.nll,
            "correct": result.correct,
            "predictions": result.predictions,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
        }
        return result.loss, sample_size, log

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log loss (as optimised) and nll_loss in bits a prediction, perplexity, and accuracy in percent."""
        total = {
            key: sum(float(log[key]) for log in logging_outputs)
            for key in ("loss", "nll_loss", "correct", "predictions", "sample_size")
        }
        if total["sample_size"] == 0:
            return
        predictions = total["predictions"]
        metrics.log_scalar("loss", total["loss"] / total["sample_size"] / math.log(2), total["sample_size"], round=3)
        metrics.log_scalar("nll_loss", total["nll_loss"] / predictions / math.log(2), predictions, round=3)
        metrics.log_scalar("accuracy", 100 * total["correct"] / predictions, predictions, round=2)
        metrics.log_derived("ppl", lambda meters: float(2 ** min(meters["nll_loss"].avg, 60)))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """All values are sums, and all workers run the same objective at a time."""
        return True
