"""Dropout with cheap random numbers on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.switch import fast

LEVELS = 1 << 16  # of a random number


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element of *x* (any shape) with probability *p*, and scale the others by 1 / (1 - p), in training.

    On CPUs torch draws one random number per element, which can cost more than the surrounding layer; here four
    elements share 64 random bits of the same generator, and the mask is kept in bytes. *p* is then rounded to a
    multiple of 1 / 65536, also in the scale. On GPUs, torch's fused dropout is used.

    Raises:
        ValueError: *p* is not in 0..1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout {p} is not a probability")
    if not training or not p:
        return x
    if x.device.type != "cpu" or not fast():
        return F.dropout(x, p)
    dropped = round(p * LEVELS)
    if dropped == LEVELS:
        return F.dropout(x, p)
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # None: up to the highest
    numbers = bits.view(torch.int16)[:count].view(x.shape)  # uniform in -32768 … 32767
    return (x * (LEVELS / (LEVELS - dropped))).masked_fill_(numbers < dropped - LEVELS // 2, 0)


class Dropout(nn.Module):
    """`dropout` as a module: x of any shape.

    Raises:
        ValueError: *p* is not in 0..1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout {p} is not a probability")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
