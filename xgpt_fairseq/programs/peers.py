"""Several processes that train together: none waits for ever for another.

torch's default is 30 minutes on CPUs and 10 on GPUs, and fairseq's --heartbeat-timeout sends Ctrl-C to a process that
makes no progress, which one that waits for another never sees.
"""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import timedelta
from typing import Any, Final

from xgpt_fairseq.errors import DataError

# What torch and its libraries say of the other processes, as in `reporting.KNOWN`, and what we say instead.
GO_ON = "end them all, and type the same commands again"
ENDED = f"another process of this training has ended, and what it said tells why; {GO_ON}"
# Where the processes meet, what the first says there, and how many others have read it.
_FIRST: Final = "xgpt_first"
_READ: Final = "xgpt_read"
_BEGINS, _ENDS = b"begins", b"ends"
READING_SECONDS: Final = 10
SAID = [
    (
        r"(?s)gloo.*Timed out waiting (\d+)000ms",
        rf"another process of this training has not answered for \1 s: it hangs, or was stopped; {GO_ON}",
    ),
    (
        r"(?s)gloo.*(?:Connection (?:closed|reset) by peer|Broken pipe|Connection refused|Socket closed)"
        r"|remote process exited|DistNetworkError: (?:Connection reset by peer|Broken pipe|Failed to recv)",
        ENDED,
    ),
    (
        r"ProcessExitedException: process (\d+) terminated with signal (\w+)",
        r"process \1 of this training was ended by \2 (SIGKILL: often by the system, whose memory was full)",
    ),
]


def limit_waiting(config: Any) -> None:
    """Let a process wait no longer for another than --heartbeat-timeout, if that is given.

    Args:
        config: fairseq's configuration group `distributed_training`.
    """
    # what reports errors needs the sentences above also where fairseq cannot be imported
    from fairseq.distributed import utils
    from torch import distributed
    from torch.distributed.distributed_c10d import _set_pg_timeout

    seconds = config.heartbeat_timeout
    if seconds > 0 and distributed.is_initialized():
        for group in (None, utils.get_global_group()):
            _set_pg_timeout(timedelta(seconds=seconds), group)


def begin_together() -> None:
    """Wait for the first process, which checks where checkpoints go, and may end by that.

    Without this, the others would be about to meet it once more, and torch would print their stacks.

    Raises:
        DataError: it has ended.
    """
    if (store := _meeting_place()) is None:
        return
    if _rank() == 0:
        store.set(_FIRST, _BEGINS)
        return
    said = store.get(_FIRST)
    store.add(_READ, 1)
    if said != _BEGINS:
        raise DataError(ENDED)


def tell_others_of_the_end() -> None:
    """Let the first process, which the others wait for in `begin_together`, say that it ends.

    It takes part of a second where they wait, and no longer than `READING_SECONDS`: they may have ended, too.
    """
    if "torch.distributed" not in sys.modules or (store := _meeting_place()) is None or _rank() > 0:
        return
    from torch import distributed

    until = time.monotonic() + READING_SECONDS
    with contextlib.suppress(RuntimeError):  # the place is gone: nobody waits there
        if not store.check([_FIRST]):
            store.set(_FIRST, _ENDS)
        while store.add(_READ, 0) < distributed.get_world_size() - 1 and time.monotonic() < until:
            time.sleep(0.05)


def _meeting_place() -> Any:
    """Where the processes of a training have met, a store of torch's; None where there is one process."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return None
    from torch.distributed.distributed_c10d import _get_default_store

    return _get_default_store()


def _rank() -> int:
    from torch import distributed

    return distributed.get_rank()
