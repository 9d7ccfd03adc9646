"""Keeps the checkpoints that fairseq overwrites until the new ones are whole.

fairseq writes one file of a checkpoint aside and renames it, but copies it to `checkpoint_best.pt` and
`checkpoint_last.pt` under their names: a full disk, or the end of the process, left them cut, and what they held before
was lost. So they are moved aside, to `.checkpoint_best.pt.before`, while a checkpoint is saved; that file is empty
where there was none.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xgpt_fairseq.checkpoints import aside_of_checkpoint, is_remote, load_checkpoint
from xgpt_fairseq.errors import DataError

COPIES = ("checkpoint_best", "checkpoint_last")
_HELD: dict[Path, int] = {}  # --save-dir → a descriptor, which locks it for as long as this process lives


def _let_go() -> None:
    for lock in _HELD.values():
        os.close(lock)
    _HELD.clear()


# A data loader's worker outlives a training that is killed by seconds, in which it may be started again.
os.register_at_fork(after_in_child=_let_go)


class WholeCheckpoints:
    """The task calls this object before fairseq saves a checkpoint and afterwards.

    Args:
        config: fairseq's configuration group `checkpoint`; empty for a task that trains nothing.
    """

    def __init__(self, config: Any) -> None:
        self._folder = Path(config.get("save_dir") or "")
        self._suffix = config.get("checkpoint_suffix") or ""
        # where nothing is trained, or the folder is none
        self._off = not config or is_remote(str(self._folder))
        self._begun = False

    def hold(self) -> None:
        """Keep other trainings from writing to the same --save-dir; call it on the process that saves.

        The folder itself is locked, so that nothing of this is left in it.

        Raises:
            DataError: another training writes there.
        """
        folder = self._folder.resolve()
        if self._off or self._suffix or folder in _HELD or not folder.is_dir():
            return
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DataError(
                f"another training writes its checkpoints to {self._folder} at this moment: give another --save-dir"
            ) from None
        except OSError:
            pass  # some network file systems have no such locks
        _HELD[folder] = lock

    def begin(self) -> None:
        """Call before a checkpoint is saved, on the process that does it."""
        if self._off:
            return
        atexit.register(self._end_badly)
        self._begun = True
        for file, aside in self._files():
            try:
                file.replace(aside)
            except FileNotFoundError:  # the first one: an empty file says that there was none
                with contextlib.suppress(OSError):  # of a full disk, which saving meets next
                    aside.touch()

    def saved(self) -> None:
        """Call when fairseq has written the checkpoint and its copies."""
        if self._off:
            return
        atexit.unregister(self._end_badly)
        self._begun = False
        self.restore()

    def goes_on(self) -> None:
        """Call when the training goes on: fairseq does not say so where it has written nothing, since none was due.

        So it is with --no-last-checkpoints --no-epoch-checkpoints, where this one is not the best.
        """
        if self._begun:
            self.saved()

    def restore(self) -> None:
        """Put back what was moved aside and has not been written anew, or not whole: at a start, and at the end."""
        if self._off:
            return
        for file, aside in self._files():
            if not aside.exists():
                continue
            with contextlib.suppress(FileNotFoundError):  # another process of the training was faster
                if not _is_whole(file):
                    if aside.stat().st_size:
                        aside.replace(file)
                        continue
                    file.unlink(missing_ok=True)
                aside.unlink()

    def _end_badly(self) -> None:
        """The process ends while a checkpoint is being saved."""
        for unfinished in self._folder.glob(f"checkpoint*{self._suffix}.pt.tmp"):
            unfinished.unlink(missing_ok=True)
        self.restore()

    def _files(self) -> Iterator[tuple[Path, Path]]:
        for name in COPIES:
            file = self._folder / f"{name}{self._suffix}.pt"
            yield file, aside_of_checkpoint(file)


def _is_whole(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except DataError:
        return False
    return True
