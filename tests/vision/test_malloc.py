"""Memory that is freed and kept: page faults tell."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from xgpt_fairseq.vision import malloc as memory

# The module alone, in a process of its own, since the setting cannot be taken back.
PROGRAM = """
import resource, runpy, sys
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 25, dtype=np.uint8)  # 32 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), runpy.run_path(sys.argv[1])["keep_freed_memory"](), faults(), faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_kept() -> None:
    command = [sys.executable, "-c", PROGRAM, memory.__file__]
    before, done, _, after = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert done == "True"
    assert 4 * int(after) < int(before)


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert memory.keep_freed_memory() is False
