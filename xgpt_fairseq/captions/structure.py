"""Tables and records told from lines of text, so that no file name, id or column is ever learned as a sentence."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePath

from xgpt_fairseq.captions.base import CaptionFile
from xgpt_fairseq.io.text_lines import COMPRESSIONS
from xgpt_fairseq.regions.image_ids import is_photo_name

# What a file's name says of it.
_NAMED = {
    ".csv": "a table (by its name)",
    ".tsv": "a table (by its name)",
    ".xls": "a spreadsheet (by its name)",
    ".xlsx": "a spreadsheet (by its name)",
    ".parquet": "a table (by its name)",
    ".json": "JSON (by its name)",
    ".jsonl": "JSON lines (by its name)",
    ".ndjson": "JSON lines (by its name)",
}
# Names of columns, in lower case, with `_` for blanks and hyphens.
_IMAGE_COLUMNS = re.compile(r"((image|img|photo|picture|file|media)s?(_?(id|name|file|path|url|key))?|path|url|key|id)")
_CAPTION_COLUMNS = re.compile(
    r"(raw_)?(captions?|texts?|comments?|descriptions?|sentences?|alt(_text)?|prompts?)(_?\d+)?"
)
# How files begin that are not read, and what to do about them.
_FIRST_BYTES = {
    b"\xff\xfe": 'UTF-16 text (Excel\'s "Unicode text"; save it as UTF-8)',
    b"\xfe\xff": "UTF-16 text (save it as UTF-8)",
    b"PK\x03\x04": "a zip archive, as spreadsheets in .xlsx are (save the sheet as CSV)",
}
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "|"}
_URL = re.compile(r"(https?|ftp)://\S", re.IGNORECASE)
_NUMBERED_ROW = re.compile(r"\d+[,;|]\D")
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]\d-])')
# Lines in which a pattern is no chance.
_FEW = 3


def structure_of(file: CaptionFile) -> str | None:
    """What *file* looks like, if not like lines of text: "a table …", "JSON lines"; None for text."""
    if file.path.is_dir():
        return "a folder"
    if file.path.is_file() and tarfile.is_tarfile(file.path):
        return "a tar"
    return _structure_by_bytes(file.path) or structure_of_lines(file.first_lines) or _structure_by_name(file.path)


def structure_of_lines(lines: Sequence[str]) -> str | None:
    """The same of the first lines of a file that are not blank.

    Prose has tabs here and there, commas everywhere, and photos' names at times; a table has them in all its lines.
    """
    if not lines:
        return None
    if any("\0" in line for line in lines):
        return "binary data"
    if all(_is_json_row(line) for line in lines):
        return "JSON lines" if len(lines) > 1 else "JSON"
    if _begins_json("\n".join(lines)):
        return "JSON"
    if re.match(r"\s*<(\?xml|!doctype|html)\b", lines[0], re.IGNORECASE):
        return "XML or HTML"
    return _table(lines)


def _structure_by_bytes(path: Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as opened:
        head = opened.read(max(map(len, _FIRST_BYTES)))
    return next((structure for begin, structure in _FIRST_BYTES.items() if head.startswith(begin)), None)


def _structure_by_name(path: PurePath) -> str | None:
    name = PurePath(path.stem) if path.suffix in COMPRESSIONS else path
    return _NAMED.get(name.suffix.lower())


def _is_json_row(line: str) -> bool:
    if line.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _begins_json(text: str) -> bool:
    """Whether *text*, the beginning of a file, is JSON, cut somewhere or whole."""
    if not _JSON_START.match(text):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    return True


def _table(lines: Sequence[str]) -> str | None:
    tabs = {line.strip().count("\t") for line in lines}
    if len(lines) > 1 and len(tabs) == 1 and min(tabs) > 0:
        return f"a table of {min(tabs) + 1} columns, separated by tabs"
    for separator, name in _SEPARATORS.items():
        rows = [_cells(line, separator) for line in lines]
        names = [re.sub(r"[ -]+", "_", cell.lower()) for cell in rows[0]]
        if any(map(_IMAGE_COLUMNS.fullmatch, names)) and any(map(_CAPTION_COLUMNS.fullmatch, names)):
            return f"a table with the header {', '.join(rows[0])[:80]}, separated by {name}"
        if len(lines) < 2 or min(map(len, rows)) < 2:
            continue
        body = rows if any(map(_is_image, rows[0])) else rows[1:]  # the first may be a header
        for place in (0, 1, -2, -1):
            if len(body) > 1 and all(_is_image(row[place]) for row in body):
                return f"a table with a column of photos or URLs, separated by {name}"
        if len(lines) >= _FEW and len(set(map(len, rows))) == 1 and _is_quoted(lines, separator):
            return f"a table of {len(rows[0])} columns, separated by {name}"
    if len(lines) >= _FEW and all(map(_NUMBERED_ROW.match, lines)):
        return "a table with a column of numbers"
    if all(_is_image(line.split()[0].split("#")[0]) for line in lines):
        return "lines that begin with the names of photos or with URLs"
    if len(lines) > 1 and all(_is_image(line.split()[-1]) for line in lines):
        return "lines that end with the names of photos or with URLs"
    return None


def _is_quoted(lines: Sequence[str], separator: str) -> bool:
    """Whether some cells are in quotation marks, and these stand around whole cells alone."""
    try:
        for _ in csv.reader(lines, delimiter=separator, strict=True):
            pass
    except csv.Error:
        return False
    return any(line.startswith('"') or f'{separator}"' in line for line in lines)


def _cells(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a cell of more than 128 KiB
        cells = line.split(separator)
    return [cell.strip() for cell in cells] or [""]


def _is_image(text: str) -> bool:
    return is_photo_name(text.split("#")[0]) or _URL.match(text) is not None
