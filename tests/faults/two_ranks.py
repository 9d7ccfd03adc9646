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
    if os.fork() == 0:
        os._exit(become([*shared, str(1 - rank)]))
    # it does not wait for the other: an ended process must be gone, and with it the store where the two meet
    sys.exit(become([*shared, str(rank)]))


main()
