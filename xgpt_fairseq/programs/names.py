"""Which of fairseq's programs this process runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def fairseq_program() -> str | None:
    """The program's name, such as `fairseq-train`, also if it was started as `python -m fairseq_cli.train`.

    None in every other process: ours, notebooks, tests.
    """
    path = Path(sys.argv[0]) if sys.argv else Path()
    if path.parent.name == "fairseq_cli":
        return f"fairseq-{path.stem.replace('_', '-')}"
    return path.stem if path.name.startswith("fairseq-") else None


def trains(program: str | None) -> bool:
    """Whether this is one of the programs that train."""
    return program in ("fairseq-train", "fairseq-hydra-train")


def logs_everything() -> bool:
    """Whether LOGLEVEL=DEBUG is set, fairseq's own variable. (The root logger's level does not say it.)"""
    return os.environ.get("LOGLEVEL", "").upper() == "DEBUG"
