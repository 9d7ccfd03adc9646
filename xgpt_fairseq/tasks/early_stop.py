"""--patience and the best checkpoint over several starts, and over several trainings of one process.

fairseq keeps the best validation, and how many came since, in attributes of its functions. They end with the process,
so that a resumed training began to count anew; and outlive a training, so that the next one of a sweep
(`fairseq-hydra-train --multirun`) was compared with the one before. The best value is in checkpoints, but not of which
metric: values of another one were compared with it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from fairseq.checkpoint_utils import save_checkpoint

BEST: Final = "patience_best"
RUNS: Final = "patience_runs"
METRIC: Final = "patience_metric"  # of which the best is the best
MAXIMIZE: Final = "patience_maximize"


def forget() -> None:
    """Forget the validations of an earlier training in this process."""
    for function in (save_checkpoint, _stopper()):
        for name in ("best", "num_runs"):
            with contextlib.suppress(AttributeError):
                delattr(function, name)


def kept(checkpoint: Any) -> dict[str, Any]:
    """What a checkpoint keeps: of which metric it is; with --patience, the best value of it, and how many came since.

    Args:
        checkpoint: fairseq's configuration group, which says the metric; empty where there is none.
    """
    stopper = _stopper()
    best = getattr(stopper, "best", None)
    patience = {} if best is None else {BEST: float(best), RUNS: int(stopper.num_runs)}
    return {**patience, **_metric(checkpoint)}


def go_on(state: Mapping[str, Any], checkpoint: Any) -> None:
    """Go on counting from what `kept` returned, unless the best value is forgotten as well, or another metric's.

    Another metric's is no best checkpoint's either: none would be better than a loss of 2, if CIDEr is 1.

    Args:
        state: that.
        checkpoint: fairseq's configuration group; empty where there is none.
    """
    if not _is_of(state, checkpoint):
        with contextlib.suppress(AttributeError):
            del save_checkpoint.best
    stopper = _stopper()
    if stopper is not None and RUNS in state and _is_of(state, checkpoint) and not _forgets(checkpoint):
        stopper.best, stopper.num_runs = state[BEST], state[RUNS]


def is_over(extra_state: Mapping[str, Any], checkpoint: Any) -> bool:
    """Whether the training of a checkpoint with this *extra_state* has lost its --patience."""
    parts = [part for part in extra_state.values() if isinstance(part, Mapping) and RUNS in part]
    runs = [part[RUNS] for part in parts if _is_of(part, checkpoint)]
    if checkpoint.patience <= 0 or checkpoint.reset_dataloader or _forgets(checkpoint):
        return False
    return max(runs, default=0) >= checkpoint.patience


def _metric(checkpoint: Any) -> dict[str, Any]:
    """What --patience waits for, as a checkpoint keeps it."""
    if not checkpoint:
        return {}
    return {
        METRIC: str(checkpoint["best_checkpoint_metric"]),
        MAXIMIZE: bool(checkpoint["maximize_best_checkpoint_metric"]),
    }


def _is_of(state: Mapping[str, Any], checkpoint: Any) -> bool:
    """Whether *state* is of the metric that is asked for now; that of an earlier version does not say, and is."""
    return all(state.get(name, value) == value for name, value in _metric(checkpoint).items())


def _forgets(checkpoint: Any) -> bool:
    """Whether fairseq does not read the best value from the checkpoint that it goes on from."""
    return bool(checkpoint.get("reset_optimizer") or checkpoint.get("reset_meters"))


def _stopper() -> Any:
    """fairseq's function, also where its program is the main module; None in a process without it."""
    modules = (sys.modules.get(name) for name in ("__main__", "fairseq_cli.train"))
    found = (getattr(module, "should_stop_early", None) for module in modules)
    return next((function for function in found if function is not None), None)
