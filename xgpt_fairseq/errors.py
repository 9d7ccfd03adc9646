"""The one exception for bad input: a sentence for the user that names the file, the record, the value and the rule."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

# A library's message may hold a whole damaged file.
LONGEST_REASON = 200


class DataError(ValueError):
    """Bad input from the user: a file, a record, an option. The message says what is wrong, where, and what to do.

    Command-line programs, fairseq's among them, print the message without a traceback and exit with status 1.
    """


class ChangedError(DataError):
    """A file has another size than when its reading began, or has vanished: what was read is not all of it."""


class NoTextError(DataError):
    """Inputs have no text at all; of captions, perhaps none that count."""


# the last lines of a traceback that another process has sent as text
SENT_DATA_ERROR = re.compile(rf"^{DataError.__module__}\.(?:Data|Changed)Error: (.+)$", re.MULTILINE)


_BREAKS_A_LINE = re.compile(r"[\x00-\x08\n-\x1f\x7f\x85\u2028\u2029]")


def in_one_line(message: str) -> str:
    r"""*message* with its line breaks and other control characters written as `\n` and so on: names may have any."""
    return _BREAKS_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode(), message)


def said_by(error: DataError) -> str:
    """The message of *error*; of one that a worker of torch's DataLoader has sent with its traceback, the last line."""
    sent = SENT_DATA_ERROR.findall(str(error))
    return str(sent[-1]) if sent else str(error)


def check_unchanged(path: object, before: int, now: int) -> None:
    """Raise ChangedError where the file *path* has another size, in bytes, than when its reading began."""
    if now != before:
        raise ChangedError(f"{path} was changed while it was read: it had {before:,} bytes, and has {now:,}")


def check_at_least(name: str, value: float | None, least: float, why: str = "") -> None:
    """Raise DataError if the option *name*, such as `--batch-size`, is below *least*; *why* goes into the message.

    None is an option that was not given.
    """
    if value is not None and value < least:
        raise DataError(f"{name} must be at least {least}{why and f' ({why})'}, got {value}")


def check_between(name: str, value: float, least: float, most: float) -> None:
    """Raise DataError if the option *name* is below *least*, above *most*, or no number (NaN)."""
    if not least <= value <= most:
        raise DataError(f"{name} must be {least} to {most}, got {value}")


@contextlib.contextmanager
def foreign_bytes(where: object, problem: str = "is not readable") -> Iterator[None]:
    """For calls of a library on bytes that may be anything: whatever it raises becomes a DataError about *where*.

    Libraries fail on damaged bytes in every way: numpy's reader of headers with an error of Python's tokenizer, h5py
    with RuntimeError, subword-nmt by ending the process. Only such a call belongs into the block, and nothing of ours,
    whose errors are bugs.

    Args:
        where: the file, and the record.
        problem: what is said of it, in front of the library's reason.

    Raises:
        DataError: in place of every exception but Ctrl-C.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where} is missing") from None
    except MemoryError as error:
        raise DataError(f"{where} {problem}: it needs more memory than there is") from error
    except (Exception, SystemExit) as error:
        raise DataError(f"{where} {problem}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """What *error* says, in one line: of the system's errors the words alone, since the file is named beside them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
