"""Limits of the numbers among fairseq's own options, which fairseq does not check.

Outside them it ends in a traceback (`--log-interval 0`, `--seed -1`), or goes on as if nothing had been asked for
(`--patience -3`, `--clip-norm -5`).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from xgpt_fairseq.errors import DataError, check_at_least


class Limit(NamedTuple):
    """The least value of an option, and the one that turns it off, if that is below."""

    least: float
    off: float | None = None
    why: str = ""


NO_LIMIT = Limit(0, why="0: no limit")
OFF_BY_DEFAULT = Limit(1, off=-1)

# group of fairseq's configuration -> option
LIMITS: Mapping[str, Mapping[str, Limit]] = {
    "common": {"log_interval": Limit(1), "seed": Limit(0)},
    "dataset": {
        "batch_size": Limit(1),
        "batch_size_valid": Limit(1),
        "max_tokens": Limit(1),
        "max_tokens_valid": Limit(1),
        "max_valid_steps": Limit(1),
        "num_workers": Limit(0),
        "validate_interval": Limit(1),
        "validate_interval_updates": Limit(0),
        "validate_after_updates": Limit(0),
    },
    "optimization": {
        "clip_norm": Limit(0, why="0: no clipping"),
        "max_epoch": NO_LIMIT,
        "max_update": NO_LIMIT,
        "stop_time_hours": NO_LIMIT,
    },
    "checkpoint": {
        "keep_best_checkpoints": OFF_BY_DEFAULT,
        "keep_interval_updates": OFF_BY_DEFAULT,
        "keep_interval_updates_pattern": OFF_BY_DEFAULT,
        "keep_last_epochs": OFF_BY_DEFAULT,
        "patience": OFF_BY_DEFAULT,
        "save_interval": Limit(1),
        "save_interval_updates": Limit(0),
    },
    "lr_scheduler": {"warmup_updates": Limit(0)},
    "optimizer": {"weight_decay": Limit(0)},
}


def check_limits(root: Any) -> None:
    """Check the numbers of a run's whole configuration *root*.

    Raises:
        DataError: one is outside its limits.
    """
    for group, limits in LIMITS.items():
        for name, (least, off, why) in limits.items():
            value = value_of(root.get(group), name)
            if value != off or off is None:
                check_at_least(option(name), value, least, why or ("" if off is None else f"{off}: off"))


def check_betas(betas: Any) -> None:
    """Check Adam's *betas*: two decay rates, as fairseq takes them, in text or as a list.

    Raises:
        DataError: they are something else.
    """
    try:
        values = ast.literal_eval(betas) if isinstance(betas, str) else betas
        pair = [float(value) for value in values] if isinstance(values, Sequence) else []
    except (SyntaxError, TypeError, ValueError):
        pair = []
    if len(pair) != 2 or not all(0 <= beta < 1 for beta in pair):
        raise DataError(
            f"--adam-betas needs two numbers of at least 0 and less than 1, such as '(0.9, 0.98)', got {betas}"
        )


def value_of(group: Any, name: str, default: Any = None) -> Any:
    """An option of a *group* of the configuration, in which parts of earlier fairseq are plain namespaces."""
    value = group.get(name) if isinstance(group, Mapping) or OmegaConf.is_config(group) else getattr(group, name, None)
    return default if value is None else value


def option(name: str) -> str:
    """The command line's option of a configuration's field: max_update -> --max-update."""
    return f"--{name.replace('_', '-')}"
