"""Folders that take hours to write: where the run puts its files, and what it finds when it was interrupted.

.NAME.partial/data/          the coming folder NAME
.NAME.partial/journal.json   what was asked for, and how far the run was at a moment when all files agreed
.NAME.partial/lock           held while a run is at work
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import swap_in, take_lock, write_json

JOURNAL_VERSION = 1


class ResumableOutput:
    """The folder in which a run works: `finish` makes it *output*; if that is not reached, the next run goes on there.

        with ResumableOutput(output, options, overwrite=False) as run:
            begin_at(run.state)         # None: at the beginning
            …                           # write to run.data
            run.save(state)             # every now and then
            run.finish(last="dataset.json", files=["*.bin"])

    Without a `save` there is nothing to go on from, and a run that fails leaves nothing behind.

    Args:
        output: the folder to write.
        options: what decides the contents of the folder. A run is resumed by one that has the same.
        overwrite: start over where an unfinished run had other options.

    Attributes:
        data: the folder to write to.
        folder: what holds it, and is to be deleted to start over.
        state: what the interrupted run saved last; None if this run starts over.

    Raises:
        DataError: an unfinished run had other options, or its journal is unreadable, or another process is at work.
    """

    def __init__(self, output: Path, options: dict[str, Any], *, overwrite: bool) -> None:
        self.output = output.resolve()
        self.folder = self.output.with_name(f".{self.output.name}.partial")
        self.data = self.folder / "data"
        self._journal = self.folder / "journal.json"
        self._options: dict[str, Any] = json.loads(json.dumps(options))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.folder, f"another process is writing {output}")
        try:
            self.state = self._read_state(overwrite)
            if self.state is None:
                self._clear()
                self.data.mkdir()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._journal.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    @property
    def is_resumable(self) -> bool:
        """Whether a next run finds something to go on from."""
        return self._journal.exists()

    def save(self, state: dict[str, Any]) -> None:
        """Note how far the run is; what *state* (JSON) speaks of must be on disk."""
        write_json(self._journal, {"version": JOURNAL_VERSION, "options": self._options, "state": state}, indent=None)

    def discard_journal(self) -> None:
        """Let the next run start over."""
        self._journal.unlink(missing_ok=True)

    def finish(self, *, last: str, files: Iterable[str]) -> None:
        """Give the folder its name; the arguments are those of `atomic_directory`."""
        swap_in(self.data, self.output, last=last, files=files)
        self.discard_journal()

    def _read_state(self, overwrite: bool) -> dict[str, Any] | None:
        if not self._journal.exists():
            return None
        try:
            journal = json.loads(self._journal.read_text(encoding="utf-8"))
            version, before, state = journal["version"], journal["options"], journal["state"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._journal} is unreadable ({error}); delete {self.folder} to start over") from error
        if version != JOURNAL_VERSION:
            differences = [f"format version {version}"]
        else:
            differences = [
                f"{name}: {before.get(name)} then, {self._options.get(name)} now"
                for name in {**before, **self._options}
                if before.get(name) != self._options.get(name)
            ]
        if not differences:
            return state
        if overwrite:
            return None
        raise DataError(
            f"the unfinished run {self.folder} was started with other options ({'; '.join(differences)}); pass "
            "--overwrite to start over"
        )

    def _clear(self) -> None:
        self.discard_journal()
        shutil.rmtree(self.data, ignore_errors=True)
