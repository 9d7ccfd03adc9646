"""The one exception for bad input: a sentence for the user that names the file, the record, the value and the rule."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType


class DataError(ValueError):
    """Bad input from the user: a file, a record, an option. The message says what is wrong, where, and what to do.

    Command-line programs, fairseq's among them, print the message without a traceback and exit with status 1.
    """


def check_at_least(name: str, value: float | None, least: float, why: str = "") -> None:
    """Raise DataError if the option *name*, such as `--batch-size`, is below *least*; *why* goes into the message.

    None is an option that was not given.
    """
    if value is not None and value < least:
        raise DataError(f"{name} must be at least {least}{why and f' ({why})'}, got {value}")


def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """An exception hook that prints a `DataError` as one line, also if another exception was raised from it.

    fairseq's trainer, for example, wraps our error in a generic 'check the architecture' message.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DataError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {cause}", file=sys.stderr)


def report_in_fairseq_programs() -> None:
    """Install `report` if this process is one of fairseq's programs and has no other hook."""
    if Path(sys.argv[0]).name.startswith("fairseq-") and sys.excepthook is sys.__excepthook__:
        sys.excepthook = report
