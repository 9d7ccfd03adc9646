"""Work on several processes: the order, what is ahead, errors, and processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.preloaded import python
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io import workers
from xgpt_fairseq.io.workers import map_ordered, submit_ordered, worker_pool


def test_cores_where_the_system_does_not_say_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert workers.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers.available_cores() == 8


class Counting:
    """Remembers how often it was called, in its own process."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: int) -> tuple[int, int, int]:
        self.calls += 1
        return item * item, self.calls, os.getpid()


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 7, None])
def test_in_order(number: int, chunk: int | None) -> None:
    results = [square for square, _, _ in map_ordered(Counting(), range(100), number, chunk=chunk)]
    assert results == [item * item for item in range(100)]


def test_fewer_than_none() -> None:
    for use in (lambda: list(map_ordered(str, [1], -1)), lambda: worker_pool(-1).__enter__()):
        with pytest.raises(DataError, match="--workers must be at least 0, got -1"):
            use()


def test_what_a_function_remembers_is_kept() -> None:
    results = list(map_ordered(Counting(), range(100), 2, chunk=10))
    by_process: dict[int, list[int]] = {}
    for _, calls, process in results:
        by_process.setdefault(process, []).append(calls)
    assert os.getpid() not in by_process
    assert 1 <= len(by_process) <= 2
    for calls in by_process.values():
        assert sorted(calls) == list(range(1, len(calls) + 1))


@pytest.mark.parametrize("number", [1, 2])
def test_items_are_read_as_results_are_taken(number: int) -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        while True:
            yield read
            read += 1

    results = map_ordered(Counting(), items(), number, chunk=5)
    for expected in range(50):
        assert next(results)[0] == expected * expected
        assert read <= expected + 5 * workers.MAX_PENDING_CHUNKS * number
    results.close()  # and a caller may lose interest
    assert read < 100


def fail_at_seven(item: int) -> int:
    if item == 7:
        raise DataError("line 7 is not text")
    return item


@pytest.mark.parametrize("number", [1, 2])
def test_errors_pass_through(number: int) -> None:
    results = map_ordered(fail_at_seven, range(20), number, chunk=1)
    with pytest.raises(DataError, match=r"^line 7 is not text$"):
        list(results)

    def items() -> Iterator[int]:
        yield 1
        raise DataError("the file is damaged")

    with pytest.raises(DataError, match=r"^the file is damaged$"):
        list(map_ordered(abs, items(), number))


def kill_at_seven(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_process_is_an_error() -> None:
    with pytest.raises(DataError, match=r"one of 2 worker processes was killed; .*smaller --workers"):
        list(map_ordered(kill_at_seven, range(20), 2, chunk=1))


PROGRAM = """
import os, sys, time
from xgpt_fairseq.io.workers import map_ordered

def work(item):
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.05)
    return item

for _ in map_ordered(work, range(10_000), 2, chunk=1):
    pass
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_stays_behind(tmp_path: Path, how: signal.Signals) -> None:
    marks = tmp_path / "processes"
    command = [python(), "-c", PROGRAM, str(marks)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        while not marks.exists() or len(set(marks.read_text().split())) < 2:
            assert program.poll() is None
            time.sleep(0.05)
        program.send_signal(how)
        _, errors = program.communicate(timeout=60)  # ends only when the workers have ended, too
    assert program.returncode == -how
    # Ctrl-C is the main process's: the workers say nothing
    assert errors.count("KeyboardInterrupt") == (how == signal.SIGINT)


INTERRUPTED = """
import os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from xgpt_fairseq.io import workers

fork = ProcessPoolExecutor._spawn_process

def fork_and_interrupt(pool):
    fork(pool)
    os.kill(os.getpid(), signal.SIGINT)  # behind the first process, before the thread that ends it

ProcessPoolExecutor._spawn_process = fork_and_interrupt
if sys.argv[1] == "map":
    list(workers.map_ordered(str, range(10), 2, chunk=1))
else:
    with workers.worker_pool(2):
        pass
"""


@pytest.mark.parametrize("way", ["map", "pool"])
def test_ctrl_c_while_processes_start(way: str) -> None:
    """The program waited for ever for the first process, which nobody ended."""
    done = subprocess.run([python(), "-c", INTERRUPTED, way], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT and "KeyboardInterrupt" in done.stderr


# A pool that is there before its work


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number**2, os.getpid()


def fail_with(number: int) -> tuple[int, int]:
    raise DataError(f"number {number}")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    with worker_pool(workers) as pool:
        found = list(submit_ordered(((partial(slow_square, number), number) for number in range(20)), pool, 4))
    assert [(square, number) for (square, _), number in found] == [(number**2, number) for number in range(20)]
    elsewhere = {pid for (_, pid), _ in found} - {os.getpid()}
    assert bool(elsewhere) == (workers > 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_turn(workers: int) -> None:
    calls = ((partial(fail_with if number == 3 else slow_square, number), number) for number in range(9))
    found = []
    with worker_pool(workers) as pool, pytest.raises(DataError, match="number 3"):
        for _, number in submit_ordered(calls, pool, 8):
            found.append(number)
    assert found == [0, 1, 2]


def test_no_more_calls_are_made_than_asked_for() -> None:
    begun = []

    def calls() -> Iterator[tuple[partial[tuple[int, int]], int]]:
        for number in range(100):
            begun.append(number)
            yield partial(slow_square, number), number

    with worker_pool(2) as pool:
        results = submit_ordered(calls(), pool, 5)
        for _ in range(3):
            next(results)
    assert len(begun) == 3 + 4
