"""fairseq's iterator over an epoch's batches, which goes on between two updates, whatever an update consists of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)


class UpdateIterator(EpochBatchIterator):
    """Counts updates where it is resumed: each rank's batches come in groups of --update-freq, of one objective each.

    fairseq counts a rank's batches. With another number of processes, or another --update-freq, that number is in the
    midst of an update, or of another part of the epoch, and all later updates would mix two objectives.

    Args:
        update_freq: the batches of an epoch's (1, 2, …) update, of one rank.
        options: see `EpochBatchIterator`.
    """

    def __init__(self, *, update_freq: Callable[[int], int], **options: Any) -> None:
        super().__init__(**options)
        self._update_freq = update_freq

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state; within an epoch, also `update_freq`, `world_size` and `updates`, all of the epoch's."""
        state: dict[str, Any] = super().state_dict()
        if state["iterations_in_epoch"] > 0:
            freq = self._update_freq(self.epoch)
            state |= {"update_freq": freq, "world_size": self.num_shards, "updates": len(self) // freq}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after as many updates: exactly there if an update has as many batches of all ranks together.

        Else at the same part of the epoch, with a warning: its order is another one then. A state of an earlier
        version says nothing of updates, and goes on as fairseq does.
        """
        if state_dict["iterations_in_epoch"] > 0 and "update_freq" in state_dict:
            self.epoch = state_dict["epoch"]  # whose batches `len` counts
            state_dict = {**state_dict, "iterations_in_epoch": self._position(state_dict)}
        super().load_state_dict(state_dict)

    def _position(self, state: dict[str, Any]) -> int:
        """How many batches of this rank are done."""
        freq, before = self._update_freq(self.epoch), state["update_freq"]
        updates, block = len(self) // freq, self.num_shards * freq
        made, of, block_before = state["iterations_in_epoch"] // before, state["updates"], state["world_size"] * before
        # one is left at least: of an epoch without any, fairseq makes no update, and ends in a traceback
        most = max(0, updates - 1 - self.skip_remainder_batch)
        if (updates, block) != (of, block_before) or made > most:
            done = min(round(made * updates / of), most)
            logger.warning(
                f"epoch {self.epoch} was interrupted after {made} of {of} updates of {block_before} batches each, and "
                f"goes on after {done} of {updates} updates of {block}, in another order: some of its texts come "
                "again, others do not (with the same --batch-size, and the same product of --update-freq and the "
                "number of processes, it would go on exactly there)"
            )
            made = done
        return made * freq
