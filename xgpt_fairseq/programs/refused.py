"""Values of fairseq's own options that its programs would take wrong, whether by command line or by YAML."""

from __future__ import annotations

import ast
from typing import Any

from xgpt_fairseq.errors import DataError

KEEPS_RATE = ("reduce_lr_on_plateau", "manual", "pass_through")  # these may go on from the optimizer's learning rate


def check_training_options(common: Any, checkpoint: Any) -> None:
    """Check a training's options of fairseq's groups `common` and `checkpoint`, or of its whole command line.

    Raises:
        DataError: an option is refused, or two together.
    """
    check_half_precision(common)
    check_overrides("--optimizer-overrides", checkpoint.optimizer_overrides)
    if checkpoint.write_checkpoints_asynchronously:
        raise DataError(
            "--write-checkpoints-asynchronously (--save-async): without the package iopath fairseq trains nothing and "
            "ends with status 0; with it, it writes neither checkpoint_last.pt nor checkpoint_best.pt where a "
            "checkpoint has another name, too: leave it out"
        )


def check_half_precision(common: Any) -> None:
    """Check that one kind of half precision is asked for at most: fairseq's group `common`, or a command line's.

    Raises:
        DataError: both are. fairseq's command line says something of TPUs, and with a YAML file it takes float16.
    """
    both = all(getattr(common, name) or getattr(common, f"memory_efficient_{name}") for name in ("fp16", "bf16"))
    if both:
        raise DataError("--fp16 and --bf16 are two kinds of half precision: leave one out")


def check_overrides(option: str, overrides: str) -> None:
    """Check `--model-overrides` or `--optimizer-overrides`: a dictionary, as Python writes it.

    Raises:
        DataError: it is something else.
    """
    try:
        values = ast.literal_eval(overrides)
    except (SyntaxError, TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        example = "{'weight_decay': 0.01}" if option == "--optimizer-overrides" else "{'dropout': 0}"
        raise DataError(f'{option} needs a dictionary, such as "{example}", got {overrides}')


def check_overridden_rate(overrides: str, scheduler: str) -> None:
    """Check that `--optimizer-overrides` has no learning rate that the scheduler of this name would set anew at once.

    Args:
        overrides: a dictionary, as `check_overrides` lets pass.

    Raises:
        DataError: it has.
    """
    if "lr" in ast.literal_eval(overrides) and scheduler not in KEEPS_RATE:
        raise DataError(
            f"--optimizer-overrides {overrides}: lr has no effect with --lr-scheduler {scheduler}, which sets the "
            "learning rate by --lr: change that, and leave lr out"
        )
