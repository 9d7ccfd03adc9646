"""Notices operators for which the host waits for a GPU, on tensors that may all be on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts the operators whose result depends on values that the host must first be told."""

    names = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        to_host = name == "_to_copy" and (kwargs or {}).get("device") == torch.device("cpu")
        if name in self.names or (to_host and args[0].device.type != "cpu"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))
