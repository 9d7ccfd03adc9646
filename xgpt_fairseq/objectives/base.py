"""The one shape of all objectives, and the loss that most of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ObjectiveLoss:
    """The loss of one batch, summed over what it predicts.

    Attributes:
        loss: scalar, sum over predictions (nats): what is optimised.
        nll: scalar, the same without label smoothing.
        predictions: how many predictions the sums run over.
        correct: how many of them are right.
    """

    loss: Tensor
    nll: Tensor
    predictions: int
    correct: Tensor


class Objective(Protocol):
    """How a batch becomes a loss. Objectives hold no state and no parameters: those are the model's."""

    name: str

    def loss(self, model: torch.nn.Module, sample: dict[str, Any], *, label_smoothing: float) -> ObjectiveLoss:
        """Run *model* on a collated batch of this objective."""
        ...


def word_loss(logits: Tensor, target: Tensor, *, label_smoothing: float) -> ObjectiveLoss:
    """Cross entropy of word predictions, in float32 whatever the model's precision.

    Args:
        logits: (M, V), one row a predicted token.
        target: (M,) the right tokens.
        label_smoothing: weight of the uniform distribution over all V words in the target.
    """
    logits = logits.float()
    nll = F.cross_entropy(logits, target, reduction="sum")
    loss = nll
    if label_smoothing > 0:
        loss = F.cross_entropy(logits, target, reduction="sum", label_smoothing=label_smoothing)
    correct = (logits.detach().argmax(dim=-1) == target).sum()
    return ObjectiveLoss(loss=loss, nll=nll.detach(), predictions=target.numel(), correct=correct)
