"""What the texts of a photo say, its .txt, .caption or .json, in folders and in tars."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence

from xgpt_fairseq.captions.base import ReadingLog
from xgpt_fairseq.captions.columns import CAPTION_COLUMNS, chosen_names
from xgpt_fairseq.captions.json_values import caption_text
from xgpt_fairseq.errors import DataError

# Keys of a photo's .json that hold its caption; of other names of captions only if it has none of these.
JSON_KEYS = ("caption", "text")
# Lines of numbers alone, such as boxes of a detector
_NUMBERS = re.compile(r"[\d.eE+-]+(\s+[\d.eE+-]+){3,}\s*")


# The most bytes of a photo's text.
LARGEST_TEXT = 1 << 24


def check_text_size(where: object, size: int) -> None:
    """Raise DataError where a photo's text has more than `LARGEST_TEXT` bytes, before memory is taken for it."""
    if size > LARGEST_TEXT:
        raise DataError(f"{where} has {size:,} bytes; of a photo's text at most {LARGEST_TEXT >> 20} MiB are read")


def agreed_captions(where: str, found: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The captions that all of *found* agree in, with single blanks; blank ones do not count.

    Where they say the same in more and in fewer captions, the fewer count: a caption may have line breaks.

    Args:
        where: the photo, for messages.
        found: (where they stand, captions), at least one.

    Raises:
        DataError: they differ.
    """
    said: dict[str, tuple[str, list[str]]] = {}
    for place, texts in found:
        captions = [" ".join(text.split()) for text in texts]
        whole = " ".join(filter(None, captions))
        if whole not in said or len(captions) < len(said[whole][1]):
            said[whole] = place, captions
    if len(said) > 1:
        said.pop("", None)
    if len(said) > 1:
        (one, (place, _)), (other, (another, _)), *_ = said.items()
        raise DataError(f"{where} has different captions: {one[:60]!r} in {place}, {other[:60]!r} in {another}")
    return next(iter(said.values()))[1]


def lines_of(where: str, content: bytes) -> list[str]:
    """The captions in a text: its lines that are not blank; if all are, one that is.

    Raises:
        DataError: it is not UTF-8, or has nothing but numbers.
    """
    lines = [line for line in re.split(r"\r\n?|\n", decode(where, content)) if line.strip()]
    if lines and all(map(_NUMBERS.fullmatch, lines)):
        raise DataError(f"{where} has numbers alone, {lines[0][:60]!r}: boxes of a detector are no caption")
    return lines or [""]


def count_lines(log: ReadingLog, texts: int) -> None:
    """Count that a photo has the captions of a text of several lines."""
    if texts > 1:
        log.count("texts of several lines, of which each is a caption")


def json_captions(where: str, content: bytes, columns: Mapping[str, str]) -> list[list[str]]:
    """What a photo's .json says in each of the keys that captions have: all its captions.

    Args:
        where: the file, for messages.
        content: of the file.
        columns: what --columns says.

    Raises:
        DataError: it is no object of JSON, or a caption is not text.
    """
    record = _object(where, content)
    usual = JSON_KEYS if any(record.get(key) is not None for key in JSON_KEYS) else CAPTION_COLUMNS
    values = ((key, record.get(key)) for key in (chosen_names(columns, "caption") if "caption" in columns else usual))
    return [
        [caption_text(f"{where}: {key!r}", each) for each in (value if isinstance(value, list) else [value])]
        for key, value in values
        if value is not None
    ]


def other_keys(where: str, content: bytes, columns: Mapping[str, str]) -> str:
    """The end of the message that no photo has a caption, where a .json has other keys. Arguments: `json_captions`."""
    known = columns.get("caption", ", ".join(CAPTION_COLUMNS))
    return f"; {where} has none of {known}, it has: {', '.join(_object(where, content))[:200]} (--columns caption=NAME)"


def _object(where: str, content: bytes) -> dict[str, object]:
    text = decode(where, content)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: an object with {' or '.join(map(repr, JSON_KEYS))} expected, found {text[:60]!r}")
    return record


def decode(where: str, content: bytes) -> str:
    """UTF-8 as text, without a byte order mark. Raises DataError where it is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(
                f"{where} is UTF-16 text, as Windows' PowerShell writes; UTF-8 is read: convert it by "
                "iconv --from UTF-16 --to UTF-8, or save it as UTF-8"
            ) from None
        raise DataError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from None
