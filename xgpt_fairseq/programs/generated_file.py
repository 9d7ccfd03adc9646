"""The file of captions that fairseq-generate writes: it gets its name when it is whole.

fairseq opens it under its final name, and writes it line by line: a process that is killed would leave a part of it
there, which looks like the whole. So it is renamed when the task is set up, which fairseq does before it writes a
caption, and renamed back when the program has ended well.
"""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final

from xgpt_fairseq.errors import DataError

GENERATE: Final = "fairseq_cli.generate"


@dataclass
class _Written:
    name: Path  # that the whole file gets
    aside: Path  # where it is meanwhile: of this process alone, so that two at once do not mix their lines


_written: _Written | None = None


def write_aside(root: Any) -> None:
    """Rename the file that fairseq-generate has opened; *root* is its configuration.

    Raises:
        DataError: it is gone, since another process has renamed it.
    """
    global _written  # a process has one such file
    folder = root["common_eval"].results_path
    if folder is None:
        return  # to the standard output
    name = Path(folder, f"generate-{root['dataset'].gen_subset}.txt")
    aside = name.with_name(f"{name.name}.{os.getpid()}.incomplete")
    try:
        name.rename(aside)
    except FileNotFoundError:
        raise DataError(f"{name} is gone: another fairseq-generate writes it at the same time") from None
    _written = _Written(name, aside)
    atexit.register(_finish)


def keep_aside(error: BaseException) -> str:
    """*error* ends the program: what it has written does not get the name of the whole file; what to say of it."""
    global _written
    kept, _written = _written or _opened(error), None
    if kept is None or not kept.aside.is_file():
        return ""
    place = kept.name.with_name(f"{kept.name.name}.incomplete")
    try:
        kept.aside.replace(place)
    except OSError:  # a full disk may have no room for another name
        kept.aside.unlink(missing_ok=True)
        return ""
    return f" (what it has written is {place})"


def _opened(error: BaseException) -> _Written | None:
    """The file that fairseq has opened, but `write_aside` has not renamed yet."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    places = [frame.f_locals.get("output_path") for frame in frames if frame.f_globals.get("__name__") == GENERATE]
    return next((_Written(Path(place), Path(place)) for place in places if place), None)


def _finish() -> None:
    """At the end of the process: the file is whole, unless an exception ends it that `keep_aside` was not told of."""
    if _written is not None and getattr(sys, "last_value", None) is None:
        _written.aside.replace(_written.name)
