"""Console entry points. `run` turns a DataError into one line and exit status 1.

`--help` and misspelt options are answered at once: a program's module, and what it imports, is light. Libraries that
take long to import (torch, fairseq, numpy, Pillow, matplotlib, tqdm), and modules of ours that import these, are
imported by the functions that use them, once the options are parsed; for annotations, under `TYPE_CHECKING`. What
options name, such as the formats, lies in light modules (`regions/limits.py`, `vision/choices.py`). A program whose
work takes many such functions has it in a module of its own, imported as a whole (`photo_extraction.py`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from xgpt_fairseq.errors import DataError

# fairseq turns on the messages of every library, and its speech tasks tell everyone to install tensorboardX.
_CHATTY = ("matplotlib", "PIL", "fairseq.tasks.text_to_speech")


def run(program: Callable[[], None]) -> None:
    """Call *program*; turn a `DataError` into one line on stderr and exit status 1, Ctrl-C into status 130.

    A reader of the output that ends early, such as `head`, is no error to report: status 141, as other programs have.

    Raises:
        SystemExit: with that status.
    """
    for library in _CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        program()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(141)
