"""What the log says of each objective's gradient: its norm, and how many of its updates were clipped."""

from __future__ import annotations

import logging

from fairseq.logging import metrics
from torch import Tensor

logger = logging.getLogger(__name__)

# Gradients are large at the start of every training. So the first window says nothing, and a warning is due where
# nearly all updates of a later one are clipped: the length of each step is then the clip norm's, not the loss's.
WINDOW, NEARLY_ALL = 200, 0.95


class GradientLog:
    """Divides what fairseq logs of an update's gradient (`gnorm`, `clip`) by the objective that the update was of."""

    def __init__(self) -> None:
        self._clipped: dict[str, Tensor | float] = {}  # of the window
        self._updates: dict[str, int] = {}
        self._named: set[str] = set()

    def log(self, objective: str) -> None:
        """Log `OBJECTIVE_gnorm` and `OBJECTIVE_clip` (percent) of the update that fairseq has just logged, if it has.

        An objective that is clipped in nearly all of its updates is named in a warning, once.
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
        share = float(self._clipped.pop(objective)) / WINDOW  # waits for a GPU, once in so many updates
        if updates > WINDOW and share >= NEARLY_ALL and objective not in self._named:
            self._named.add(objective)
            logger.warning(
                f"{objective}: {100 * share:.0f} % of its last {WINDOW} updates were clipped (--clip-norm), so that "
                f"its --objective-weights hardly acts; the log's {objective}_gnorm says how large its gradient is"
            )
