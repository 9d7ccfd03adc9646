"""Reading and writing checkpoints without giving up torch's protection against malicious ones.

torch ≥ 2.6 loads with `weights_only=True`: only tensors, plain containers and allowed globals. fairseq's checkpoints
also hold an `argparse.Namespace`, so stock fairseq cannot read its own; allowing this one global is enough. The plugin
never turns the protection off.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xgpt_fairseq.errors import DataError

SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]

torch.serialization.add_safe_globals(SAFE_GLOBALS)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a fairseq checkpoint; tensors stay on disk until they are used (memory-mapped).

    Raises:
        DataError: no such file, not a checkpoint, or a checkpoint that holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise DataError(f"checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if "GLOBAL" not in str(error) else _forbidden_global(str(error))
        raise DataError(f"checkpoint {path} is refused: {reason}") from error
    except Exception as error:  # bytes that are damaged fail anywhere in torch's reader
        raise DataError(f"{path} is not a checkpoint, or is damaged or cut short: {error}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise DataError(f"{path} is not a fairseq checkpoint: it has no entry 'model'")
    return state


def _forbidden_global(message: str) -> str:
    name = message.split("GLOBAL ", 1)[1].split(" ", 1)[0]
    return f"it holds {name}, which is neither a tensor nor a plain value; a checkpoint could run code through it"
