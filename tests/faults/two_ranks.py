"""fairseq-train by two processes on the CPU: this one, and one that it forks. `tests.faults.processes.become` runs it.

Each ends by itself. Which rank this one has differs from run to run, so that signals meet both.
"""

from __future__ import annotations

import os
import socket
import sys

from tests.faults.processes import become


def main() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    shared = ["fairseq-train", *sys.argv[1:], "--distributed-init-method", address, "--distributed-world-size", "2",
              "--distributed-no-spawn", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp",
              "--heartbeat-timeout", "20", "--distributed-rank"]  # fmt: skip
    rank = os.getpid() % 2
    other = os.fork()
    if other == 0:
        os._exit(become([*shared, str(1 - rank)]))
    status = become([*shared, str(rank)])
    _, ended = os.waitpid(other, 0)
    sys.exit(status or os.waitstatus_to_exitcode(ended))


main()
