"""Packages that are installed, but can't be imported.

PyPI's torchvision and torchaudio are built for CUDA. Beside torch for CPUs they raise when they are imported ("operator
torchvision::nms does not exist"), and transformers, which uses them where they are installed, raises with them. A
module that is None in `sys.modules` counts as not installed.
"""

from __future__ import annotations

import importlib
import sys


def why_broken(package: str) -> str:
    """Import *package*, and return why that fails, in a line; empty if it does not, or the package isn't installed."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        return ""
    except Exception as error:  # compiled code that doesn't fit raises anything
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def hide_broken(*packages: str) -> None:
    """Let those of *packages* that can't be imported count as not installed, in this process."""
    for package in packages:
        if package not in sys.modules and why_broken(package):
            sys.modules[package] = None  # type: ignore[assignment]  # as `importlib.import_module` documents


def torchvision_advice() -> str:
    """What to say where torchvision, or a package that needs it, can't be imported; empty if that isn't the reason."""
    reason = why_broken("torchvision")
    if not reason:
        return ""
    return (
        f"torchvision is installed, but not for this torch ({reason}); for a CPU: pip install torchvision "
        "--index-url https://download.pytorch.org/whl/cpu"
    )
