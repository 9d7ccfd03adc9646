"""What a table is made of: scripts, the stages that run them, rows of stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


def caption_scores(report: Mapping[str, Any]) -> dict[str, float]:
    """The columns of a captioning table from what xgpt-evaluate wrote, in percent."""
    return {name: 100 * value for name, value in report["scores"].items()}


@dataclass(frozen=True)
class Script:
    """A stage script in *folder*.

    Attributes:
        checkpoint_dir: where it leaves its average, averaged.pt, below CHECKPOINTS with DATASET=captions.
        scored_by: the script in *folder* that scores the average (CHECKPOINT) into OUT/scores-test.json, if any does.
        scoring: variables of that script that decide what it computes.
        reads: which of a table's variables the two read (`Setting.environment`); None: all.
    """

    folder: Path
    name: str
    checkpoint_dir: str
    scored_by: str | None = None
    scoring: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Stage:
    """A stage script with what it is given beside the recipe's own arguments.

    Two rows that begin with equal stages share them: a stage is run once for each seed.
    """

    name: str  # of its folder
    script: Script
    objectives: str | None = None
    arguments: tuple[str, ...] = ()
    size: Literal["tiny", "base"] = "base"
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        stages: in order.
        paper: the paper's scores, those of the first columns, where it has them.
        against: names of the rows that it is compared with, image by image.
    """

    name: str
    stages: tuple[Stage, ...]
    paper: tuple[float, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: what is compared.
        rows: in the paper's order.
        metrics: the columns.
        demo: script → its variables at demo scale: lengths and sizes, and nothing that the recipe decides.
        read: scores-test.json → the columns' values.
    """

    title: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    demo: Mapping[Script, Mapping[str, str]] = field(default_factory=dict)
    read: Callable[[Mapping[str, Any]], dict[str, float]] = caption_scores
