"""table: captions in the rows of a table, CSV and the like."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xgpt_fairseq.captions.base import (
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    ReadingLog,
    file_name_of,
)
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
from xgpt_fairseq.captions.rows import quoted_rows
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines

SEPARATORS = (",", "\t", ";", "|")

# Tables with these may have quotes that are text.
MAY_BE_UNQUOTED = ("\t", "|")

_WITHOUT_HEADER = (",", "\t", "|")
_NUMBER_AND_TEXT = re.compile(r"(\d+)\s{2,}(\S.*)", re.DOTALL)
MENDED = "rows whose last separator is missing, mended"


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        separator: between its cells.
        names: of its columns, by the header; None: it has none.
        image: without a header, which of the two columns has the photos' names.
    """

    separator: str
    names: list[str] | None
    image: int = 0

    @property
    def width(self) -> int:
        return 2 if self.names is None else len(self.names)


def recognise(file: CaptionFile) -> bool:
    """Whether the header has a column for images and one for captions, or a column of two has photos' names alone."""
    return find_layout(file.first_lines, file.columns) is not None


def find_layout(lines: Sequence[str], columns: Mapping[str, str]) -> Layout | None:
    """How a table is written, by its first lines; None if they are no table of captions.

    Args:
        lines: the first ones that are not blank.
        columns: what --columns says.
    """
    if not lines or lines[0].lstrip().startswith(("{", "[")):
        return None
    for separator in SEPARATORS:
        header = next(iter(_head(lines[:1], separator)), [])
        if len(header) > 1 and has_columns(header, columns):
            return Layout(separator, header)
    if columns:
        return None
    for separator in _WITHOUT_HEADER:
        rows = _head(lines, separator)
        if not rows or any(len(row) != 2 for row in rows):
            continue
        photos = [all(_is_photo(row[column]) for row in rows) for column in (0, 1)]
        if sum(photos) == 1:
            return Layout(separator, None, photos.index(True))
    return None


def _is_photo(cell: str) -> bool:
    return file_name_of(cell) is not None and "://" not in cell


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
    layout = find_layout(file.first_lines, options.columns) or _said_layout(file, options.columns)
    columns = _columns(file, layout, options.columns)
    folder, has_quotes = Folder(file.path), _has_quotes(file, layout)

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for where, row in _rows(file, layout, columns, has_quotes, options.log):
            values: list[Any] = [*row]
            try:
                if layout.names is None and not _is_photo(row[layout.image]):
                    raise DataError(
                        f"{where}: {row[layout.image][:60]!r} is not the name of a photo, and column "
                        f"{layout.image + 1} must be"
                    )
                for column in columns.captions:
                    values[column.key] = captions_in_cell(where, row[column.key])
                image = folder.within(columns.read(where, values))
            except DataError as error:
                options.log.bad_record(error)
                continue
            yield where, image

    return grouped_images(images, options.log)


def _said_layout(file: CaptionFile, columns: Mapping[str, str]) -> Layout:
    """The layout of a file that is said to be a table: with the separator of which its first line has most."""
    line = next((line for _, line in numbered_lines(file.path) if line.strip()), "")
    separator = max(SEPARATORS, key=line.count)
    return Layout(separator, next(iter(_head([line], separator)), []))


def _columns(file: CaptionFile, layout: Layout, chosen: Mapping[str, str]) -> Columns:
    if layout.names is None:
        return Columns((Column("image", layout.image),), (Column("caption", 1 - layout.image),), None)
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
    lines, separator = numbered_lines(file.path), layout.separator
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
    for _, line in numbered_lines(file.path):
        whole &= not line.strip() or line.count(separator) == layout.width - 1
    reader = csv.reader((f"{line}\n" for _, line in numbered_lines(file.path)), delimiter=separator, strict=True)
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
)
