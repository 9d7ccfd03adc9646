"""JSON, and what values in records must be: an image's id, a caption, the name of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import HEAD_BYTES, whole_text
from xgpt_fairseq.regions.image_ids import canonical_image_id, is_photo_name, path_of_url

_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]\d-])')


def load_json(path: Path) -> Any:
    """The JSON value in *path*, or a `DataError` that names the file and the place."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return json.loads(whole_text(path))
    except (ValueError, RecursionError) as error:  # ValueError also of numbers of thousands of digits
        raise DataError(f"{path} is not JSON: {error}") from error


def parsed(text: str) -> Any:
    """The JSON value that *text* is; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def begins_json(text: str) -> bool:
    """Whether *text*, the beginning of a file, is JSON, cut somewhere or whole."""
    if not _JSON_START.match(text):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        in_word = len("false") if len(text) >= HEAD_BYTES // 2 else 0  # a line that was cut
        return error.pos >= len(text.rstrip()) - in_word or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        return True
    return True


def record_image_id(where: str, record: Any, key: str) -> str:
    """The image id under *key* in a record of JSON.

    Raises:
        DataError: the record is not an object or lacks the key, or its value is not an id.
    """
    if not isinstance(record, dict) or key not in record:
        raise DataError(f"{where} lacks {key!r}")
    return image_id_of(where, key, record[key])


def image_listed_twice(path: Path, image_id: str) -> DataError:
    """The error for an image that is listed twice."""
    return DataError(f"{path}: image {image_id} is listed twice; list each image once, with all its captions")


_MEANS_ID = re.compile(r"id\s*$", re.IGNORECASE)


def image_id_of(where: str, key: str, value: object) -> str:
    """The image id in a record, a string or a number. Ids that became floats, 42.0, as pandas makes them, are 42.

    Raises:
        DataError: *value* is something else.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, str) and value.endswith(".0") and value.strip()[:-2].isdecimal() and _MEANS_ID.search(key):
        value = value.strip()[:-2]
    image_id = canonical_image_id(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not image_id or any(character in image_id for character in "\r\n") or not is_unicode(image_id):
        raise DataError(f"{where}: {key!r} must be an image's id or file name, found {_shown(value)}")
    return image_id


def caption_text(where: str, value: object) -> str:
    """The caption in a record, as it is. Blank ones are left out later, for all formats alike.

    Raises:
        DataError: *value* is not text.
    """
    if not isinstance(value, str):
        raise DataError(f"{where}: a caption must be text, found {_shown(value)}")
    return value


def most(are: Iterable[bool]) -> bool:
    """Whether more than half are: of the first records of a file, some may be bad ones (--skip-bad)."""
    values = list(are)
    return 2 * sum(values) > len(values)


def file_name_of(value: object) -> str | None:
    """*value* where it is the name of a photo's file, with an extension that photos have."""
    name = path_of_url(value.strip()) if isinstance(value, str) else ""
    return name if is_photo_name(name) else None


def file_named(value: object) -> str | None:
    """The name of a file in *value*, under a key that means one: any text or number, whatever extension it has."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return (path_of_url(value.strip()) or None) if isinstance(value, str) else None


def is_unicode(text: str) -> bool:
    """Whether *text* is valid Unicode; JSON can contain lone surrogates."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: object) -> str:
    return repr(value)[:60]
