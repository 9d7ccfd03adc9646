"""A file of JSON lines that grows for hours, can be read meanwhile, and goes on where an interrupted run stopped.

NAME                   a JSON object a line, as they come
.NAME.partial/         only until the file is complete: journal.json, the run's options; lock
.NAME.options.json     beside a complete file, if asked for: the run's options
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import check_no_link, take_lock, write_error, write_json
from xgpt_fairseq.io.resumable import partial_path

# Seconds after which lines are on the disk, not only with the system.
SYNC_SECONDS: Final = 5.0


class ResumableLines:
    """Writes lines in groups, and knows how many groups an interrupted run of the same options has written.

        with ResumableLines(path, options, group=32, overwrite=False) as lines:
            for group in groups[lines.groups :]:
                lines.write(group)
            lines.finish()

    Args:
        path: the file.
        options: all that decides what the lines say, as JSON.
        group: lines of a group; the last may have fewer.
        overwrite: replace a file that is there, or is another run's, once there is a first group of new lines.
        keep_options: keep the options beside the complete file. A file that is there with the same ones is no error,
            then, but `finished`; as for a process of several, all of which are started again.

    Attributes:
        groups: those that are there.
        finished: the file is there, complete; nothing can be written.

    Raises:
        DataError: the file is there, another process writes it, or it is of a run with other options.
    """

    def __init__(
        self, path: Path, options: Mapping[str, Any], *, group: int, overwrite: bool, keep_options: bool = False
    ) -> None:
        self.path = path
        self.groups = 0
        self._file: IO[bytes] | None = None
        self._lock: int | None = None
        self._wanted: dict[str, Any] = json.loads(json.dumps({**options, "group": group}))
        real = Path(os.path.realpath(path))
        self._kept = real.with_name(f".{real.name}.options.json") if keep_options else None
        self._folder = partial_path(real)
        journal = self._folder / "journal.json"
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no file; give another name")
        self.finished = path.exists() and not overwrite and not journal.exists()
        if self.finished:
            self._check_finished()
            return
        if not path.parent.is_dir():
            raise DataError(f"{path}: no folder {path.parent}")
        check_no_link(self._folder)
        self._folder.mkdir(exist_ok=True)
        self._lock = take_lock(self._folder, f"another run is writing {path}")
        try:
            if path.exists() and not overwrite and not journal.exists():  # another run has just finished it
                raise DataError(f"{path} exists; give another name or --overwrite")
            if journal.exists() and path.exists():
                different = self._different(journal)
                if not different:
                    self.groups = _cut_to_groups(path, group)
                elif not overwrite:
                    raise DataError(
                        f"{path} is unfinished, and was begun with other options ({', '.join(different)}); pass "
                        "--overwrite to start over"
                    )
            if self.groups:
                self._file = path.open("ab")
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if (named := write_error(error, self.path)) is not None:
            raise named from error

    def _different(self, journal: Path) -> list[str]:
        """The options that *journal* has otherwise."""
        before = _read(journal)
        return [name for name in {**before, **self._wanted} if before.get(name) != self._wanted.get(name)]

    def _check_finished(self) -> None:
        """Refuse a complete file that this run may not have written.

        Raises:
            DataError: its options are not kept, or are others.
        """
        if self._kept is None or not self._kept.exists():
            raise DataError(f"{self.path} exists; give another name or --overwrite")
        if different := self._different(self._kept):
            raise DataError(
                f"{self.path} exists, and was written with other options ({', '.join(different)}); give another name "
                "or --overwrite"
            )

    def write(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Append a group of lines."""
        file = self._begun()
        lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        file.write(lines.encode("utf-8", "backslashreplace"))  # names of files may be no Unicode
        file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(file.fileno())
            self._synced = time.monotonic()

    def finish(self) -> None:
        """The file is complete."""
        file = self._begun()
        file.flush()
        os.fsync(file.fileno())
        if self._kept is not None:
            write_json(self._kept, self._wanted)
        (self._folder / "journal.json").unlink()  # while it is locked: from now on the file is complete
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begun(self) -> IO[bytes]:
        """The file, begun with the first of its lines: until then, another one that is to be replaced stays."""
        if self._lock is None:
            raise ValueError(f"{self.path} is closed")
        if self._file is None:
            self.path.unlink(missing_ok=True)
            if self._kept is not None:
                self._kept.unlink(missing_ok=True)
            write_json(self._folder / "journal.json", self._wanted)
            self._file = self.path.open("ab")
        return self._file

    def close(self) -> None:
        """End the run. Another one goes on, unless this one has called `finish`; without lines, nothing is left."""
        if self._lock is None:
            return
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # of a full disk, whose error is on its way already
                file.close()
        if (self._folder / "journal.json").exists() and self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()
            shutil.rmtree(self._folder)
        elif not (self._folder / "journal.json").exists():
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def _read(journal: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(journal.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{journal} is unreadable ({error}); pass --overwrite to start over") from None
    return value


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
