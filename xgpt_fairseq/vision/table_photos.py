"""Photos inside tables, Parquet files and the Arrow files of Hugging Face's `datasets`, read at their places."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.archives.handle_cache import open_cached
from xgpt_fairseq.captions.arrow import photo_column, photo_names
from xgpt_fairseq.errors import ChangedError, DataError, check_unchanged
from xgpt_fairseq.io.arrow_tables import ArrowTable

SUFFIXES = (".parquet", ".arrow")
_ROWS = 16  # that are in memory at a time


@dataclass(frozen=True, slots=True)
class TableCell:
    """The place of a photo in a table.

    Attributes:
        table: the file.
        column: its name.
        row: its number.
        size: of the file in bytes, when the photo was found; None: not known, in a list of photos that is older.
    """

    table: Path
    column: str
    row: int
    size: int | None = None


def photos_in_table(path: Path) -> Iterator[tuple[str, TableCell]]:
    """The names of the photos in a table (see `photo_names`) and their places.

    A photo that is in several rows, one for each of its captions, comes once.

    Raises:
        DataError: the table cannot be read, or has no photos, or columns of a row name different photos.
    """
    with ArrowTable(path) as table:
        column = photo_column(table)
        if column is None:
            raise DataError(_no_photos(table))
        names = list(photo_names(table))
        times = Counter(names)
        seen: dict[str, set[bytes]] = {name: set() for name, count in times.items() if count > 1}
        digests = (hashlib.sha256(content or b"").digest() for _, content in _contents(table, column)) if seen else None
        for row, name in enumerate(names):
            digest = next(digests) if digests is not None else b""
            if name in seen:
                if digest in seen[name]:
                    continue
                seen[name].add(digest)
            yield name, TableCell(path, column, row, table.size)


def _no_photos(table: ArrowTable) -> str:
    """What to say of a table without photos: where one has the addresses of some, how to fetch them."""
    for name in table.schema.names:
        for _, batch in table.batches([name], 1):
            value = table.values(batch.slice(0, 1), name)[0] if len(batch) else None
            if isinstance(value, str) and value.startswith(("http://", "https://")):
                return (
                    f"{table.path}: a table of addresses (column {name}), not of photos; fetch them first: img2dataset "
                    f"--url_list {table.path} --input_format parquet --url_col {name} --output_format webdataset "
                    "--output_folder FOLDER (and --caption_col COLUMN)"
                )
            break
    return f"{table.path}: a table without a column of photos, of their bytes"


def read_cell(cell: TableCell) -> bytes:
    """The photo in *cell*.

    Raises:
        ChangedError: the table is another than when the photo was found, or has vanished.
        DataError: it has no photo, or cannot be read.
    """
    with _lock:
        try:
            size = cell.table.stat().st_size
        except FileNotFoundError:
            raise ChangedError(f"{cell.table} was there when photos were looked for, and is gone") from None
        check_unchanged(cell.table, size if cell.size is None else cell.size, size)
        content = open_cached(cell.table, _Reader).read(cell.column, cell.row)
    if content is None:
        raise DataError(f"{cell.table}: row {cell.row} has no photo in it, at most the name of one")
    return content


_lock = threading.Lock()


class _Reader:
    """Reads rows of a table, fastest in their order: then each batch is decoded once."""

    def __init__(self, path: Path) -> None:
        self._table = ArrowTable(path)
        self._column = ""
        self._rows: Iterator[tuple[int, bytes | None]] = iter(())
        self._next = 0

    def read(self, column: str, row: int) -> bytes | None:
        if column != self._column or row < self._next or row >= self._next + _FAR:
            self._rows, self._column = _contents(self._table, column, row), column
        for number, content in self._rows:
            self._next = number + 1
            if number == row:
                return content
        raise DataError(f"{self._table.path} has no row {row}")

    def close(self) -> None:
        self._table.close()


# A jump over so many rows is worth a look at where they lie.
_FAR = 1000


def _contents(table: ArrowTable, column: str, first: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """(number of the row, bytes of its photo) from row *first* on."""
    field = None if table.is_binary(column) else "bytes"
    for start, batch in table.batches([column if field is None else f"{column}.bytes"], _ROWS, first):
        array: Any = table.array(batch, column, field)
        for row in range(max(first - start, 0), len(batch)):
            yield start + row, table.value(array, row)
