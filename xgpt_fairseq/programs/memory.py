"""A batch that the GPU's memory does not hold ends the training.

fairseq leaves such a batch out and goes on: where none fits, without an update and without an end. Of several
processes, the one that leaves it out would have other logs to sum up than the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from xgpt_fairseq.errors import DataError

FULL: Final = (
    "the GPU's memory is full: halve --batch-size and double --update-freq (the same captions in an update), or pass "
    "--checkpoint-activations"
)


@contextlib.contextmanager
def memory_holds_the_batch() -> Iterator[None]:
    """For a step of training.

    Raises:
        DataError: in place of an error by which fairseq would leave the batch out.
    """
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error):  # fairseq's own question; torch has several classes of such errors
            raise
        raise DataError(FULL) from error
