"""What goes wrong, and what has to hold then: one line that names the place, nothing half-written, and it goes on.

Each fault returns what was wrong, as sentences; none is good.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.processes import (
    Ended,
    Running,
    enlarge,
    keep_from_writing,
    mount_read_only,
    mount_small_disk,
    own_mounts,
    run,
)
from tests.faults.programs import Program, files_below, results

Fault = Callable[[Program, Path, dict], list[str]]
PLENTY = 1 << 28
PAGE = os.sysconf("SC_PAGESIZE")  # the least that a disk in memory has
FILLER = ".filler"


def prepared(program: Program, folder: Path) -> Path:
    """A new folder with the program's inputs, and an empty `out/`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    program.write(folder)
    (folder / "out").mkdir()
    return folder


def reference(program: Program, folder: Path) -> dict:
    """What the program writes where nothing goes wrong."""
    ended = run(program.command, prepared(program, folder), folder.with_name("logs"))
    assert ended.status == 0, ended.stderr[-3000:]
    return results(folder / "out", program)


def full_disk(program: Program, folder: Path, expected: dict) -> list[str]:
    """The disk of the output is full; then it is larger."""

    def change(out: Path) -> None:
        mount_small_disk(out, max(program.small, PAGE))
        if program.small < PAGE:
            (out / FILLER).write_bytes(bytes(PAGE))

    def mend(out: Path) -> None:
        enlarge(out, PLENTY)
        (out / FILLER).unlink(missing_ok=True)

    return _in_a_bad_place(program, folder, expected, change, mend, "No space left|full")


def read_only(program: Program, folder: Path, expected: dict) -> list[str]:
    """Nothing can be written where the output should be."""
    return _in_a_bad_place(program, folder, expected, mount_read_only, None, "Read-only|cannot be written")


def no_permission(program: Program, folder: Path, expected: dict) -> list[str]:
    """The folder of the output is another user's."""
    if os.getuid() != 0:
        return []
    prepared(program, folder)
    os.chown(folder / "out", 65534, 65534)
    ended = run(program.command, folder, folder.with_name("logs"), keep_from_writing)
    return [*_one_line(ended, program, "Permission denied|cannot be written"), *_left(folder / "out", program)]


def file_in_the_way(program: Program, folder: Path, expected: dict) -> list[str]:
    """A file is where the folder of the output should be."""
    prepared(program, folder)
    (folder / "out").rmdir()
    (folder / "out").write_text("a file")
    ended = run(program.command, folder, folder.with_name("logs"))
    wrong = _one_line(ended, program, "Not a directory|no folder|File exists|is not|exists")
    return [*wrong, *(["the file is another"] if (folder / "out").read_text() != "a file" else [])]


def interrupted_by(number: int) -> Fault:
    """A signal at a random moment, and the same command again."""

    def fault(program: Program, folder: Path, expected: dict) -> list[str]:
        prepared(program, folder)
        seconds = expected["seconds"] * random.random()
        running = Running(program.command, folder, folder.with_name("logs"), lambda: None)
        running.wait_for_the_program(seconds)
        running.kill(number)
        ended = running.wait()
        waits = (ended.stdout + ended.stderr).count(program.meets) < 2 if program.meets else False
        wrong = [f"left behind: {name}" for name in running.left_behind() if not waits]
        running.end()
        if ended.status and number != signal.SIGKILL:
            if ended.status not in (128 + number, 1):
                wrong.append(f"status {ended.status}")
            if "Traceback" in ended.stderr:
                wrong.append("a traceback")
            wrong += _left(folder / "out", program)
        wrong += _whole(folder / "out", program, expected["results"])
        # a program that had done all of its work only had to end
        if ended.status and results(folder / "out", program) != expected["results"]:
            wrong += _again(program, folder, expected)
        return [f"after {seconds:.2f} s: {each}" for each in wrong]

    return fault


def two_at_once(program: Program, folder: Path, expected: dict) -> list[str]:
    """The same command twice: one does the work, and the other does it, too, or is refused in a line."""
    prepared(program, folder)
    first = Running(program.command, folder, folder.with_name("logs"), lambda: None)
    time.sleep(expected["seconds"] * random.random() / 2)
    second = Running(program.command, folder, folder.with_name("logs-other"), lambda: None)
    both = [first.wait(), second.wait()]
    wrong = [f"left behind: {name}" for running in (first, second) for name in running.left_behind()]
    if all(ended.status for ended in both):
        wrong.append("both failed")
    for ended in both:
        if ended.status and (ended.status != 1 or "Traceback" in ended.stderr or len(_errors(ended)) != 1):
            wrong.append(f"said {ended.lines[-3:]}"[:300])
    found = results(folder / "out", program)
    different = [name for name in {**expected["results"], **found} if found.get(name) != expected["results"].get(name)]
    wrong += [f"other results: {different[:3]}"] if different else []
    return [*wrong, *_left(folder / "out", program)]


def other_clock(program: Program, folder: Path, expected: dict) -> list[str]:
    """`kill -9`, and all files have times of the future or of the past when the command is typed again."""
    prepared(program, folder)
    running = Running(program.command, folder, folder.with_name("logs"), lambda: None)
    running.wait_for_the_program(expected["seconds"] * random.random())
    running.kill(signal.SIGKILL)
    running.wait()
    running.left_behind()
    running.end()
    for path in folder.rglob("*"):
        when = random.choice([0, 1e9, time.time() + 1e9]) + random.random()
        os.utime(path, (when, when))
    if results(folder / "out", program) == expected["results"]:
        return []
    return _again(program, folder, expected)


def _in_a_bad_place(
    program: Program,
    folder: Path,
    expected: dict,
    change: Callable[[Path], object],
    mend: Callable[[Path], object] | None,
    words: str,
) -> list[str]:
    """Run *program* where *change* was made to the folder of its output, and again once *mend* has changed it back."""
    prepared(program, folder)
    report = folder.with_name("report.json")
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            own_mounts()
            change(folder / "out")
            ended = run(program.command, folder, folder.with_name("logs"))
            wrong = _one_line(ended, program, words) + _whole(folder / "out", program, expected["results"])
            wrong += _left(folder / "out", program)
            if mend is not None:
                mend(folder / "out")
                wrong += _again(program, folder, expected)
            report.write_text(json.dumps(wrong))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return json.loads(report.read_text()) if report.exists() else ["the test itself failed"]


def _one_line(ended: Ended, program: Program, words: str) -> list[str]:
    """Whether the program failed with one line that names a place below `out`."""
    import re

    if ended.status == 0:
        return ["status 0"]
    wrong = [] if ended.status == 1 else [f"status {ended.status}"]
    if "Traceback" in ended.stderr or "Error:" in ended.stderr:
        return [*wrong, f"raw: {ended.stderr.strip().splitlines()[-1][:150]}"]
    errors = _errors(ended)
    if len(errors) != 1 or "out" not in errors[0] or not re.search(words, errors[0]):
        wrong.append(f"said {ended.lines[-3:]}"[:300])
    return wrong


def _errors(ended: Ended) -> list[str]:
    """The lines that say what went wrong; of two processes, the other one says only that the first has ended."""
    said = [line.partition("]: ")[2] if line.startswith("[rank") else line for line in ended.lines]
    return [line for line in said if line.startswith("error: ") and not line.startswith("error: another process")]


def _whole(out: Path, program: Program, expected: dict) -> list[str]:
    """Whether what is there under final names is what belongs there: no half of a file."""
    if not out.is_dir():
        return []
    found = {}
    wrong = []
    for path in list(files_below(out)):
        name = path.relative_to(out).as_posix()
        if any(part.startswith(".") for part in path.relative_to(out).parts) or name.endswith((".tmp", ".incomplete")):
            continue
        if program.resumes and name.endswith((".jsonl", ".log")):
            continue  # grows under its name, as documented
        found[name] = path
        if path.suffix == ".pt":
            from xgpt_fairseq.checkpoints import load_checkpoint
            from xgpt_fairseq.errors import DataError

            try:
                load_checkpoint(path)
            except DataError as error:
                wrong.append(f"{name}: {error}"[:200])
    for name, path in found.items():
        if path.suffix == ".pt" or name not in expected:
            continue
        content = path.read_bytes() if path.name not in program.changing else path.read_bytes().count(b"\n")
        if content != expected[name]:
            wrong.append(f"{name} is not whole")
    return wrong


def _left(out: Path, program: Program) -> list[str]:
    """Temporary files that a program leaves that has ended by itself; a working folder is allowed where it resumes."""
    if not out.is_dir():
        return []
    return [
        f"left {path.relative_to(out)}"
        for path in files_below(out)
        if path.name.endswith(".tmp") and not any(part.endswith(".partial") for part in path.parts)
    ]


def _again(program: Program, folder: Path, expected: dict) -> list[str]:
    """Whether the same command then does all of its work."""
    ended = run(program.command, folder, folder.with_name("logs-again"))
    if ended.status:
        return [f"again: status {ended.status}: {ended.lines[-1:]}"[:300]]
    found = results(folder / "out", program)
    different = [name for name in expected["results"] if found.get(name) != expected["results"][name]]
    return [f"again: other results: {different[:3]}"] if different else []


FAULTS: dict[str, Fault] = {
    "full disk": full_disk,
    "read-only": read_only,
    "no permission": no_permission,
    "file in the way": file_in_the_way,
    "Ctrl-C": interrupted_by(signal.SIGINT),
    "kill": interrupted_by(signal.SIGTERM),
    "kill -9": interrupted_by(signal.SIGKILL),
    "two at once": two_at_once,
    "other clock": other_clock,
}
REPEATED = ("Ctrl-C", "kill", "kill -9", "two at once", "other clock")
