"""Console entry points. `run` turns a DataError into one line and exit status 1.

`--help` and misspelt options are answered at once: a program's module, and what it imports, is light. Libraries that
take long to import (torch, fairseq, numpy, Pillow, matplotlib, tqdm), and modules of ours that import these, are
imported by the functions that use them, once the options are parsed; for annotations, under `TYPE_CHECKING`. What
options name, such as the formats, lies in light modules (`regions/limits.py`, `vision/choices.py`). A program whose
work takes many such functions has it in a module of its own, imported as a whole (`photo_extraction.py`).
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn

from xgpt_fairseq.errors import DataError, in_one_line, said_by
from xgpt_fairseq.programs.versions import without_fairseq

# fairseq turns on the messages of every library, and its speech tasks tell everyone to install tensorboardX.
_CHATTY = ("matplotlib", "PIL", "fairseq.tasks.text_to_speech")

# Errors of writing that name no file.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def run(program: Callable[[], None]) -> None:
    """Call *program*; turn a `DataError` into one line on stderr and exit status 1, Ctrl-C into status 130.

    So become the errors of the system that name a file, those of a full disk, and a fairseq that is missing; `kill`
    (SIGTERM) into status 143, once temporary files are taken away. A reader of the output that ends early, such as
    `head`, is no error to report: status 141, as other programs have.

    Raises:
        SystemExit: with that status.
    """
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
    before = _end_orderly_when_killed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may be no Unicode: they keep their bytes. A file or pipe gets UTF-8, whatever the locale
        # or PYTHONIOENCODING: names from a locale of another encoding are written as UTF-8, too.
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape")
    try:
        program()
        sys.stdout.flush()
    except DataError as error:
        _end(said_by(error))
    except (ImportError, ValueError) as error:  # the latter of PyPI's fairseq
        if (reason := without_fairseq(error)) is not None:
            _end(str(reason))
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        sys.exit(141)
    except OSError as error:
        if error.filename is not None and error.strerror:
            _end(f"{error.filename}: {error.strerror}")
        if error.errno not in _FULL:
            raise
        _drop_output()  # whose error it is: files are named where they are written
        _end(f"the output cannot be written: {error.strerror}")
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end(message: str) -> NoReturn:
    print(f"error: {in_one_line(message)}", file=sys.stderr)
    sys.exit(1)


def _drop_output() -> None:
    """Write what is still to be flushed nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_orderly_when_killed() -> Any:
    """Let SIGTERM end the process like an error; the handler before, None where there is none of ours."""

    def end(*_: object) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, end)
