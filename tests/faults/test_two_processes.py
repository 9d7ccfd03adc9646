"""Two processes train together: where one ends, hangs or is stopped, the other ends with a line, and none stays."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import inputs
from tests.faults.processes import Running
from tests.faults.run import import_once
from xgpt_fairseq.regions.store import RegionStore

TRAIN = (
    "fairseq-train", "captions", "--task", "xgpt_pretrain", "--criterion", "xgpt", *inputs.TRAINING, "--batch-size",
    "4", "--max-update", "1000000", "--log-interval", "10", "--disable-validation", "--no-save",
    "--distributed-world-size", "2", "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp",
)  # fmt: skip
START = 120  # seconds in which training has begun, on a busy machine
TIME_OUT = 8
ENDED = "error: another process of this training has ended, and what it said tells why"
SILENT = f"error: another process of this training has not answered for {TIME_OUT} s: it hangs, or was stopped"


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    import_once()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    inputs.models(tmp_path)
    return tmp_path


@contextlib.contextmanager
def two_ranks(place: Path, *options: str, prepare: Callable[[], object] = lambda: None) -> Iterator[list[Running]]:
    """Two processes that train; *prepare* is called in the second one, and nothing is left of them afterwards."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    shared = ["--distributed-no-spawn", "--distributed-init-method", address]
    ranks = []
    for rank in (0, 1):
        command = [*TRAIN, *shared, "--distributed-rank", str(rank), *options]
        ranks.append(Running(command, place, place / f"logs{rank}", prepare if rank else lambda: None))
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.end()


def wait_for(words: str, log: Path) -> None:
    until = time.monotonic() + START
    while not log.exists() or words not in log.read_text():
        assert time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.1)


def test_one_that_is_killed(place: Path) -> None:
    with two_ranks(place, "--num-workers", "0") as (first, second):
        wait_for("train_inner", place / "logs0" / "stdout")
        second.kill(signal.SIGKILL)
        ended = first.wait()
        assert ended.status == 1 and "Traceback" not in ended.stderr
        assert ENDED in ended.lines[-1] and ended.lines[-1].startswith("[rank0]: ")
        assert not first.left_behind() and not second.left_behind()


def test_the_first_one_cannot_write(place: Path) -> None:
    """It ends before training; the other, which only waits for it, says so in a line, and torch nothing."""
    (place / "file").write_text("")
    with two_ranks(place, "--save-dir", "file/run") as ranks:
        first, second = [rank.wait() for rank in ranks]
        assert (first.status, first.stderr) == (1, "[rank0]: error: file/run: Not a directory\n")
        assert second.status == 1 and second.lines == [
            f"[rank1]: {ENDED}; end them all, and type the same commands again"
        ]


@pytest.mark.thorough  # TIME_OUT, and a few seconds
@pytest.mark.parametrize("stopped", [0, 1])
def test_one_that_is_stopped(stopped: int, place: Path) -> None:
    with two_ranks(place, "--num-workers", "1", "--heartbeat-timeout", str(TIME_OUT)) as ranks:
        wait_for("train_inner", place / "logs0" / "stdout")
        ranks[stopped].kill(signal.SIGSTOP)
        begin = time.monotonic()
        ended = ranks[1 - stopped].wait()
        assert time.monotonic() - begin < 5 * TIME_OUT
        assert ended.status and "Traceback" not in ended.stderr
        assert SILENT in ended.lines[-1]
        assert not ranks[1 - stopped].left_behind()
        ranks[stopped].kill(signal.SIGCONT)  # whoever stopped it lets it go on: it ends, too
        assert ranks[stopped].wait().status
        assert not ranks[stopped].left_behind()


@pytest.mark.thorough
@pytest.mark.parametrize("workers", ["0", "1"])
def test_one_whose_data_hang(workers: str, place: Path) -> None:
    real, calls = RegionStore.features, []

    def hangs(store: RegionStore, *arguments: int) -> object:
        calls.append(arguments)
        if len(calls) > 100:
            time.sleep(1e6)
        return real(store, *arguments)

    def prepare() -> None:
        RegionStore.features = hangs  # type: ignore[assignment, method-assign]

    begin = time.monotonic()
    options = ("--num-workers", workers, "--heartbeat-timeout", str(TIME_OUT))
    with two_ranks(place, *options, prepare=prepare) as (first, second):
        for rank in (second, first):
            ended = rank.wait()
            assert ended.status and "Traceback" not in ended.stderr
            said = ended.stdout + ended.stderr
            assert SILENT in said or ENDED in said or "Killing job for not making progress" in said
        assert not first.left_behind() and not second.left_behind()
    assert time.monotonic() - begin < START


def started(command: list[object], place: Path) -> subprocess.Popen[str]:
    """A launcher in a session of its own; what it and its processes say is in `log`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with (place / "log").open("w") as log:
        return subprocess.Popen(
            list(map(str, command)), cwd=place, stdout=log, stderr=log, text=True, start_new_session=True,
            env={**os.environ, "PATH": path},
        )  # fmt: skip


def processes(place: Path) -> dict[str, int]:
    """The training processes in *place* and not their workers: the rank that each has → its number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cwd").readlink() != place:
                continue
            variables = dict(part.partition("=")[::2] for part in (folder / "environ").read_text().split("\0"))
            if "fairseq-train" in (folder / "cmdline").read_text() and "RANK" in variables:
                found.setdefault(variables["RANK"], int(folder.name))
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_torchrun(number: int, place: Path) -> None:
    """torchrun ends what is left, and its log has the line."""
    train = ["--distributed-init-method", "env://", "--distributed-no-spawn", "--num-workers", "0",
             "--heartbeat-timeout", str(TIME_OUT)]  # fmt: skip
    script = place / "train.sh"
    script.write_text(f'exec {" ".join([*TRAIN, *train])} --distributed-rank "$RANK"\n')
    launcher = started(["torchrun", "--standalone", "--nproc-per-node", 2, "--no-python", "bash", script], place)
    try:
        wait_for("train_inner", place / "log")
        os.kill(processes(place)["1"], number)
        assert launcher.wait(START) == 1
        said = (place / "log").read_text()
        assert SILENT in said or ENDED in said or "Signal 9 (SIGKILL)" in said
        assert not processes(place)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)
