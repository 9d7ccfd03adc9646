"""Several processes that train together: none waits for ever for another.

torch's default is 30 minutes on CPUs and 10 on GPUs, and fairseq's --heartbeat-timeout sends Ctrl-C to a process that
makes no progress, which one that waits for another never sees.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

# What torch and its libraries say of the other processes, as in `reporting.KNOWN`, and what we say instead.
GO_ON = "end them all, and type the same commands again"
SAID = [
    (
        r"(?s)gloo.*Timed out waiting (\d+)000ms",
        rf"another process of this training has not answered for \1 s: it hangs, or was stopped; {GO_ON}",
    ),
    (
        r"(?s)gloo.*(?:Connection (?:closed|reset) by peer|Broken pipe|Connection refused|Socket closed)"
        r"|remote process exited|DistNetworkError: (?:Connection reset by peer|Broken pipe|Failed to recv)",
        f"another process of this training has ended, and what it said tells why; {GO_ON}",
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
