"""Logs the gradient norm of each objective, and the share of its updates that were clipped."""

from __future__ import annotations

import logging

from fairseq.logging import metrics
from torch import Tensor

logger = logging.getLogger(__name__)

# Gradients are large at the start of every training, so the first window is ignored. If nearly all updates of a later
# one are clipped, the clip norm and not the loss determines the size of each step, so there is a warning.
WINDOW, NEARLY_ALL = 200, 0.95


class GradientLog:
    """Attributes fairseq's log of an update's gradient (`gnorm`, `clip`) to the update's objective."""

    def __init__(self) -> None:
        self._clipped: dict[str, Tensor | float] = {}  # of the window
        self._updates: dict[str, int] = {}
        self._named: set[str] = set()

    def log(self, objective: str) -> None:
        """Log `OBJECTIVE_gnorm` and `OBJECTIVE_clip` (percent) of the update that fairseq has just logged, if it has.

        Warns once about each objective with nearly all updates clipped.
        """
        norm, clip = metrics.get_meter("train_inner", "gnorm"), metrics.get_meter("train_inner", "clip")
        if norm is None or norm.val is None:
            return
        metrics.log_scalar(f"{objective}_gnorm", norm.val, 1, round=3)
        if clip is None or clip.val is None:
            return  # --clip-norm 0
        metrics.log_scalar(f"{objective}_clip", clip.val, 1, round=1)
        self._clipped[objective] = self._clipped.get(objective, 0.0) + clip.val / 100
        self._updates[objective] = updates = self._updates.get(objective, 0) + 1
        if updates % WINDOW:
            return
        share = float(self._clipped.pop(objective)) / WINDOW  # synchronises a GPU, once per WINDOW updates
        if updates > WINDOW and share >= NEARLY_ALL and objective not in self._named:
            self._named.add(objective)
            logger.warning(
                f"{objective}: {100 * share:.0f} % of its last {WINDOW} updates were clipped (--clip-norm), so that "
                f"its --objective-weights has hardly any effect; see {objective}_gnorm in the log for its gradient norm"
            )
