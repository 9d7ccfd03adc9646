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

from xgpt_fairseq.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")
Key = TypeVar("Key")

# Items handed to a worker process at once: enough that handing over a line of text costs nothing.
ITEMS_PER_CHUNK = 2000
# Chunks that wait or are worked on, per worker: enough to keep workers busy, few enough to bound memory.
MAX_PENDING_CHUNKS = 4
# Results of `submit_ordered` that wait for their turn, per worker; the work on them is uneven.
MAX_PENDING_CALLS = 8

# The function of a worker process, set when the process starts, so that what it remembers is kept from chunk to chunk.
_function: Callable[[Any], Any] | None = None


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, chunk: int | None = None
) -> Iterator[Result]:
    """map(function, items) over *workers* processes, in order; 0 or 1: in this process.

    Items are read as results are taken, a few chunks ahead, so that memory does not grow with their number.

    Args:
        function: gets to each process once, and lives there until the end.
        items: what it is called with.
        workers: the number of processes.
        chunk: items that are handed over at once; `ITEMS_PER_CHUNK` if not given.

    Raises:
        DataError: a process was killed. What *function* or *items* raise passes through.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    source = iter(items)
    waiting: deque[Future[list[Any]]] = deque()
    pool = ProcessPoolExecutor(workers, initializer=_start, initargs=(function,))
    try:
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

    They are forked, and at once: before the progress bar starts a thread, and before there are an open store and its
    lock to inherit. (Fresh processes would each load all of xgpt_fairseq and its libraries.)
    """
    if workers < 1:
        yield None
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=start_worker)
    try:
        pool.submit(os.getpid).result()
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def submit_ordered(
    calls: Iterable[tuple[Callable[[], Result], Key]], pool: ProcessPoolExecutor | None, ahead: int
) -> Iterator[tuple[Result, Key]]:
    """The results of *calls*, made in *pool* at most *ahead* calls ahead, or in this process when *pool* is None.

    Args:
        calls: what is to be called (picklable, if in a pool), each with a key that comes back with its result.

    Yields:
        (result, key) in the order of *calls*. What a call raises is raised here when its turn has come.
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


def start_worker() -> None:
    """For worker processes: Ctrl-C is the main process's to handle; and one whose main process was killed ends, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
