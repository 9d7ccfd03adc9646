"""The order of batches: which objective sees which pairs, in which update, on which rank.

fairseq assigns batches to ranks round-robin, and accumulates `--update-freq` of them per rank. So one update consumes
world size × update-freq consecutive batches. In turns ("we
calculate task-specific loss in turns and update the model for each task in every pre-training iteration", section
4.3), an iteration is the same block once for each objective: every objective sees the same pairs, each update is of
one objective, on all ranks alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Batch = np.ndarray


@dataclass(frozen=True)
class IndexCodec:
    """Packs (epoch, objective, item) into the one integer that a data loader hands to its workers.

    The epoch travels with the index because worker processes outlive it: masks must change from epoch to epoch.
    """

    items: int
    objectives: int

    def pack(self, epoch: int, objective: int, item: np.ndarray) -> np.ndarray:
        """Indices (n,) of items (n,)."""
        return (epoch * self.objectives + objective) * self.items + np.asarray(item, dtype=np.int64)

    def unpack(self, index: int) -> tuple[int, int, int]:
        """(epoch, objective, item) of an index."""
        turn, item = divmod(int(index), self.items)
        epoch, objective = divmod(turn, self.objectives)
        return epoch, objective, item


def group_into_updates(batches: Sequence[Batch], size: int) -> list[list[Batch]]:
    """Cut *batches* into blocks of exactly *size*, no item dropped or doubled, and no batch empty if it can be helped.

    The items of an incomplete last block are divided anew into *size* smaller batches; if there are not enough of
    them, they join the batches of the block before. (fairseq replaces an empty batch by a dummy, whose
    gradient is zeroed but whose sample size still counts.)
    """
    whole = len(batches) - len(batches) % size
    blocks = [list(batches[i : i + size]) for i in range(0, whole, size)]
    if whole < len(batches):
        rest = np.concatenate(list(batches[whole:]))
        pieces = np.array_split(rest, size)
        if len(rest) >= size or not blocks:
            blocks.append(pieces)
        else:
            blocks[-1] = [np.concatenate(pair) for pair in zip(blocks[-1], pieces, strict=True)]
    return blocks


def interleave_objectives(
    windows: Sequence[Sequence[Batch]],
    *,
    epoch: int,
    objectives: int,
    block: int,
    index_codec: IndexCodec,
    rng: np.random.Generator | None,
) -> list[np.ndarray]:
    """The batches of an epoch in the order of training, each (items,) int64 of packed indices.

    Args:
        windows: the epoch's batches of items, each pair in one of them; the windows follow one another as they are.
        objectives: how many objectives take turns.
        block: batches per update, over all ranks: world size × update-freq.
        rng: shuffles the batches of each window; seeded by (seed, epoch) alone, so that all ranks and every resumed
            run agree. None leaves them in order.
    """
    batches: list[Batch] = []
    for window in windows:
        batches += window if rng is None else [window[i] for i in rng.permutation(len(window))]
    order: list[np.ndarray] = []
    for update_batches in group_into_updates(batches, block):
        for objective in range(objectives):
            order += [index_codec.pack(epoch, objective, batch) for batch in update_batches]
    return order
