"""What all console programs share."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from xgpt_fairseq.cli import run

def program():
    for number in range(100_000):
        print(number)

run(program)
"""


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As with `| head -1`."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    assert b"BrokenPipe" not in process.stderr.read()
