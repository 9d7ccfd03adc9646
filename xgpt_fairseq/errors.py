"""The one exception for bad input: a sentence for the user that names the file, the record, the value and the rule."""

from __future__ import annotations


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
