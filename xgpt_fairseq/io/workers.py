"""Ordered parallel map with a bounded queue."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from xgpt_fairseq.errors import DataError, check_at_least

Item = TypeVar("Item")
Result = TypeVar("Result")
Key = TypeVar("Key")

# Items per call of a worker process: enough to make the overhead per line of text negligible.
ITEMS_PER_CHUNK = 2000
# Chunks that wait or are worked on, per worker: enough to keep workers busy, few enough to bound memory.
MAX_PENDING_CHUNKS = 4
# Results of `submit_ordered` that wait for their turn, per worker; calls take different times.
MAX_PENDING_CALLS = 8
# Signals that end a program, and are held back while processes start.
HELD = (signal.SIGINT, signal.SIGTERM)

# The function of a worker process, set when the process starts, so that its caches last from chunk to chunk.
_function: Callable[[Any], Any] | None = None


def available_cores() -> int:
    """How many processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, chunk: int | None = None
) -> Iterator[Result]:
    """map(function, items) over *workers* processes, in order; 0 or 1: in this process.

    Items are read a few chunks ahead of the results that are taken, so memory does not grow with their number.

    Args:
        function: sent to each process once, and kept there until the end.
        items: its arguments.
        workers: number of processes.
        chunk: items that are sent at once; `ITEMS_PER_CHUNK` if not given.

    Raises:
        DataError: a process was killed. Exceptions of *function* and *items* pass through.
    """
    check_at_least("--workers", workers, 0)
    if workers <= 1:
        yield from map(function, items)
        return
    source = iter(items)
    waiting: deque[Future[list[Any]]] = deque()
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(function,))
    try:
        _fork_processes(pool)
        while batch := list(itertools.islice(source, chunk or ITEMS_PER_CHUNK)):
            waiting.append(pool.submit(_call, batch))
            if len(waiting) >= MAX_PENDING_CHUNKS * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"one of {workers} worker processes was killed; if memory ran out, pass a smaller --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """*workers* processes; None for 0.

    They are forked immediately: before the progress bar starts a thread, and before there are an open store and its
    lock to inherit. (Spawned processes would each import xgpt_fairseq and its libraries.)
    """
    check_at_least("--workers", workers, 0)
    if workers < 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=start_worker)
    try:
        _fork_processes(pool)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def submit_ordered(
    calls: Iterable[tuple[Callable[[], Result], Key]], pool: ProcessPoolExecutor | None, ahead: int
) -> Iterator[tuple[Result, Key]]:
    """The results of *calls*, run in *pool* at most *ahead* calls ahead, or in this process if *pool* is None.

    Args:
        calls: functions to call (picklable, for a pool), each with a key that is returned with its result.

    Yields:
        (result, key) in the order of *calls*. An exception of a call is raised here when its turn comes.
    """
    if pool is None:
        for call, key in calls:
            yield call(), key
        return
    waiting: deque[tuple[Future[Result], Key]] = deque()
    for call, key in calls:
        waiting.append((pool.submit(call), key))
        if len(waiting) >= ahead:
            future, first = waiting.popleft()
            yield future.result(), first
    while waiting:
        future, first = waiting.popleft()
        yield future.result(), first


def _fork_processes(pool: ProcessPoolExecutor) -> None:
    """Start the processes of *pool*. Ctrl-C and `kill` wait until the thread runs that ends them.

    Else they would come between, and the program would wait for ever for processes that nobody ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        started = pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started.result()


def start_worker() -> None:
    """Initialise a worker process: ignore Ctrl-C, which the main process handles, and end with the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the main process's handler ends that in an orderly way
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    start_worker()


def _call(items: list[Any]) -> list[Any]:
    assert _function is not None
    return [_function(item) for item in items]
