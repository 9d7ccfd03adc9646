"""parquet and hf-datasets: captions in Parquet files, and in folders that Hugging Face's `datasets` saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import COLUMNS, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import (
    IMAGE_COLUMNS,
    Column,
    Columns,
    Folder,
    captions_in_cell,
    choose_columns,
    column_key,
    grouped_images,
)
from xgpt_fairseq.captions.folder import files_alone, split_of_file
from xgpt_fairseq.captions.json_values import load_json
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrow_tables import ArrowTable, is_parquet
from xgpt_fairseq.regions.image_ids import canonical_image_id, name_parts

_SPLITS = "dataset_dict.json"  # a folder of a data set for each split
_STATE = "state.json"  # a data set: which files it has, in their order
_ROWS = 1024  # that are turned into Python's values at a time
_NO_COLUMN = ""  # the caption, where only photos are read
_IMAGES = {column_key(name) for name in IMAGE_COLUMNS}


def recognise_parquet(file: CaptionFile) -> bool:
    """Whether a file begins as Parquet does; or a folder has such files, and no photos or tars."""
    return is_parquet(file.path) or (bool(files_alone(file.path, ".parquet")) and not files_alone(file.path, ".tar"))


def recognise_folder(file: CaptionFile) -> bool:
    """Whether a folder has what `save_to_disk` writes."""
    return (file.path / _SPLITS).is_file() or (file.path / _STATE).is_file()


def read_parquet(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A row is an image with a caption or a list of them. Photos inside the file are named as `photo_names` says."""
    if file.path.is_file():
        return grouped_images(lambda: _images(file.path, options), options.log)
    paths = files_alone(file.path, ".parquet")
    if not paths:
        raise DataError(
            f"{file.path} does not exist" if not file.path.exists() else f"{file.path} has no Parquet files"
        )

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for path in paths:
            yield from _images(path, options, split_of_file(file.path, path), among_others=True)

    return grouped_images(images, options.log)


def read_folder(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A data set, or one for each split (`DatasetDict`); the splits' names are those of their folders."""
    path = file.path
    if not recognise_folder(file):
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} has no {_SPLITS} and no {_STATE}")

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for split, folder in _folders(path):
            for part in _parts(folder):
                yield from _images(part, options, split, among_others=bool(split))

    return grouped_images(images, options.log)


def photo_column(table: ArrowTable) -> str | None:
    """The column with the photos themselves, their bytes or structs of `bytes` and `path`; None if there is none.

    Raises:
        DataError: there are several, and not one of them alone is named as a column of images.
    """
    found = [name for name in table.schema.names if table.is_binary(name) or table.has_field(name, "bytes")]
    named = [name for name in found if column_key(name) in _IMAGES] or found
    if len(named) > 1:
        raise DataError(f"{table.path}: the columns {' and '.join(named)} may all be the photos")
    return named[0] if named else None


def photo_names(table: ArrowTable) -> Iterator[str]:
    """The names of the photos inside a table, row by row; their captions have the same.

    A photo has the name of its file, as its path or a column of images says it; else its id in such a column; else the
    name of the table's file with the number of the row, from 0: `train-00000-of-00002-17`. The number does not stand
    alone, so that it is never taken for the name of another photo.

    Raises:
        DataError: columns of a row name different photos.
    """
    names = [name for name in table.schema.names if column_key(name) in _IMAGES]
    columns = _columns(table, names, {}, captions=False)
    for where, record in _rows(table, columns):
        image = columns.read(where, record)
        yield (image.file_name or image.image_id).removeprefix(f"{_within(table.path, '')}/")


def place_in_table(path: Path, name: str) -> Path:
    """Where a photo called *name* lies, as if the table were a folder. The Arrow files of a data set are one folder."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return (path.parent if path.suffix == ".arrow" else path).joinpath(*parts)


def _within(path: Path, name: str) -> str:
    """The name of a photo with the folder that its table lies in, since other tables may have the same name."""
    return place_in_table(path.absolute(), name).relative_to(path.absolute().parent.parent).as_posix()


def _images(
    path: Path, options: CaptionOptions, split: str = "", *, among_others: bool = False
) -> Iterator[tuple[str, CaptionedImage]]:
    """(where it is, image) of each row of a table.

    Args:
        path: the table.
        options: how captions are read.
        split: of its images, where rows do not say it.
        among_others: whether the source has tables in which other photos may have the same names.
    """
    folder = Folder(path)
    with ArrowTable(path) as table:
        columns = _columns(table, table.schema.names, options.columns)
        has_photos = _photos(table) is not None
        for where, record in _rows(table, columns):
            try:
                image = folder.within(_read(columns, where, record, split))
            except DataError as error:
                options.log.bad_record(error)
                continue
            if has_photos and image.file_name is not None and len(name_parts(image.file_name)) == 1:
                whole, is_id = _within(path, image.file_name), canonical_image_id(image.file_name) != image.image_id
                image_id = canonical_image_id(whole) if among_others and not is_id else image.image_id
                image = replace(image, image_id=image_id, file_name=whole)
            yield where, image


def _columns(table: ArrowTable, names: Sequence[str], chosen: Mapping[str, str], *, captions: bool = True) -> Columns:
    """Those of *names* that count; of a photo that no other column names, that of the photo."""
    photos = _photos(table)
    keys = [name for name in names if not table.is_binary(name) or name == chosen.get("image")]
    named = list(keys)
    if photos is not None and "image" not in chosen and not any(column_key(name) in _IMAGES for name in keys):
        named, keys = [*named, "image"], [*keys, photos]
    if not captions:
        named, keys = [*named, "caption"], [*keys, _NO_COLUMN]
    columns = choose_columns(str(table.path), named, chosen, keys)
    of_names = [column.key for column in _used(columns)]
    for key in of_names:
        if of_names.count(key) > 1:
            raise DataError(f"{table.path} has several columns that are named {key!r}, of which one can be read")
    return columns


def _used(columns: Columns) -> list[Column]:
    return [*columns.images, *columns.captions, *([columns.split] if columns.split else [])]


def _read(columns: Columns, where: str, record: dict[str, Any], split: str) -> CaptionedImage:
    for column in columns.captions:
        cell = record[column.key]
        if cell is None or isinstance(cell, str):
            record[column.key] = captions_in_cell(where, cell or "")
    return columns.read(where, record, split)


def _photos(table: ArrowTable) -> str | None:
    """`photo_column`, or None where it is not sure: then photos are named by other columns."""
    try:
        return photo_column(table)
    except DataError:
        return None


def _rows(table: ArrowTable, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where a row is, and its values. Of photos the path alone is read; one without any name has that of its row."""
    photos = _photos(table)
    keys = [column.key for column in _used(columns)]
    fields = {key: "path" if table.has_field(key, "path") else None for key in keys if key != _NO_COLUMN}
    unread = {key for key in fields if table.is_binary(key) or (fields[key] is None and table.has_field(key, "bytes"))}
    read = {key: field for key, field in fields.items() if key not in unread}
    names = [key if field is None else f"{key}.{field}" for key, field in read.items()]
    empty = {_NO_COLUMN: "", **dict.fromkeys(unread)}
    for first, batch in table.batches(names, _ROWS):
        values = [table.values(batch, key, field) for key, field in read.items()]
        for row in range(len(batch)):
            record = {**empty, **{key: column[row] for key, column in zip(read, values, strict=True)}}
            if photos is not None and all(record[column.key] in (None, "") for column in columns.images):
                record[columns.images[0].key] = _within(table.path, f"{table.path.stem}-{first + row}")
            yield f"{table.path}: row {first + row}", record


def is_cache(path: Path) -> bool:
    """Whether an Arrow file lies in a data set that does not name it: what `datasets.map` keeps there for itself."""
    if path.suffix.lower() != ".arrow" or not (path.parent / _STATE).is_file():
        return False
    try:
        return path.name not in {part.name for part in _parts(path.parent)}
    except DataError:  # the captions of such a data set are refused; its photos may be read
        return False


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
    if not isinstance(files, list) or not all(
        isinstance(of, dict) and isinstance(of.get("filename"), str) for of in files
    ):
        raise DataError(f"{folder / _STATE} has no list '_data_files'")
    return [folder / of["filename"] for of in files]


PARQUET = CaptionFormat(
    "parquet",
    "a Parquet file with columns as tables have them",
    recognise_parquet,
    read_parquet,
    two_names=True,
    columns=COLUMNS,
)
HF_DATASETS = CaptionFormat(
    "hf-datasets",
    "a folder of Hugging Face's save_to_disk",
    recognise_folder,
    read_folder,
    two_names=True,
    columns=COLUMNS,
)
