"""A network's weights in files: read from them, and packed in one for bundles (`xgpt-export --with-backbone`)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xgpt_fairseq.checkpoints import check_archive
from xgpt_fairseq.errors import DataError


@dataclass(frozen=True)
class Packed:
    """What a file of weights has to hold, so that `--weights FILE` makes the same network of it.

    Attributes:
        tensors: by name.
        metadata: text that belongs to them, such as a configuration.
        license: of the weights, where it is known.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    license: str | None = None

    def write(self, path: Path) -> None:
        """Write the file. Raises DataError if safetensors is not installed."""
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise DataError(
                f'weights are packed with safetensors ({error}): pip install "xgpt-fairseq[bundle]"'
            ) from None
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tensors.items()}
        save_file(tensors, path, metadata=dict(self.metadata) or None)


def packed_metadata(path: Path) -> dict[str, str]:
    """The text in the file of safetensors *path*.

    Raises:
        DataError: safetensors is not installed, or the file is damaged.
    """
    try:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # bytes that are damaged
        raise DataError(f"{path} can't be loaded: {' '.join(str(error).split())[:200]}") from None


def load_tensors(name: str, path: Path) -> dict[str, Any]:
    """What a file of weights holds: of safetensors, or of torch, without running code that it names.

    Raises:
        DataError: *path* is neither, or damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if zipfile.is_zipfile(path):
            check_archive(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except Exception as error:  # bytes that are damaged
        raise DataError(f"{name}: {path} can't be loaded: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{name}: {path} holds a {type(loaded).__name__}, not weights by their names")
    return loaded
