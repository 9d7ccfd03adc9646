"""table: captions in the rows of a table, CSV and the like."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xgpt_fairseq.captions.base import COLUMNS, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.columns import (
    Column,
    Columns,
    Folder,
    captions_in_cell,
    choose_columns,
    column_key,
    grouped_images,
    has_columns,
)
from xgpt_fairseq.captions.json_values import file_name_of
from xgpt_fairseq.captions.rows import quoted_rows
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines

SEPARATORS = (",", "\t", ";", "|")

# Tables with these may have quotes that are text.
MAY_BE_UNQUOTED = ("\t", "|")

_EXCEL_SEPARATOR = re.compile(r'"?sep=([,\t;|])"?\s*', re.IGNORECASE)
_ID = re.compile(r"(?=.*\d)(?=.*[^\W\d])[^\s#:]+")  # of letters and digits
_FEW = 3  # lines in which a pattern is no chance
_NUMBER_AND_TEXT = re.compile(r"(\d+)\s{2,}(\S.*)", re.DOTALL)
MENDED = "rows whose last separator is missing, mended"


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        separator: between its cells.
        width: how many columns it has.
        names: of its columns, by the header; None: it has none.
        image: without a header, which column has the photos' names.
        captions: without a header, which columns have captions.
    """

    separator: str
    width: int
    names: list[str] | None
    image: int = 0
    captions: tuple[int, ...] = ()


def recognise(file: CaptionFile) -> bool:
    """Whether the header has columns for images and captions; or, without one, what is in the columns tells these."""
    return find_layout(file.first_lines, file.columns) is not None


def find_layout(lines: Sequence[str], columns: Mapping[str, str]) -> Layout | None:
    """How a table is written, by its first lines; None if they are no table of captions.

    Args:
        lines: the first ones that are not blank.
        columns: what --columns says.
    """
    separators: Sequence[str] = SEPARATORS
    if lines and (said := _EXCEL_SEPARATOR.fullmatch(lines[0])):
        separators, lines = said[1], lines[1:]
    if not lines or lines[0].lstrip().startswith(("{", "[")):
        return None
    for separator in separators:
        header = next(iter(_head(lines[:1], separator)), [])
        if len(header) > 1 and has_columns(header, columns):
            return Layout(separator, len(header), header)
    if columns:
        return None
    layouts = (_layout_without_header(_head(lines, separator), separator) for separator in separators)
    return next(filter(None, layouts), None)


def _layout_without_header(rows: list[list[str]], separator: str) -> Layout | None:
    """The layout of rows of which one column has the names of photos; None if they are no such rows.

    A second column is the caption. Further ones must show that they are captions, by blanks between words; numbers are
    passed over. With commas there is one caption, since captions have commas. With a tab, names may have no extension.
    """
    width = len(rows[0]) if rows else 0
    if width < 2 or any(len(row) != width for row in rows):
        return None
    columns = list(zip(*rows, strict=True))
    photos = [place for place, cells in enumerate(columns) if all(map(_is_photo, cells))]
    if width == 2:
        if not photos and separator == "\t" and _are_ids(columns[0]) and _are_sentences(columns[1]):
            photos = [0]
        return Layout(separator, width, None, photos[0], (1 - photos[0],)) if len(photos) == 1 else None
    numbers = [place for place, cells in enumerate(columns) if all(cell.strip().isdecimal() for cell in cells)]
    captions = tuple(place for place in range(width) if place not in (*photos, *numbers))
    if len(photos) != 1 or not captions or not all(_are_sentences(columns[place]) for place in captions):
        return None
    return Layout(separator, width, None, photos[0], captions) if len(captions) == 1 or separator != "," else None


def what_is_missing(file: CaptionFile) -> str | None:
    """Why a file that is written like a table is none of captions; None if it is not written so."""
    layout = _said_layout(file)
    if layout.names is None or layout.width < 2:
        return None
    if any(map(_is_photo, layout.names)):
        return (
            f"its first line is no header ({', '.join(layout.names)[:60]!r}), and without one it is not clear which "
            f"columns are captions: write one, such as image{layout.separator}caption"
        )
    try:
        choose_columns("its header", layout.names, file.columns, range(layout.width))
    except DataError as error:
        return str(error)
    return None


def _is_photo(cell: str) -> bool:
    return file_name_of(cell) is not None and "://" not in cell


def _are_ids(cells: Sequence[str]) -> bool:
    """Whether cells are names like `ROCO_00001`: each image's rows follow each other, and no label comes again."""
    runs = [cell for place, cell in enumerate(cells) if place == 0 or cell != cells[place - 1]]
    return len(cells) >= _FEW and len(runs) == len(set(runs)) and all(map(_ID.fullmatch, cells))


def _are_sentences(cells: Sequence[str]) -> bool:
    """Whether cells are text of several words, or of scripts that may have no blanks between them."""
    texts = [cell.strip() for cell in cells if cell.strip()]
    return bool(texts) and all(" " in text or not text.isascii() for text in texts)


def _without_number(cell: str) -> str:
    """The name in a cell like `1.jpg#0`: the number is the caption's."""
    name, _, number = cell.strip().rpartition("#")
    return name if number.isdecimal() and _is_photo(name) else cell


def _lines(file: CaptionFile) -> Iterator[tuple[int, str]]:
    """The lines of a table with their numbers, but for `sep=;` in front, by which Excel is told the separator."""
    for number, line in numbered_lines(file.path):
        if number > 1 or not _EXCEL_SEPARATOR.fullmatch(line):
            yield number, line


def _head(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The rows of the first lines, up to one that is cut off; where quotes are not CSV's, as if they were text."""
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader([f"{line}\n" for line in lines], delimiter=separator, strict=True))
    except csv.Error:
        raw = [line.split(separator) for line in lines]
        if separator in MAY_BE_UNQUOTED and len({len(row) for row in raw}) == 1:
            rows = raw
    return [_stripped(row, separator) for row in rows]


def _stripped(row: list[str], separator: str) -> list[str]:
    """The cells of a row; beside `|` they have blanks around."""
    return [cell.strip() for cell in row] if separator == "|" else row


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A row is an image with a caption, or with a list of them in one cell; rows of an image may stand apart."""
    layout = find_layout(file.first_lines, options.columns) or _said_layout(file)
    columns = _columns(file, layout, options.columns)
    folder, has_quotes = Folder(file.path), _has_quotes(file, layout)

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for where, row in _rows(file, layout, columns, has_quotes, options.log):
            values: list[Any] = [*row]
            try:
                if layout.names is None and not (_is_photo(row[layout.image]) or _ID.fullmatch(row[layout.image])):
                    raise DataError(
                        f"{where}: {row[layout.image][:60]!r} is not the name of a photo, and column "
                        f"{layout.image + 1} must be"
                    )
                for column in columns.images:
                    if "#" in row[column.key]:
                        values[column.key] = _without_number(row[column.key])
                for column in columns.captions:
                    values[column.key] = captions_in_cell(where, row[column.key])
                image = folder.within(columns.read(where, values))
            except DataError as error:
                options.log.bad_record(error)
                continue
            yield where, image

    return grouped_images(images, options.log)


def _said_layout(file: CaptionFile) -> Layout:
    """The layout of a file that is said to be a table: with the separator of which its first line has most."""
    line = next((line for _, line in _lines(file) if line.strip()), "")
    separator = max(SEPARATORS, key=line.count)
    names = next(iter(_head([line], separator)), [])
    return Layout(separator, len(names), names)


def _columns(file: CaptionFile, layout: Layout, chosen: Mapping[str, str]) -> Columns:
    if layout.names is None:
        captions = tuple(Column("caption", place) for place in layout.captions)
        return Columns((Column("image", layout.image),), captions, None)
    return choose_columns(f"{file.path}: the header", layout.names, chosen, range(layout.width))


def _rows(
    file: CaptionFile, layout: Layout, columns: Columns, has_quotes: bool, log: ReadingLog
) -> Iterator[tuple[str, list[str]]]:
    """(where it is, cells) of each row but the header; blank rows are passed over, cells may have line breaks.

    Args:
        file: the table.
        layout: how it is written.
        columns: which of its columns count.
        has_quotes: whether quotes are CSV's, not text.
        log: where rows are counted that are mended, or left out.
    """
    lines, separator = _lines(file), layout.separator
    rows: Iterator[tuple[int, list[str] | DataError]] = (
        quoted_rows(file.path, lines, separator, functools.partial(_is_row, layout, columns))
        if has_quotes
        else ((number, line.split(separator)) for number, line in lines)
    )
    is_header = layout.names is not None
    for number, cells in rows:
        if isinstance(cells, DataError):
            log.bad_record(cells)
            continue
        row = _stripped(cells, separator)
        if not any(map(str.strip, row)):
            continue
        if is_header:
            is_header = False
            continue
        where = f"{file.path}: line {number}"
        if len(row) != layout.width:
            mended = _mended(row, layout)
            if mended is None:
                log.bad_record(_wrong_width(where, row, layout))
                continue
            log.count(MENDED)
            row = mended
        yield where, row


def _is_row(layout: Layout, columns: Columns, line: str) -> bool:
    """Whether a line is by itself a row of the table, with the name of a photo.

    Where photos stand behind captions, the last line of a caption with line breaks may look like one: `its end",1.jpg`.
    """
    try:
        row = _stripped(next(csv.reader([line], delimiter=layout.separator), []), layout.separator)
    except csv.Error:
        return False
    if len(row) != layout.width:
        return False
    return _is_photo(row[0]) or (line.count('"') % 2 == 0 and any(_is_photo(row[of.key]) for of in columns.images))


def _wrong_width(where: str, row: list[str], layout: Layout) -> DataError:
    return DataError(
        f"{where} has {len(row)} columns, separated by {layout.separator!r}; it must have {layout.width}: "
        f"{layout.separator.join(row)[:60]!r}"
    )


def _has_quotes(file: CaptionFile, layout: Layout) -> bool:
    """Whether quotes are CSV's, not text, as they are in many tables with tabs or `|`.

    They are text where a line is not so quoted; or where cells in quotes would have line breaks, though each line is a
    whole row without them.
    """
    separator = layout.separator
    if separator not in MAY_BE_UNQUOTED:
        return True
    whole = True
    for _, line in _lines(file):
        whole &= not line.strip() or line.count(separator) == layout.width - 1
    reader = csv.reader((f"{line}\n" for _, line in _lines(file)), delimiter=separator, strict=True)
    try:
        rows = sum(1 for _ in reader)
    except csv.Error:
        return False
    return not whole or rows == reader.line_num


def _mended(row: list[str], layout: Layout) -> list[str] | None:
    """A row of `|` that lacks its last separator, between a number and a caption: Flickr30k's published table has one.

    None: it is another one.
    """
    if layout.separator != "|" or layout.names is None or len(row) != layout.width - 1:
        return None
    if "number" not in column_key(layout.names[-2]) or not has_columns(["image", layout.names[-1]], {}):
        return None
    match = _NUMBER_AND_TEXT.fullmatch(row[-1])
    return [*row[:-1], match[1], match[2]] if match else None


TABLE = CaptionFormat(
    "table",
    "a table with a row per caption, as CSV, TSV or with `|`: Kaggle's Flickr8k and Flickr30k, imagefolder's metadata",
    recognise,
    read,
    two_names=True,
    columns=COLUMNS,
)
