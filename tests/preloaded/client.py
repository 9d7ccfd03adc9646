"""Run a program of the environment in a child of the waiting process: client.py SOCKET PROGRAM ARGUMENT…

It starts in a few hundredths of a second, without any installed package. See `__init__.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

path, program, *arguments = sys.argv[1:]
options = program.endswith("/python") and (not arguments or arguments[0][:1] == "-")
# options of Python, and a variable that it reads as it starts, are for one that starts afresh
if (options and arguments[:1] not in (["-c"], ["-m"])) or "PYTHONHASHSEED" in os.environ:
    os.execv(program, [program, *arguments])
# a signal that arrives before there is a program to hand it to waits until there is
HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
link = socket.socket(socket.AF_UNIX)
link.connect(path)
mask = os.umask(0)
job = {"program": program, "arguments": arguments, "variables": dict(os.environ), "umask": mask}
job["folder"] = os.getcwd()  # noqa: PTH109  (pathlib takes its time)
message = json.dumps(job).encode()
socket.send_fds(link, [len(message).to_bytes(8, "big")], [0, 1, 2])
link.sendall(message)
child = int.from_bytes(link.recv(8), "big")


def hand_on(number: int, _: object) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


for number in HANDED_ON:
    signal.signal(number, hand_on)
signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
said = link.recv(8)
status = int.from_bytes(said, "big", signed=True) if said else 1
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
