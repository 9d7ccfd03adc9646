"""The waiting process: imports fairseq, and forks for each program that a client asks for. See `__init__.py`."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import logging
import multiprocessing.spawn
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "torch.utils.data",
    "fairseq.trainer",
    "fairseq_cli.train",
    "fairseq_cli.generate",
    "fairseq_cli.hydra_train",
    "torch._dynamo",  # with sympy: what the first optimizer imports
    "sacremoses",
)
OF_EXTRAS = ("matplotlib.backends.backend_agg", "torch.utils.tensorboard")


def preload() -> None:
    """Import what takes long."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in OF_EXTRAS:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    warm_hydra()
    # what these scripts do to logging as they are imported, each program has to do for itself
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq_cli"]:
        del sys.modules[name]
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    # Noted as that module is imported, before `become` names another one: processes that are spawned are the real
    # Python, which takes the files that they inherit.
    multiprocessing.spawn.get_executable()


def warm_hydra() -> None:
    """Let hydra parse fairseq's options once: its parser learns its grammar as it goes, half a second of it."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    parser = options.get_training_parser()
    convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, ["data", "--arch", "transformer"]))


def wait_for_jobs(path: Path) -> dict[str, Any]:
    """Returns in a forked child, for each job, what it is to run. Ends, and removes its folder, as its input ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)  # it is there when it listens
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # its children are nobody's concern
    gc.freeze()  # nothing of what is here is looked at, and so copied, by children
    print("ready", flush=True)
    while True:
        if 0 in select.select([listener, 0], [], [])[0]:
            shutil.rmtree(path.parent)
            os._exit(0)
        link, _ = listener.accept()
        if os.fork():
            link.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return take(link)


def take(link: socket.socket) -> dict[str, Any]:
    """Fork the program that *link* asks for, in which this returns; the parent watches over it, and ends."""
    size, files, _, _ = socket.recv_fds(link, 8, 3)
    message = b""
    while len(message) < int.from_bytes(size, "big"):
        message += link.recv(1 << 16)
    child = os.fork()
    if child:
        for file in files:
            os.close(file)
        watch(link, child)
        os._exit(0)
    link.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return json.loads(message)


def watch(link: socket.socket, child: int) -> None:
    """Hand back how *child* ends; kill it where its client is gone."""
    with contextlib.suppress(OSError):  # it may be gone already
        link.sendall(child.to_bytes(8, "big"))
    ended = os.pidfd_open(child)
    readable, _, _ = select.select([link, ended], [], [])
    if ended not in readable:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        link.sendall(code.to_bytes(8, "big", signed=True))


def become(job: dict[str, Any], python: str, base: list[str]) -> None:
    """Run the program of *job* in this process, as if it had been started so."""
    import numpy as np

    os.chdir(job["folder"])
    os.umask(job["umask"])
    os.environ.clear()
    os.environ.update(job["variables"])
    np.random.seed()  # noqa: NPY002  (the parent's state would be the same for all)
    sys.executable = python
    if own := os.environ.get("PYTHONPATH"):
        base = [*map(os.path.abspath, own.split(os.pathsep)), *base]
    program, arguments = job["program"], job["arguments"]
    if Path(program).name != "python":
        sys.argv, sys.path = [program, *arguments], [str(Path(program).parent), *base]
        runpy.run_path(program, run_name="__main__")
    elif arguments[0] == "-c":
        sys.argv, sys.path = ["-c", *arguments[2:]], ["", *base]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv, sys.path = ["-m", *arguments[2:]], [str(Path.cwd()), *base]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path = arguments, [str(Path(arguments[0]).absolute().parent), *base]
        runpy.run_path(arguments[0], run_name="__main__")


def end(run: Callable[[], None]) -> NoReturn:
    """Run a program and end this process, without taking the interpreter to pieces: that takes seconds."""
    status: Any = 0
    try:
        run()
    except SystemExit as stop:
        status = stop.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status and status < 0:  # as Python ends after Ctrl-C
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status or 0)


if __name__ == "__main__":
    preload()
    job = wait_for_jobs(Path(sys.argv[1]))
    end(lambda: become(job, sys.argv[2], sys.path[1:]))
