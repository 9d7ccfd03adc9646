"""Tables and records told from lines of text, so that no file name, id or column is ever learned as a sentence."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from xgpt_fairseq.captions.base import CaptionFile
from xgpt_fairseq.captions.json_values import begins_json, most, parsed
from xgpt_fairseq.io.tar_members import is_tar
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
    ".yaml": "YAML (by its name)",
    ".yml": "YAML (by its name)",
    ".xml": "XML (by its name)",
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
_PYTHON_START = re.compile(r"\s*[\[(]?\s*\{\s*'[^'\n]*'\s*:")
_KEY_AND_VALUE = re.compile(r"\s*(?:- *)?[\"']?([A-Za-z][\w -]{0,30}?)[\"']?\s*[:=]\s*(\S.*)")
_OPENING = "[({<*•- \t"  # what may stand before a name
# Lines in which a pattern is no chance.
_FEW = 3


def structure_of(file: CaptionFile) -> str | None:
    """What *file* looks like, if not like lines of text: "a table …", "JSON lines"; None for text."""
    if file.path.is_dir():
        return "a folder"
    if file.path.is_file() and is_tar(file.path):
        return "a tar"
    return _structure_by_bytes(file.path) or structure_of_lines(file.first_lines) or _structure_by_name(file.path)


def structure_of_lines(lines: Sequence[str]) -> str | None:
    """The same of the first lines of a file that are not blank.

    Prose has tabs here and there, commas everywhere, and photos' names at times; a table has them in most of its lines,
    but for a title, a comment or a broken one.
    """
    if not lines:
        return None
    if any("\0" in line for line in lines):
        return "binary data"
    if most(_is_json_row(line) for line in lines):
        return "JSON lines" if len(lines) > 1 else "JSON"
    if begins_json("\n".join(lines)):
        return "JSON"
    if _PYTHON_START.match(lines[0]):
        return "what Python prints of a dictionary"
    if re.match(r"\s*<(\?xml|!doctype|html)\b", lines[0], re.IGNORECASE) or _is_xml(lines):
        return "XML or HTML"
    return _table(lines) or _named_photos(lines)


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
    return line.lstrip()[:1] in ("{", "[") and parsed(line) is not None


def _is_xml(lines: Sequence[str]) -> bool:
    """Whether most lines are tags, and name photos; marks of sentences, such as `<s>`, are part of some texts."""
    tagged = [line for line in lines if line.lstrip().startswith("<") and line.rstrip().endswith(">")]
    return 2 * len(tagged) > len(lines) and any(
        is_photo_name(part) for line in tagged for part in re.split("[<>\"'=]", line)
    )


def _table(lines: Sequence[str]) -> str | None:
    tabs = Counter(line.strip().count("\t") for line in lines)
    if len(lines) > 1 and 2 * tabs[0] < len(lines):
        width = max(filter(None, tabs), key=tabs.__getitem__) + 1
        return f"a table of {width} columns, separated by tabs"
    for separator, name in _SEPARATORS.items():
        rows = [_cells(line, separator) for line in lines]
        names = [re.sub(r"[ -]+", "_", cell.lower()) for cell in rows[0]]
        if any(map(_IMAGE_COLUMNS.fullmatch, names)) and any(map(_CAPTION_COLUMNS.fullmatch, names)):
            return f"a table with the header {', '.join(rows[0])[:80]}, separated by {name}"
        if len(lines) < 2:
            continue
        for place in (0, 1, -2, -1):
            column = [_is_image(row[place]) for row in rows if len(row) > 1 and len(row) > place]
            if sum(column) > 1 and 2 * sum(column) > len(lines):
                return f"a table with a column of photos or URLs, separated by {name}"
        same = len(rows[0]) > 1 and len(set(map(len, rows))) == 1
        if len(lines) >= _FEW and same and _is_quoted(lines, separator):
            return f"a table of {len(rows[0])} columns, separated by {name}"
    numbered = [_NUMBERED_ROW.match(line) is not None for line in lines]
    if sum(numbered) >= _FEW and all(numbered[1:]):  # the first may be a header
        return "a table with a column of numbers"
    return None


def _named_photos(lines: Sequence[str]) -> str | None:
    """What lines look like that are no table but name photos, beside captions or in lines of their own."""
    firsts, lasts = [_first_word(line) for line in lines], [line.split()[-1] for line in lines]
    what = "with the names of photos or with URLs"
    if most(map(_is_photo, firsts)) or all(map(_is_image, firsts)):
        return f"lines that begin {what}"
    if len(lines) > 1 and (most(map(_is_photo, lasts)) or all(map(_is_image, lasts))):
        return f"lines that end {what}"
    alone = sum(len(line.split()) == 1 and _is_photo(_first_word(line)) for line in lines)
    if alone > 1 and alone * 8 >= len(lines):
        return "captions below the names of their photos"
    pairs = [match for line in lines if (match := _KEY_AND_VALUE.fullmatch(line)) is not None]
    keys = {re.sub(r"[ -]+", "_", match[1].lower()): match[2].strip(" \"',") for match in reversed(pairs)}
    named = any(_IMAGE_COLUMNS.fullmatch(key) and _is_image(value) for key, value in keys.items())
    if 2 * len(pairs) > len(lines) and named and any(map(_CAPTION_COLUMNS.fullmatch, keys)):
        return f"records of {', '.join(keys)[:80]}"
    return None


def _first_word(line: str) -> str:
    """The first word of a line, or what is in its first quotation marks, without punctuation."""
    text = line.strip().lstrip(_OPENING)
    if text[:1] in ("'", '"'):
        return text[1:].split(text[0], 1)[0]
    return (text.split() or [""])[0].rstrip(":,;|>)]}\"'")


def _is_photo(text: str) -> bool:
    return is_photo_name(text.split("#")[0])


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
    return _is_photo(text) or _URL.match(text) is not None
