"""Programs that start in a moment: processes that have fairseq imported already are forked to run them.

Importing torch and fairseq takes most of the time of a short program, and the tests start hundreds. `Preloaded` starts
one process that imports both and waits (`server.py`). In its folder `bin` lie python and the programs of this Python's
environment (`client.py` under their names): each hands its arguments, variables, folder and files over, and a child of
the waiting process runs the very script that the environment has under that name, from its first line. A program's exit
status is handed back, signals are handed on, and it is killed where its client was, a moment later: whoever kills one
reads its output to the end before going on.

Each test process starts its own at the first call; those of pytest-xdist share their main process's (`share`).

What the children have in common with the waiting process, and with no program that is started afresh: imported
libraries (nothing of this project). A test that is about starting a program takes the real one.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PREFIXES = ("fairseq-", "xgpt-")
SHARED = "XGPT_TESTS_PRELOADED"  # the folder of the one that pytest-xdist's processes share


class Preloaded:
    """The waiting process, its `socket`, and `bin`, the folder for PATH. For Linux."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="preloaded-"))  # the process removes it as it ends
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.socket = folder / "socket"
        real = Path(sys.executable).parent
        for name in ("python", *(path.name for path in real.iterdir() if path.name.startswith(PREFIXES))):
            # -I -S: the client itself needs no installed package
            command = [real / "python", "-IS", HERE / "client.py", self.socket, real / name]
            (self.bin / name).write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
            (self.bin / name).chmod(0o755)
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), str(self.socket), str(self.bin / "python")],
            # PYTHONPATH is each program's own
            env={**{n: v for n, v in os.environ.items() if n != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,  # it ends when this end is closed, however this process ends
            stdout=subprocess.PIPE,
            text=True,
        )

    def path(self) -> str:
        """PATH with the preloaded programs first; waits until they are."""
        assert self._server.stdout is not None
        if not self._server.stdout.closed:
            said = self._server.stdout.readline()
            assert said == "ready\n", "the process that preloads has failed; see its output"
            self._server.stdout.close()
        return self._path()

    def _path(self) -> str:
        return os.pathsep.join([str(self.bin), os.environ["PATH"]])


class SharedPreloaded(Preloaded):
    """The one that another process has started."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.socket = folder / "bin", folder / "socket"

    def path(self) -> str:
        for _ in range(1200):
            if self.socket.exists():
                return self._path()
            time.sleep(0.1)
        raise AssertionError("the process that preloads has failed; see its output")


def share() -> None:
    """Start one for this process and for those that it starts."""
    os.environ[SHARED] = str(preloaded().bin.parent)


@functools.cache
def preloaded() -> Preloaded:
    """The one of this process, started at the first call, or the one that its parent shares with it."""
    folder = os.environ.get(SHARED)
    return SharedPreloaded(Path(folder)) if folder else Preloaded()


def python() -> str:
    """A Python that starts in a moment, to run a program of this project with; this one where none is preloaded."""
    if sys.platform != "linux":
        return sys.executable
    preloaded().path()
    return str(preloaded().bin / "python")
