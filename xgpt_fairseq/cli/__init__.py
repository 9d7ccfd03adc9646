"""Console entry points. `run` turns a DataError into one line and exit status 1."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from xgpt_fairseq.errors import DataError


def run(program: Callable[[], None]) -> None:
    """Call *program*; turn a `DataError` into one line on stderr and exit status 1, Ctrl-C into status 130."""
    for library in ("matplotlib", "PIL"):  # importing fairseq turns on the debug messages of every library
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        program()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
