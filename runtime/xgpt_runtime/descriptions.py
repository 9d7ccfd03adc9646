"""The JSON files that describe a folder of `xgpt-export --onnx`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgpt_runtime.errors import DataError

NEWEST = 1


def read_description(file: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Read the JSON object in *file*, which has these *fields* of these types.

    Raises:
        DataError: there is no such file, it is damaged, or of a newer version than this package reads.
    """
    if not file.is_file():
        raise DataError(f"{file.parent} is not a captioner of xgpt-export --onnx: it has no {file.name}")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        version = value["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged: {type(error).__name__} {error}") from None
    if not isinstance(version, int) or version > NEWEST:
        raise DataError(f"{file} has version {version}, this xgpt-runtime reads versions up to {NEWEST}: upgrade it")
    for name, kind in fields.items():
        if not isinstance(value.get(name), kind):
            raise DataError(f"{file} is damaged: {name} is {value.get(name)!r:.50}")
    return dict(value)
