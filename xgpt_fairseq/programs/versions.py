"""Whether the fairseq that is installed is one that the plugin works with."""

from __future__ import annotations

import importlib
import re
import sys
from traceback import walk_tb

from xgpt_fairseq.errors import DataError

OLDEST = (0, 12)
INSTALL = "pip uninstall fairseq, then pip install ve-fairseq==0.12.3 (Linux x86-64) or fairseq-fixed (elsewhere)"
LIBRARIES = {"fairseq", "hydra", "omegaconf"}  # those that are installed with it


def check_fairseq() -> None:
    """Import fairseq.

    Raises:
        DataError: it is too old, or cannot be imported with this Python, as PyPI's 0.12.2 with 3.11.
    """
    try:
        version = str(importlib.import_module("fairseq").__version__)
    except (ImportError, ValueError, AttributeError) as error:
        raise DataError(f"fairseq cannot be imported ({str(error).splitlines()[0]}): {INSTALL}") from error
    if (found := re.match(r"(\d+)\.(\d+)", version)) and (int(found[1]), int(found[2])) < OLDEST:
        raise DataError(f"fairseq {version} is installed, and 0.12 is needed: {INSTALL}")


def without_fairseq(error: BaseException) -> DataError | None:
    """What to install, if a program ends by *error* since fairseq is missing or cannot be imported; else None."""
    if sys.modules.get("fairseq") is not None:
        return None
    passed = {str(frame.f_globals.get("__name__")).split(".")[0] for frame, _ in walk_tb(error.__traceback__)}
    missing = str(getattr(error, "name", None)).split(".")[0]
    if LIBRARIES & {missing, *passed}:
        try:
            check_fairseq()
        except DataError as reason:
            return reason
    return None
