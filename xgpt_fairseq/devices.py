"""The device that a program computes on: the one asked for, or the default."""

from __future__ import annotations

import os

import torch

from xgpt_fairseq.errors import DataError


def default_device() -> str:
    """A GPU if torch has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def own_device() -> str:
    """Of processes that torchrun starts, the GPU of this one (LOCAL_RANK); else the default device."""
    device, rank = default_device(), os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if device == "cuda" and rank.isdigit() else device


def usable_device(name: str) -> str:
    """*name*, a device as torch writes it: cpu, cuda, cuda:1.

    Raises:
        DataError: torch knows no such device, or has none.
    """
    try:
        torch.empty(1, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return name
