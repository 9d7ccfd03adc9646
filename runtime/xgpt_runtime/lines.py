"""A file of JSON lines that grows for hours, and goes on where an interrupted run stopped.

NAME                   a JSON object a line, as they come
.NAME.partial/         only until the file is complete: journal.json, the run's options and its items; lock
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from xgpt_runtime.errors import DataError

_SYNC_SECONDS: Final = 5.0  # after which lines are on the disk, not only with the system


class ResumableLines:
    """Writes lines in groups, and knows how many groups an interrupted run of the same options has written.

        with ResumableLines(path, options, find, group=32, overwrite=False) as lines:
            for group in groups_of(lines.items)[lines.groups :]:
                lines.write(group)
            lines.finish()

    Args:
        path: the file.
        options: all that decides what the lines say, as JSON.
        find: what the lines are about, as JSON. It is asked once: a run that goes on has the items of the first; with
            *overwrite* it goes on only where they are still the same.
        group: lines of a group; the last may have fewer.
        overwrite: replace a file that is there, or is another run's.

    Attributes:
        items: what *find* has found.
        groups: those that are there.

    Raises:
        DataError: the file is there, another process writes it, or it is of a run with other options; and those of
            *find*.
    """

    def __init__(
        self,
        path: Path,
        options: Mapping[str, Any],
        find: Callable[[], Sequence[Any]],
        *,
        group: int,
        overwrite: bool,
    ) -> None:
        self.path = path
        self.groups = 0
        self.items: Sequence[Any] = ()
        self._file: IO[bytes] | None = None
        self._folder = Path(os.path.realpath(path)).with_name(f".{path.name}.partial")
        self._journal = self._folder / "journal.json"
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file; give another name")
        if not path.parent.is_dir():
            raise DataError(f"{path}: no folder {path.parent}")
        if path.exists() and not overwrite and not self._journal.exists():
            raise DataError(f"{path} exists; give another name or --overwrite")
        if self._folder.is_symlink():  # it would be emptied where that leads
            leads = self._folder.readlink()
            raise DataError(f"{self._folder} is a link to {leads}; remove it: a program makes this folder itself")
        self._folder.mkdir(exist_ok=True)
        self._lock = _take_lock(self._folder / "lock", path)
        try:
            if path.exists() and not overwrite and not self._journal.exists():  # another run has just finished it
                raise DataError(f"{path} exists; give another name or --overwrite")
            self._begin(json.loads(json.dumps({**options, "group": group})), find, group, overwrite)
            self._file = path.open("ab")
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def _begin(self, wanted: dict[str, Any], find: Callable[[], Sequence[Any]], group: int, overwrite: bool) -> None:
        items: Sequence[Any] | None = None
        if self._journal.exists() and self.path.exists():
            before = self._read(overwrite)
            different = [
                name for name in {**before["options"], **wanted} if before["options"].get(name) != wanted.get(name)
            ]
            if different and not overwrite:
                raise DataError(
                    f"{self.path} is unfinished, and was begun with other options ({', '.join(different)}); pass "
                    "--overwrite to start over"
                )
            if overwrite:
                items = find()
            if not different and (items is None or json.loads(json.dumps(items)) == before["items"]):
                self.groups, self.items = _cut_to_groups(self.path, group), before["items"]
        if not self.groups:
            self.items = find() if items is None else items
            self.path.unlink(missing_ok=True)
            with open(self._journal, "w", encoding="utf-8") as journal:
                journal.write(json.dumps({"options": wanted, "items": self.items}))
                journal.flush()
                os.fsync(journal.fileno())  # before there are lines, which go on with it

    def _read(self, overwrite: bool) -> dict[str, Any]:
        try:
            value = json.loads(self._journal.read_text(encoding="utf-8"))
            return {"options": dict(value["options"]), "items": list(value["items"])}
        except (ValueError, KeyError, TypeError):
            if overwrite:
                return {"options": {}, "items": []}
            raise DataError(
                f"{self.path} is unfinished, and {self._journal} is not of this program; pass --overwrite to start over"
            ) from None

    def __enter__(self) -> ResumableLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What the system says against writing names no file: this names it. Other files' errors are not of this."""
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.path} can't be written: {error.strerror}; the same command goes on") from error

    def write(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Append a group of lines. Raises DataError where they can't be written."""
        lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        file = self._open_file
        with self._writing():
            file.write(lines.encode("utf-8", "backslashreplace"))  # names of files may be no Unicode
            file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def finish(self) -> None:
        """The file is complete. Raises DataError where it can't be written."""
        file = self._open_file
        with self._writing():
            file.flush()
            os.fsync(file.fileno())
            self._journal.unlink()  # while it is locked: from now on the file is complete
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        return self._file

    def close(self) -> None:
        """End the run. Another one goes on, unless this one has called `finish`; of no lines nothing is left."""
        if self._lock is None:
            return
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # of a full disk, whose error is on its way already
                file.close()
        if not self.path.exists() or not self.path.stat().st_size:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _take_lock(file: Path, path: Path) -> int | None:
    """Lock *file* for as long as this process lives, where the system can do that."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        import fcntl
    except ImportError:  # Windows
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"another run is writing {path}") from None
    except OSError:
        pass  # some network file systems have no locks; the user must then avoid concurrent runs
    return handle


def _cut_to_groups(path: Path, group: int) -> int:
    """Cut *path* behind its last whole group; the number of groups that stay."""
    count = end = at = 0
    with open(path, "r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            at += len(line)
            count += 1
            if count % group == 0:
                end = at
        file.truncate(end)
    return count // group
