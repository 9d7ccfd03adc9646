"""Reads mutated inputs, one after the other, and notes whatever is no `DataError`.

The work runs in a process of its own: a crash is noted with the mutation that did it, and the next process goes on
behind it. Memory and time of a reading are limited.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.mutations import mutate_folder
from tests.fuzz.targets import Target, prepare
from xgpt_fairseq.errors import DataError

SECONDS = 10  # that one reading may take
MEMORY = 1 << 30  # bytes beyond what the process has already
_OWN = f"{os.sep}xgpt_fairseq{os.sep}"
# what differs between messages of one kind: quotations, paths, numbers
_PARTICULAR = re.compile(r"""'.*'|".*"|\[.*\]|\{.*\}|/\S+|0x\w+|-?\d+(\.\d+)?""")


class TooSlow(BaseException):
    """A reading took more than `SECONDS`. No Exception, so that no reader mistakes it for a damaged file."""


@dataclass
class Outcome:
    """What became of a target's mutations.

    Attributes:
        read, refused: how many were read, and how many ended with a `DataError`.
        surprises: kind → mutations (seeds) that gave it.
    """

    read: int = 0
    refused: int = 0
    surprises: dict[str, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.read + self.refused + sum(map(len, self.surprises.values()))


def fuzz(name: str, target: Target, seeds: Sequence[int]) -> Outcome:
    """Read *target*'s input once for each seed.

    Args:
        name: the target's; it is part of each seed.
        target: what is read.
        seeds: one for each mutation.
    """
    prepare()
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_fast_folder()) as place:
        (Path(place) / "original").mkdir()
        target.write(Path(place) / "original")
        left = list(seeds)
        while left:
            left = _in_process(name, target, left, outcome, Path(place))
    return outcome


def one(name: str, target: Target, seed: int, folder: Path) -> str:
    """Write *target*'s input to *folder*, with the mutation of *seed*; what was changed."""
    target.write(folder)
    return mutate_folder(folder, random.Random(f"{name} {seed}"))


def _fast_folder() -> str | None:
    """In memory where possible: each mutation writes its files anew."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _in_process(name: str, target: Target, seeds: Sequence[int], outcome: Outcome, place: Path) -> Sequence[int]:
    """Run *seeds* in a forked process; those that are left: none, or those behind one that ended the process."""
    notes = place / "notes.jsonl"
    notes.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
            resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
            with open(notes, "a", buffering=1) as file:
                _run(name, target, seeds, place, file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    done = notes.read_text().splitlines()
    for line in done:
        _note(outcome, *json.loads(line))
    if status == 0:
        return ()
    seed = seeds[len(done)]
    if os.WIFSIGNALED(status):
        _note(outcome, seed, f"killed by {signal.Signals(os.WTERMSIG(status)).name}")
        return seeds[len(done) + 1 :]
    raise RuntimeError(f"{name}: the harness itself failed, at seed {seed}")


def _note(outcome: Outcome, seed: int, kind: str) -> None:
    if kind == "read":
        outcome.read += 1
    elif kind == "refused":
        outcome.refused += 1
    else:
        outcome.surprises.setdefault(kind, []).append(seed)


def _run(name: str, target: Target, seeds: Sequence[int], place: Path, notes: io.TextIOBase) -> None:
    original, copy, output = place / "original", place / "copy", place / "output"
    with _quiet(), _alarms():
        for seed in seeds:
            for folder in (copy, output):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(original, copy)
            output.mkdir()
            mutate_folder(copy, random.Random(f"{name} {seed}"))
            kind = _outcome_of(target, copy, output)
            notes.write(json.dumps([seed, kind]) + "\n")


def _outcome_of(target: Target, folder: Path, output: Path) -> str:
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.read(folder, output)
        return "read"
    except DataError:
        return "refused"
    except BaseException as error:
        return _kind(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _kind(error: BaseException) -> str:
    """The error's type, the first words of its message, and the innermost place in the package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _OWN in frame.filename] or frames
    where = f"{own[-1].filename.rsplit(_OWN, 1)[-1]}:{own[-1].lineno}"
    message = _PARTICULAR.sub("…", " ".join(str(error).split()))[:60]
    return f"{type(error).__name__} at {where}: {message}" if message else f"{type(error).__name__} at {where}"


@contextlib.contextmanager
def _alarms() -> Iterator[None]:
    def too_slow(_: int, __: FrameType | None) -> None:
        raise TooSlow(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what readers and libraries print."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        saved = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        logging.disable()
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            os.dup2(saved, 2)
            os.close(saved)
