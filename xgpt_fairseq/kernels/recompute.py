"""Activation checkpointing: less memory for more time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def maybe_checkpoint(function: Callable[..., Any], *inputs: Any, enabled: bool) -> Any:
    """function(*inputs); if *enabled*, keep only the inputs, and recompute the rest in the backward pass."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)
    return function(*inputs)
