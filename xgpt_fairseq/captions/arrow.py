"""parquet and hf-datasets: captions in Parquet files, and in folders that Hugging Face's `datasets` saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import (
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    load_json,
    split_of_folder,
)
from xgpt_fairseq.captions.columns import Column, Columns, Folder, captions_in_cell, choose_columns, grouped_images
from xgpt_fairseq.errors import DataError

_MAGIC = b"PAR1"
_SMALLEST = 12  # bytes: this at both ends, and the length of what describes the columns
_SPLITS = "dataset_dict.json"  # a folder of a data set for each split
_STATE = "state.json"  # a data set: which files it has, in their order
_ROWS = 1024  # that are turned into Python's values at a time


def _pyarrow(path: Path) -> Any:
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


def recognise_parquet(file: CaptionFile) -> bool:
    """Whether a file begins as Parquet does."""
    if not file.path.is_file():
        return False
    with open(file.path, "rb") as opened:
        head = opened.read(_SMALLEST)
    return len(head) == _SMALLEST and head.startswith(_MAGIC)


def recognise_folder(file: CaptionFile) -> bool:
    """Whether a folder has what `save_to_disk` writes."""
    return (file.path / _SPLITS).is_file() or (file.path / _STATE).is_file()


def read_parquet(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A row is an image with a caption or a list of them. Of photos inside the file the path counts."""
    if not file.path.is_file():
        raise DataError(f"{file.path} does not exist" if not file.path.exists() else f"{file.path} is not a file")
    pyarrow = _pyarrow(file.path)

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        with _errors(file.path, pyarrow), pyarrow.parquet.ParquetFile(file.path) as opened:
            schema = opened.schema_arrow
            columns = _columns(file.path, schema, options)
            names = [
                f"{name}.path" if _has_path(schema.field(name).type, pyarrow) else name for name, _ in _used(columns)
            ]
            yield from _images(file.path, opened.iter_batches(_ROWS, columns=names), columns, options)

    return grouped_images(images, options.log)


def read_folder(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A data set, or one for each split (`DatasetDict`); the splits' names are those of their folders."""
    path = file.path
    if not recognise_folder(file):
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} has no {_SPLITS} and no {_STATE}")
    pyarrow = _pyarrow(path)

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for split, folder in _folders(path):
            for part in _parts(folder):
                with _errors(part, pyarrow), pyarrow.memory_map(str(part)) as opened:
                    reader = pyarrow.ipc.open_stream(opened)
                    columns = _columns(part, reader.schema, options)
                    yield from _images(part, reader, columns, options, split)

    return grouped_images(images, options.log)


@contextlib.contextmanager
def _errors(path: Path, pyarrow: Any) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _folders(path: Path) -> list[tuple[str, Path]]:
    """(split or an empty string, folder) of each data set in a folder."""
    if not (path / _SPLITS).is_file():
        return [("", path)]
    value = load_json(path / _SPLITS)
    names = value.get("splits") if isinstance(value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path / _SPLITS} has no list 'splits'")
    return [(split_of_folder(name) or name, path / name) for name in names]


def _parts(folder: Path) -> list[Path]:
    """The Arrow files of a data set."""
    value = load_json(folder / _STATE)
    files = value.get("_data_files") if isinstance(value, dict) else None
    if not isinstance(files, list) or not all(isinstance(of, dict) and "filename" in of for of in files):
        raise DataError(f"{folder / _STATE} has no list '_data_files'")
    return [folder / of["filename"] for of in files]


def _columns(path: Path, schema: Any, options: CaptionOptions) -> Columns:
    columns = choose_columns(str(path), schema.names, options.columns)
    names = [column.name for column in _used(columns)]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path} has several columns that are named {name!r}, of which one can be read")
    return columns


def _used(columns: Columns) -> list[Column]:
    return [*columns.images, *columns.captions, *([columns.split] if columns.split else [])]


def _has_path(kind: Any, pyarrow: Any) -> bool:
    """Whether a column is of photos, {"bytes", "path"}: of these the path alone is read."""
    return pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0


def _images(
    path: Path, batches: Iterable[Any], columns: Columns, options: CaptionOptions, split: str = ""
) -> Iterator[tuple[str, CaptionedImage]]:
    """(where it is, image) of each row of record batches."""
    pyarrow = _pyarrow(path)
    folder = Folder(path)
    names = [column.name for column in _used(columns)]
    number = 0
    for batch in batches:
        values = []
        for name in names:
            column = batch.column(batch.schema.get_field_index(name))
            if _has_path(column.type, pyarrow):
                column = pyarrow.compute.struct_field(column, "path")
            values.append(column.to_pylist())
        for row in zip(*values, strict=True):
            record = dict(zip(names, row, strict=True))
            where = f"{path}: row {number}"
            number += 1
            try:
                for column in columns.captions:
                    cell = record[column.key]
                    if cell is None or isinstance(cell, str):
                        record[column.key] = captions_in_cell(where, cell or "")
                image = folder.within(columns.read(where, record, split))
            except DataError as error:
                options.log.bad_record(error)
            else:
                yield where, image


PARQUET = CaptionFormat(
    "parquet", "a Parquet file with columns as tables have them", recognise_parquet, read_parquet, two_names=True
)
HF_DATASETS = CaptionFormat(
    "hf-datasets", "a folder of Hugging Face's save_to_disk", recognise_folder, read_folder, two_names=True
)
