"""Tables in Arrow's formats: Parquet files, and the Arrow files that Hugging Face's `datasets` saves."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xgpt_fairseq.errors import DataError, check_unchanged, foreign_bytes
from xgpt_fairseq.io.text_lines import LARGEST_UNPACKED, MOST_TIMES

_PARQUET = b"PAR1"
_SMALLEST = 12  # bytes of a Parquet file: this at both ends, and the length of what describes its columns
# Of a row group, pages are read one after the other: one that is gigabytes large is not read into memory as a whole.
# Parquet is not mapped, since a map of a file that is cut ends the process.
_BUFFER = 1 << 20
_ARROW_FILE = b"ARROW1"  # other Arrow files are streams


def pyarrow_for(path: Path) -> Any:
    """pyarrow, to read *path*. Raises DataError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute  # noqa: F401  (an attribute of pyarrow from here on)
        import pyarrow.ipc  # noqa: F401  (an attribute of pyarrow from here on)
        import pyarrow.parquet  # noqa: F401  (an attribute of pyarrow from here on)
    except ImportError as error:
        raise DataError(
            f'{path} is in Arrow\'s format: reading it needs pyarrow, pip install "xgpt-fairseq[datasets]"'
        ) from error
    return pyarrow


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    return path.is_file() and path.stat().st_size >= _SMALLEST and _first_bytes(path).startswith(_PARQUET)


class ArrowTable:
    """A Parquet or Arrow file, whose rows are read in batches; never all of them are in memory.

    Args:
        path: the file.

    Attributes:
        schema: its columns.
        size: of the file in bytes, when it was opened.

    Raises:
        DataError: pyarrow is missing, or the file cannot be read.
        ChangedError: in all methods that read, too, the file has been cut since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pyarrow = pyarrow = pyarrow_for(path)
        self._files = contextlib.ExitStack()
        self._parquet: Any = None
        with foreign_bytes(path, "cannot be read"):
            self._file = self._files.enter_context(path.open("rb"))
            self.size = os.fstat(self._file.fileno()).st_size
        with self._errors():
            if is_parquet(path):
                opened = pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER)
                self._parquet = self._files.enter_context(opened)
                if not _describes_its_columns(self._parquet.metadata):
                    raise DataError(f"{path} cannot be read: what it says of its columns contradicts itself")
                self.schema = self._parquet.schema_arrow
            else:
                self.schema = self._arrow().schema
            self.schema.names  # noqa: B018  (fails where they are not UTF-8)

    def __enter__(self) -> ArrowTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()

    def batches(self, columns: Sequence[str], size: int, first: int = 0) -> Iterator[tuple[int, Any]]:
        """(number of its first row, record batch) of the rows in their order; the first batch has row *first* in it.

        Raises DataError where the file is damaged, or a column is far larger than its bytes in the file.

        Args:
            columns: which columns batches have, at least; `photo.path` is a field of a column of structs.
            size: the most rows of a batch.
            first: a row.
        """
        with self._errors():
            row = 0
            for whole in self._arrow_batches() if self._parquet is None else ():
                if row + len(whole) > first:
                    self._checked(whole)
                    for start in range(max(first - row, 0) // size * size, len(whole), size):
                        yield row + start, whole.slice(start, size)
                row += len(whole)
            for group in range(0 if self._parquet is None else self._parquet.metadata.num_row_groups):
                end = row + self._parquet.metadata.row_group(group).num_rows
                if end <= first:
                    row = end
                    continue
                self._check_unpacked(group, columns)
                for batch in self._parquet.iter_batches(size, [group], list(columns), use_threads=False):
                    if row + len(batch) > first:
                        yield row, self._checked(batch)
                    row += len(batch)
            self.check_whole()

    def check_whole(self) -> None:
        """Raise ChangedError where the file has been cut since it was opened.

        Arrow's files are mapped, and reading behind the end of a file ends the process. One that is cut in the moment
        between this and the reading is not noticed.
        """
        check_unchanged(self.path, self.size, os.fstat(self._file.fileno()).st_size)

    def has_field(self, column: str, field: str) -> bool:
        """Whether a column is of structs, and has a field of that name."""
        kind = self._kind(column)
        return bool(self._pyarrow.types.is_struct(kind)) and kind.get_field_index(field) >= 0

    def is_binary(self, column: str) -> bool:
        """Whether a column is of bytes."""
        types, kind = self._pyarrow.types, self._kind(column)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def array(self, batch: Any, column: str, field: str | None = None) -> Any:
        """The column of a batch, or a field of its structs, as an array of Arrow's. See `value` for what is in it."""
        self.check_whole()
        array = batch.column(batch.schema.get_field_index(column))
        return array if field is None else self._pyarrow.compute.struct_field(array, field)

    def value(self, array: Any, row: int) -> Any:
        """An element of an array, as Python's value."""
        self.check_whole()
        return array[row].as_py()

    def values(self, batch: Any, column: str, field: str | None = None) -> list[Any]:
        """Like `array`, as Python's values. Raises DataError where they are none, such as text that is not UTF-8."""
        with self._errors():  # a check of the size for each batch
            values: list[Any] = self.array(batch, column, field).to_pylist()
            return values

    def _check_unpacked(self, group: int, columns: Sequence[str]) -> None:
        """Raise DataError where a column of a row group is far larger than its bytes in the file: it fills memory."""
        described = self._parquet.metadata.row_group(group)
        for number in range(described.num_columns):
            column = described.column(number)
            name = column.path_in_schema
            if any(name == asked or name.startswith(f"{asked}.") for asked in columns) and (
                column.total_uncompressed_size > max(LARGEST_UNPACKED, MOST_TIMES * column.total_compressed_size)
            ):
                raise DataError(
                    f"{self.path}: column {name} has {column.total_uncompressed_size:,} bytes, unpacked from "
                    f"{column.total_compressed_size:,}; at most {MOST_TIMES} times as many are read"
                )

    @staticmethod
    def _checked(batch: Any) -> Any:
        """*batch*, whose values all lie in it: Arrow's files are mapped, and nothing else checks what they say."""
        batch.validate(full=True)
        return batch

    def _kind(self, column: str) -> Any:
        return self.schema.field(self.schema.names.index(column)).type  # not by the name, which two may share

    def _arrow_batches(self) -> Iterator[Any]:
        """The batches of an Arrow file, as large as they are in it; they are mapped."""
        reader = self._arrow()
        numbers = range(getattr(reader, "num_record_batches", 0))
        batches = map(reader.get_batch, numbers) if hasattr(reader, "num_record_batches") else iter(reader)
        while True:
            self.check_whole()
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _arrow(self) -> Any:
        opened = self._files.enter_context(self._pyarrow.memory_map(str(self.path)))
        is_file = _first_bytes(self.path).startswith(_ARROW_FILE)
        return self._pyarrow.ipc.open_file(opened) if is_file else self._pyarrow.ipc.open_stream(opened)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Whatever fails is the file's fault: that it was cut, where it was."""
        with foreign_bytes(self.path, "cannot be read"):
            try:
                yield
            except Exception:
                self.check_whole()
                raise


def _describes_its_columns(metadata: Any) -> bool:
    """Whether pyarrow can say what is in the columns of a Parquet file.

    Works around: where a column's sizes contradict each other, pyarrow ends the process, since an exception of C++ does
    not reach Python. So a forked process looks first, which does nothing else. tests/io/test_arrow_tables.py tells when
    that is no longer needed.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for group in range(metadata.num_row_groups):
                described = metadata.row_group(group)
                for column in range(described.num_columns):
                    described.column(column)
            status = 0
        finally:
            os._exit(status)
    # what fails as Python's exception will fail again, with its reason
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _first_bytes(path: Path) -> bytes:
    with open(path, "rb") as opened:
        return opened.read(len(_ARROW_FILE))
