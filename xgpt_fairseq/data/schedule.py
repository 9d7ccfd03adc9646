"""The order of batches: which objective sees which pairs, in which update, on which rank.

fairseq assigns batches to ranks round-robin, and accumulates `--update-freq` of them per rank. So one update consumes
world size × update-freq consecutive batches, a block. In an iteration every objective gets the same block in turn ("we
calculate task-specific loss in turns and update the model for each task in every pre-training iteration", section 4.3):
all objectives see the same pairs, and each update is of one objective on all ranks.
"""

from __future__ import annotations

import heapq
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


def batches_of_update(update_freq: int | Sequence[int], epoch: int) -> int:
    """A rank's batches in an update of *epoch* (1, 2, …): one for each epoch, the last for all that follow."""
    freq = [update_freq] if isinstance(update_freq, int) else list(update_freq)
    return freq[min(epoch, len(freq)) - 1]


def group_into_updates(batches: Sequence[Batch], size: int) -> list[list[Batch]]:
    """Group *batches* into blocks of exactly *size*, with every item once, and without empty batches if possible.

    The batches of an incomplete last block are divided into *size* parts. If they have too few items, they are divided
    together with the batches before them, into one block more. A part of a batch is within its limits, such as
    --max-tokens, whatever they are; only where most batches have a single item, and there are too few items for one
    block more, some of the last block's have two. (fairseq replaces an empty batch by a dummy, whose gradient is zeroed
    but whose sample size still counts.)
    """
    whole = len(batches) - len(batches) % size
    blocks = [list(batches[i : i + size]) for i in range(0, whole, size)]
    rest = list(batches[whole:])
    if not rest:
        return blocks
    items, divided = sum(map(len, rest)), 1
    while items < divided * size and divided <= len(blocks):
        items += sum(map(len, blocks[-divided]))
        divided += 1
    if items >= divided * size:
        begin = len(blocks) - (divided - 1)
        parts = divide([batch for block in blocks[begin:] for batch in block] + rest, divided * size)
        return blocks[:begin] + [parts[i : i + size] for i in range(0, len(parts), size)]
    pieces = np.array_split(np.concatenate(rest), size)  # of one item or none
    if not blocks:
        return [pieces]
    last = blocks[-1]
    smallest = sorted(range(size), key=lambda place: len(last[place]))  # enough of them have a single item
    for place, piece in zip(smallest, pieces, strict=True):
        last[place] = np.concatenate([last[place], piece])
    return blocks


def divide(batches: Sequence[Batch], number: int) -> list[Batch]:
    """Divide *batches* into *number* parts, none empty, each of one batch and about equally large, in their order.

    Args:
        batches: at most *number*, with at least that many items.
        number: how many parts.
    """
    parts = [1] * len(batches)
    largest = [(-float(len(batch)), place) for place, batch in enumerate(batches)]  # a heap: the size of its parts
    heapq.heapify(largest)
    for _ in range(number - len(batches)):
        _, place = largest[0]
        parts[place] += 1
        heapq.heapreplace(largest, (-len(batches[place]) / parts[place], place))
    return [part for batch, count in zip(batches, parts, strict=True) for part in np.array_split(batch, count)]


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
