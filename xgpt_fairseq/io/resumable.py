"""Output folders that take hours to write, and can be resumed after an interruption.

.NAME.partial/data/          the future folder NAME
.NAME.partial/journal.json   the run's options, and its progress at a moment when all files were consistent
.NAME.partial/lock           held while a run is at work

A run may keep other files next to these while it lasts.
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
from xgpt_fairseq.io.atomic import (
    check_no_link,
    sync_and_swap_in,
    sync_folder,
    take_lock,
    write_error,
    write_json,
    writing,
)

JOURNAL_VERSION = 1


def partial_path(output: Path) -> Path:
    """Where the folder *output* is written before it appears under its name."""
    return output.with_name(f".{output.name}.partial")


class ResumableOutput:
    """The working folder of a run: `finish` or `replace` makes it *output*; until then the next run resumes there.

        with ResumableOutput(output, options, overwrite=False) as run:
            begin_at(run.state)         # None: at the beginning
            …                           # write to run.data
            run.save(state)             # every now and then
            run.finish(last="dataset.json", files=["*.bin"])

    Without a `save` there is nothing to resume from, and a run that fails leaves nothing behind.

    Args:
        output: the folder to write.
        options: everything that determines the contents of the folder. Only a run with the same options resumes.
        overwrite: start over if an unfinished run cannot be resumed.
        what: what messages call the run.

    Attributes:
        data: the folder to write to.
        folder: its parent; delete it to start over.
        state: the state that the interrupted run saved last; None if this run starts over.

    Raises:
        DataError: an unfinished run had other options, or its journal is unreadable, or another process is at work.
    """

    def __init__(self, output: Path, options: dict[str, Any], *, overwrite: bool, what: str = "run") -> None:
        self.output = output.resolve()
        self.folder = partial_path(self.output)
        self.data = self.folder / "data"
        self.state: dict[str, Any] | None = None
        self._what = what
        self._overwrite = overwrite
        self._journal = self.folder / "journal.json"
        self._options: dict[str, Any] = json.loads(json.dumps(options))
        check_no_link(self.folder)
        with writing(output):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = take_lock(self.folder, f"another {what} is writing {output}")
        try:
            if self._journal.exists():
                self._read_journal()
            if self.state is None:
                self._start_over()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if (named := write_error(error, self.output, self.folder)) is not None:
            raise named from error

    def close(self) -> None:
        """End the run. If a state was saved, another run can resume; otherwise nothing is left behind."""
        if self._lock is None:
            return
        if not self.is_resumable:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    @property
    def is_resumable(self) -> bool:
        """Whether the next run can resume."""
        return self._journal.exists()

    def save(self, state: dict[str, Any]) -> None:
        """Save the progress; the files that *state* (JSON) refers to must be on disk."""
        write_json(self._journal, {"version": JOURNAL_VERSION, "options": self._options, "state": state}, indent=None)

    def discard_journal(self) -> None:
        """Make the next run start over."""
        self._journal.unlink(missing_ok=True)

    def reject_state(self, reason: str) -> None:
        """Start over, with an empty folder and no state, if the user allows it.

        Args:
            reason: why the interrupted run cannot be resumed, for the message: "cannot be resumed: …".

        Raises:
            DataError: *overwrite* is not set.
        """
        if not self._overwrite:
            raise DataError(f"the unfinished {self._what} {self.folder} {reason}; pass --overwrite to start over")
        self._start_over()

    def finish(self, *, last: str, files: Iterable[str]) -> None:
        """Move the files into *output*, which may exist and have other files. Arguments as for `atomic_directory`."""
        sync_and_swap_in(self.data, self.output, last=last, files=files)
        self.discard_journal()  # now that the files are on the disk

    def replace(self) -> None:
        """Rename the folder to *output*; an existing folder of this name is deleted with its contents.

        At any moment, *output* is a complete folder or does not exist. If the process is killed in between, the next
        run finds the new folder as it was saved.
        """
        if self.output.exists():
            replaced = self.folder / "replaced"
            shutil.rmtree(replaced, ignore_errors=True)
            self.output.rename(replaced)
        self.data.rename(self.output)
        sync_folder(self.output.parent)
        self.discard_journal()

    def _read_journal(self) -> None:
        """Set `state` if this run can resume the interrupted one."""
        if not self.data.is_dir():  # killed after the folder was renamed
            return
        try:
            journal = json.loads(self._journal.read_text(encoding="utf-8"))
            version, before, state = journal["version"], journal["options"], journal["state"]
        except (ValueError, KeyError, TypeError) as error:
            self.reject_state(f"cannot be resumed: its journal is unreadable ({error})")
            return
        if version != JOURNAL_VERSION:
            differences = [f"format version {version}"]
        else:
            differences = [
                f"{name}: {before.get(name)} then, {self._options.get(name)} now"
                for name in {**before, **self._options}
                if before.get(name) != self._options.get(name)
            ]
        if differences:
            self.reject_state(f"was started with other options ({'; '.join(differences)})")
        else:
            self.state = state

    def _start_over(self) -> None:
        self.discard_journal()
        self.state = None
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
        self.data.mkdir()
