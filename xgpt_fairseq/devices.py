"""The default device of programs."""

from __future__ import annotations

import os

import torch


def default_device() -> str:
    """A GPU if torch has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def own_device() -> str:
    """Of processes that torchrun starts, the GPU of this one (LOCAL_RANK); else the default device."""
    device, rank = default_device(), os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if device == "cuda" and rank.isdigit() else device
