"""Which errors of a step say that the GPU's memory is full, as fairseq sees them."""

from __future__ import annotations

import pytest
import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.programs.memory import FULL, memory_holds_the_batch


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), RuntimeError("CUDA error: out of memory")],
    ids=repr,
)
def test_full_memory_is_an_error_of_one_line(error: RuntimeError) -> None:
    with pytest.raises(DataError, match="halve --batch-size") as info, memory_holds_the_batch():
        raise error
    # else fairseq would take it for one after which it goes on
    assert not isinstance(info.value, RuntimeError) and "out of memory" not in FULL


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), StopIteration(), KeyboardInterrupt()], ids=repr)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as info, memory_holds_the_batch():
        raise error
    assert info.value is error
