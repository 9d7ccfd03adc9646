"""What all console programs share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from tests.preloaded import python
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError

PROGRAM = """
from xgpt_fairseq.cli import run

def program():
    for number in range(100_000):
        print(number)

run(program)
"""


@pytest.mark.parametrize("kind", [DataError, partial(OSError, 2, "No such file")])
def test_an_error_is_one_line_whatever_it_names(
    kind: Callable[[str], Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise kind("a\nb\r\x1b[31m\tc\u2028: \\")

    with pytest.raises(SystemExit):
        run(program)
    assert capsys.readouterr().err.startswith("error: a\\nb\\r\\x1b[31m\tc\\u2028: \\")


def test_output_to_a_file_is_utf_8_whatever_the_locale() -> None:
    program = "from xgpt_fairseq.cli import run\nrun(lambda: print('\\u0444\\udce9'))"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", program, "xgpt_fairseq.cli.run"]  # by its name, it does without torch
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0 and done.stdout == "ф".encode() + b"\xe9\n", done.stderr


def test_a_reader_that_ends_early_is_no_error() -> None:
    """As with `| head -1`."""
    process = subprocess.Popen([python(), "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    assert b"BrokenPipe" not in process.stderr.read()
