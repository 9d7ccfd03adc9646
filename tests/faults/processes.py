"""Programs in processes of their own, in places where things go wrong: small disks, read-only folders, other users.

A process is forked, so that a program's libraries are imported once for hundreds of runs; a place is a mount that only
that process sees (Linux, and the right to make mount namespaces: root, or `unshare --map-root-user`).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.programs.names import fairseq_program
from xgpt_fairseq.programs.quiet import quieten
from xgpt_fairseq.programs.reporting import report_in_fairseq_programs

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
BEGINNING = 0.02  # seconds in which a program's first lines have certainly run
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a program ended: status as a shell has it, and what it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """What it said on the standard error, without progress bars and logs."""
        said = [line.rsplit("\r", 1)[-1].strip() for line in self.stderr.splitlines()]
        return [line for line in said if line and "| INFO |" not in line and "it/s" not in line and "%|" not in line]


class Running:
    """A program that was started; the leader of a process group and session of its own."""

    def __init__(self, command: Sequence[object], folder: Path, logs: Path, prepare: Callable[[], Any]) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        begun, begins = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            status = 70
            try:
                os.close(begun)
                os.setsid()
                for number, name in ((1, "stdout"), (2, "stderr")):
                    os.dup2(os.open(logs / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
                os.chdir(folder)
                prepare()
                status = become([str(part) for part in command], lambda: os.close(begins))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stderr.flush()
                os._exit(status)
        os.close(begins)
        self._begun = begun

    def wait_for_the_program(self, seconds: float) -> None:
        """Wait until the program itself runs, and then some seconds: before that, a signal meets this module."""
        os.read(self._begun, 1)
        time.sleep(BEGINNING + seconds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process alone, not to its children."""
        os.kill(self.process, number)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.process, 0)
        os.close(self._begun)
        code = os.waitstatus_to_exitcode(status)
        texts = [(self._logs / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return Ended(code if code >= 0 else 128 - code, *texts)

    def left_behind(self, seconds: float = 10) -> list[str]:
        """The processes of its session that are still there after some seconds."""
        until = time.monotonic() + seconds
        while (found := _session(self.process)) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def end(self) -> None:
        """Kill what is left of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)


def run(command: Sequence[object], folder: Path, logs: Path, prepare: Callable[[], Any] = lambda: None) -> Ended:
    """Run a program to its end.

    Args:
        command: the program's name and arguments.
        folder: where it runs.
        logs: a folder for what it says.
        prepare: called in its process before.
    """
    return Running(command, folder, logs, prepare).wait()


def own_mounts() -> None:
    """Let this process mount what no other sees. Raises OSError where it may not."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _call(_LIBC.unshare, CLONE_NEWNS)
    else:
        _call(_LIBC.unshare, CLONE_NEWNS | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call(_LIBC.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)


def mount_small_disk(folder: Path, size: int) -> None:
    """An empty disk of *size* bytes at *folder*, in memory."""
    _call(_LIBC.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode())


def enlarge(folder: Path, size: int) -> None:
    """Give the disk at *folder* *size* bytes."""
    _call(_LIBC.mount, None, os.fsencode(folder), None, MS_REMOUNT, f"size={size}".encode())


def mount_read_only(folder: Path) -> None:
    """Let nothing be written in *folder*."""
    _call(_LIBC.mount, os.fsencode(folder), os.fsencode(folder), None, MS_BIND, None)
    _call(_LIBC.mount, None, os.fsencode(folder), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def keep_from_writing() -> None:
    """Let permissions bind this process as if it were not root, but for reading: Python itself may lie in root's."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Sets(ctypes.Structure):
        _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))

    dac_read_search = 1 << 2
    sets = (Sets * 2)(Sets(dac_read_search, dac_read_search, 0), Sets(0, 0, 0))
    _call(_LIBC.capset, ctypes.byref(Header(0x20080522, 0)), sets)


def can_mount() -> bool:
    """Whether `own_mounts` works here."""
    child = os.fork()
    if child == 0:
        try:
            own_mounts()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def become(command: list[str], begin: Callable[[], object] = lambda: None) -> int:
    """Run a program of this environment here, as if it had been started; its exit status. *begin* is called before."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.stdout = open(1, "w", closefd=False, errors="surrogateescape")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    program = str(Path(sys.executable).parent / command[0])
    sys.argv = [program, *command[1:]]
    sys.excepthook = sys.__excepthook__
    logging.root.handlers.clear()  # the parent's, which write elsewhere
    if fairseq_program() is not None:  # as they set it up when they are imported, which the parent may have done
        logging.basicConfig(
            format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level="INFO", stream=sys.stdout
        )
    report_in_fairseq_programs()  # as importing the plugin does, which the parent has done already
    quieten(fairseq_program())
    try:
        begin()
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    else:
        status = 0
    import atexit

    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return status


def _session(leader: int) -> list[str]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            state, _, _, session, *_ = rest.split()
            if int(session) == leader and state != "Z":
                found.append(name)
    return found
