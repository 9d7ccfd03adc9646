"""The order of batches: which objective sees which pairs, in which update, on which rank.

fairseq assigns batches to ranks round-robin, and accumulates `--update-freq` of them per rank. So one update consumes
world size × update-freq consecutive batches, a block. In an iteration every objective gets the same block in turn ("we
calculate task-specific loss in turns and update the model for each task in every pre-training iteration", section 4.3):
all objectives see the same pairs, and each update is of one objective on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Batch = np.ndarray


@dataclass(frozen=True)
class IndexCodec:
    """Packs (epoch, objective, item) into the integer index that a data loader sends to its workers.

    The index contains the epoch because worker processes outlive it, and masks must change every epoch.
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
    """Group *batches* into blocks of exactly *size*, with every item once, and without empty batches if possible.

    The items of an incomplete last block are divided into *size* smaller batches; if there are too few items, they join
    the batches of the previous block. (fairseq replaces an empty batch by a dummy, whose gradient is zeroed but whose
    sample size still counts.)
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
        windows: the epoch's batches of items, by window; windows keep their order.
        objectives: the number of objectives.
        block: batches per update, over all ranks: world size × update-freq.
        rng: shuffles the batches of each window; seeded only by (seed, epoch), so that all ranks and resumed runs
            agree. None keeps their order.
    """
    batches: list[Batch] = []
    for window in windows:
        batches += window if rng is None else [window[i] for i in rng.permutation(len(window))]
    order: list[np.ndarray] = []
    for update_batches in group_into_updates(batches, block):
        for objective in range(objectives):
            order += [index_codec.pack(epoch, objective, batch) for batch in update_batches]
    return order
