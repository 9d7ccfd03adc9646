"""The default device of programs."""

from __future__ import annotations

import torch


def default_device() -> str:
    """A GPU if torch has one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
