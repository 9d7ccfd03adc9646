"""The GPU of these tests. They skip where torch finds none.

With XGPT_GPU_TESTS=cpu they run on the CPU instead: that rehearses the tests, not the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

REHEARSAL = os.environ.get("XGPT_GPU_TESTS") == "cpu"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="session")
def device() -> torch.device:
    if REHEARSAL:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_float32() -> None:
    """Products of float32 in float32, not in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def options(device: torch.device) -> Callable[..., list[str]]:
    """Options of fairseq's programs: on a GPU those that are given, in a rehearsal `--cpu` alone."""
    return lambda *given: ["--cpu"] if REHEARSAL else list(given)
