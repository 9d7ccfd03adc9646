"""The batches of an epoch, drawn anew for each: which items, in which batch, of which objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairseq.data import data_utils

from xgpt_fairseq.data.schedule import interleave_objectives
from xgpt_fairseq.errors import DataError


def turns(texts: Any) -> int:
    """How many objectives take turns in a data set: with --objective-schedule joint, none does, and all are one."""
    return 1 if texts.joint else len(texts.objectives)


@dataclass(frozen=True)
class EpochBatches:
    """Draws an epoch's batches, of all ranks, in the order in which ranks and updates take them.

    The order depends on *seed* and the epoch alone, so that all ranks, and a resumed run, agree.

    Attributes:
        texts: the data set itself, without fairseq's wrappers.
        fitting: items (items,) → those whose texts the model can read.
        max_tokens, max_sentences, multiple: limits of a batch, as fairseq has them; multiple, of its size.
        block: epoch → the batches of an update, of all ranks: they are of one objective.
        most: draw no more batches than that; None: all.
        leave_out_empty: several processes leave an empty batch out of their sums; one process that repeats what they
            did would count fairseq's dummy.
    """

    texts: Any
    fitting: Callable[[np.ndarray], np.ndarray]
    max_tokens: int | None
    max_sentences: int | None
    multiple: int
    seed: int
    block: Callable[[int], int]
    most: int | None = None
    leave_out_empty: bool = False

    def __call__(self, dataset: Any, epoch: int) -> list[Any]:
        """The batches of *epoch* (1, 2, …), each the indices (items,) of *dataset*, with their objective in them.

        Raises:
            DataError: no text is short enough.
        """
        texts = self.texts
        texts.set_epoch(epoch)
        with data_utils.numpy_seed(self.seed + epoch):
            indices = dataset.ordered_indices()
        indices = self.fitting(indices)
        if not len(indices):
            raise DataError(
                f"split {texts.split!r}: all texts are longer than the model's --max-target-positions or than "
                f"--max-tokens (the shortest has {texts.sizes.min()} tokens with the end of sentence)"
            )
        rng = np.random.default_rng([self.seed, epoch]) if texts.shuffle else None
        batches = interleave_objectives(
            [
                dataset.batch_by_size(window, self.max_tokens, self.max_sentences, self.multiple)
                for window in texts.windows(indices, rng)
            ],
            epoch=epoch if texts.shuffle else 0,  # validation's masks stay the same
            objectives=turns(texts),
            block=self.block(epoch),
            index_codec=texts.index_codec,
            rng=rng,
        )[: self.most]
        return [batch for batch in batches if len(batch)] if self.leave_out_empty else batches


def too_long_error(
    split: str, count: int, of: int, *, limit: int, longest: int, remedy: str, what: str = "items have a text"
) -> DataError:
    """The error for texts that the model cannot read.

    Args:
        count, of: so many of so many items have such a text.
        limit, longest: what the model reads, and the longest text, in tokens with the end of sentence.
    """
    return DataError(
        f"split {split!r}: {count:,} of {of:,} {what} longer than the model's --max-target-positions {limit}, "
        f"the longest {longest} tokens with the end of sentence: {remedy}"
    )
