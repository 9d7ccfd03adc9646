"""JSON from anywhere: what is none is an error that names its place, however Python's parser fails on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xgpt_fairseq.errors import DataError, foreign_bytes


def read_json(path: Path) -> Any:
    """The JSON value in the file *path* (UTF-8).

    Raises:
        DataError: the file is missing, cannot be read, or is not JSON.
    """
    with foreign_bytes(path):
        content = path.read_bytes()
    return parse_json(content, path)


def parse_json(text: str | bytes, where: object) -> Any:
    """The JSON value that *text* is; bytes are UTF-8.

    Raises:
        DataError: it is none, about *where*. Numbers of thousands of digits, and lists in thousands of lists, are none.
    """
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from None
