"""Columns of tables, and keys of records: which has the image, which the caption, which the split; and their values."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from xgpt_fairseq.captions.base import Caption, CaptionedImage, ReadingLog
from xgpt_fairseq.captions.grouping import grouped
from xgpt_fairseq.captions.json_values import caption_text, file_name_of, file_named, image_id_of
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id, name_parts

# By order: of several names that are no photo's file the first counts for messages.
IMAGE_COLUMNS = ("file_name", "image", "image_path", "filepath", "filename", "image_name", "name", "image_id")
FILE_COLUMNS = ("file_name", "image_path", "filepath", "filename")  # those that mean a file, whatever it is called
FOLDER_COLUMNS = ("folder", "directory", "dir")  # of the photo, if its name has none
CAPTION_COLUMNS = ("text", "caption", "captions", "raw", "comment", "caption_str")
SPLIT_COLUMNS = ("split", "set_name")

_ID_COLUMN = "imageid"  # beside the name of a file, this one alone is the image's id
_PATH_COLUMN = "filepath"  # beside the name of a file, the path of its folder, as in Karpathy's layout

_NUMBER = re.compile(r"[.#/(\[]?\d+[)\]]?$")

# What pandas takes for a missing value
_MISSING = {"nan", "NaN", "None", "null", "NULL", "N/A", "n/a", "NA", "<NA>", "#N/A", "#NA"}

# A string as Python writes it; and lists, tuples and sets of them, dictionaries, which are refused, numpy's arrays
_STRING = re.compile(r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_LIST = re.compile(rf"[\[({{](?:[\s,]*{_STRING.pattern})*[\s,]*[\])}}]", re.DOTALL)
_BEGINS_AS_LIST = re.compile(
    rf"\s*(array\(\s*)?(\[\s*\{{?\s*u?['\"]|\[\s*\]|\(\s*{_STRING.pattern}\s*,|\{{\s*{_STRING.pattern}\s*[,:}}])",
    re.DOTALL,
)
_ARRAY = re.compile(r"\s*array\((.*?)(,\s*dtype=[^\[\]]*)?\)\s*", re.DOTALL)


class Column(NamedTuple):
    """A column: its name, and by what a record is asked for its value."""

    name: str
    key: Any


@dataclass(frozen=True)
class Columns:
    """The columns of a table, or of a record.

    Attributes:
        images: those that may name the image.
        captions: those of the captions, in the order of the table; each holds one, or several.
        split: that of the split; None if there is none.
        folder: that of the photo's folder; None if there is none.
    """

    images: tuple[Column, ...]
    captions: tuple[Column, ...]
    split: Column | None
    folder: Column | None = None

    def read(self, where: str, record: Any, split: str = "") -> CaptionedImage:
        """The image of a record, whose values are `record[column.key]`.

        Args:
            where: file and line, for messages.
            record: the values.
            split: its split, where the record does not say it.

        Raises:
            DataError: a value that is no image's name, no caption or no split, or columns that name different images.
        """
        if self.split is not None:
            split = split_name(f"{where}: {self.split.name!r}", record[self.split.key]) or split
        image_id, file_name = self._names(where, record)
        texts = [text for value in self._caption_values(record) for text in caption_texts(where, value)]
        return CaptionedImage(image_id, split, [Caption(n, text) for n, text in enumerate(texts)], file_name)

    def _caption_values(self, record: Any) -> list[Any]:
        """The values of the columns of captions. Of several columns, some may be empty."""
        values = [record[column.key] for column in self.captions]
        return values if len(values) == 1 else [value for value in values if value is not None]

    def _names(self, where: str, record: Any) -> tuple[str, str | None]:
        """The image's id and the name of its file."""
        if len(self.images) == 1 and self.folder is None:
            value = record[self.images[0].key]
            names = _names_of(self.images[0].name, value) if isinstance(value, str) else None
            if names is not None:
                return names
        files: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []  # of files, too, but without the extension of a photo
        ids: list[tuple[str, Any]] = []
        for name, key in self.images:
            value = photo_path(record[key])
            file = file_name_of(value)
            if file is not None:
                files.append((name, file))
            elif _means_file(name) and (file := file_named(value)) is not None:
                others.append((name, file))
            elif value not in (None, ""):
                ids.append((name, value))
        if not files and len(others) == 1:
            files = others
        if not files:
            return self._id(where, record, [*others, *ids]), None
        name, file = max(files, key=lambda of: len(name_parts(of[1])))  # with its folders, where a column has them
        for other, other_file in files:
            if not _is_same_photo(file, other_file):
                raise DataError(
                    f"{where}: {name!r} is {file} and {other!r} is {other_file}: say which names the photo by "
                    f"--columns image=…"
                )
        folders = [folder for column, folder in others if column_key(column) == _PATH_COLUMN and others is not files]
        if self.folder is not None:
            folders.append(str(record[self.folder.key] or "").strip())
        if len(name_parts(file)) == 1 and any(folders):
            file = f"{next(filter(None, folders))}/{file}"
        file_id = image_id_of(where, name, file)
        return next((image_id_of(where, *of) for of in ids if column_key(of[0]) == _ID_COLUMN), file_id), file

    def _id(self, where: str, record: Any, ids: list[tuple[str, Any]]) -> str:
        if not ids:
            return image_id_of(where, self.images[0].name, record[self.images[0].key])
        first, *others = [(name, image_id_of(where, name, value)) for name, value in ids]
        for other in others:
            if other[1] != first[1]:
                raise DataError(
                    f"{where}: {first[0]!r} is {first[1]} and {other[0]!r} is {other[1]}: say which is the image by "
                    f"--columns image=…"
                )
        return first[1]


@functools.lru_cache(maxsize=1024)
def _names_of(column: str, name: str) -> tuple[str, str | None] | None:
    """The id and the file of an image that is named so; None if it is no name. Rows of an image mostly stand together,
    so that few names are looked at twice.
    """
    try:
        return image_id_of("", column, name), file_name_of(name) or (file_named(name) if _means_file(column) else None)
    except DataError:
        return None


def column_key(name: object) -> str:
    """A column's name as it is compared: without case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_\-\ufeff]+", "", str(name)).lower()


_FILE_KEYS = {column_key(name) for name in FILE_COLUMNS}
_IMAGE_KEYS, _CAPTION_KEYS, _SPLIT_KEYS = (
    {column_key(name): place for place, name in reversed(list(enumerate(names)))}
    for names in (IMAGE_COLUMNS, CAPTION_COLUMNS, SPLIT_COLUMNS)
)


def caption_key(name: object) -> str:
    """A column's name as `column_key` has it, but a number at its end: `caption_2` and `caption.2` are `caption`."""
    return _NUMBER.sub("", column_key(name))


def chosen_names(chosen: Mapping[str, str], what: str) -> list[str]:
    """The names of the columns that --columns says for *what*."""
    return [name.strip() for name in chosen[what].split(",")]


def is_image_column(name: str) -> bool:
    """Whether a column of this name names images."""
    return column_key(name) in _IMAGE_KEYS


def has_columns(names: Sequence[object], chosen: Mapping[str, str]) -> bool:
    """Whether there are columns for an image and for captions.

    Args:
        names: of all columns.
        chosen: what --columns says.
    """
    keys = {column_key(name) for name in names}
    return all(
        all(column_key(name) in keys for name in chosen_names(chosen, what))
        if what in chosen
        else any(key_of(name) in known for name in names)
        for what, known, key_of in (("image", _IMAGE_KEYS, column_key), ("caption", _CAPTION_KEYS, caption_key))
    )


def choose_columns(
    where: str, names: Sequence[str], chosen: Mapping[str, str], keys: Sequence[Hashable] | None = None
) -> Columns:
    """Which columns count.

    Args:
        where: file and line, for messages.
        names: of all columns.
        chosen: what --columns says (see `CaptionOptions.columns`).
        keys: by what records are asked for each column's value; None: by its name.

    Raises:
        DataError: none for captions, or several that differ by more than a number; none for the image; or one of
            --columns is not there.
    """
    columns = [Column(name, key) for name, key in zip(names, names if keys is None else keys, strict=True)]
    there = ", ".join(str(name).strip() for name in names) or "nothing"

    def said(what: str, name: str) -> list[Column]:
        same = [column for column in columns if str(column.name).strip() == name]
        same = same or [column for column in columns if column_key(column.name) == column_key(name)]
        if not same:
            raise DataError(f"{where} has no column {name!r} (--columns {what}=…); it has: {there}"[:400])
        if len(same) > 1 and what != "caption":
            raise DataError(f"{where}: {len(same)} columns are named {name!r} (--columns {what}=…)")
        return same

    def named(what: str, known: Mapping[str, int], key_of: Callable[[object], str]) -> list[Column]:
        if what in chosen:
            return [column for name in chosen_names(chosen, what) for column in said(what, name)]
        found = [column for column in columns if key_of(column.name) in known]
        return sorted(found, key=lambda column: known[key_of(column.name)])

    images, captions = named("image", _IMAGE_KEYS, column_key), named("caption", _CAPTION_KEYS, caption_key)
    if "caption" not in chosen:  # a number counts where no other name fits without one
        whole = {column_key(column.name) for column in captions} & _CAPTION_KEYS.keys()
        captions = [column for column in captions if not whole or caption_key(column.name) in whole]
    for what, found, usual in (("image", images, IMAGE_COLUMNS), ("caption", captions, CAPTION_COLUMNS)):
        if not found:
            raise DataError(
                f"{where}: no column is named as one of {what}s ({', '.join(usual)}); there are: {there[:150]}; say "
                f"which it is by --columns {what}=NAME"
            )
    if "caption" not in chosen and len({caption_key(column.name) for column in captions}) > 1:
        several = " and ".join(repr(column.name.strip()) for column in captions)
        raise DataError(
            f"{where}: {several} may all be captions: say which are by --columns caption=NAME, or caption=NAME,caption="
            "NAME for several"
        )
    splits = named("split", _SPLIT_KEYS, column_key)
    folders = [column for column in columns if column_key(column.name) in FOLDER_COLUMNS]
    return Columns(tuple(images), tuple(captions), splits[0] if splits else None, folders[0] if folders else None)


@functools.cache
def _means_file(name: str) -> bool:
    return column_key(name) in _FILE_KEYS


def photo_path(value: object) -> object:
    """*value*, or of a photo as Hugging Face's `datasets` has it, {"bytes", "path"}, the path."""
    return value["path"] if isinstance(value, dict) and "path" in value else value


def split_name(what: str, value: object) -> str:
    """The split that a record says, by fairseq's name; empty for an empty value.

    Args:
        what: file, record and key, for messages.
        value: that of the record.

    Raises:
        DataError: *value* is no name.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{what} must be a name, found {repr(value)[:60]}")
    name = value.strip()
    return split_of_folder(name) or name


def caption_texts(where: str, value: object) -> list[str]:
    """The captions in a value: a text, or a list of texts.

    Raises:
        DataError: anything else.
    """
    return [caption_text(where, text) for text in value] if isinstance(value, list) else [caption_text(where, value)]


def captions_in_cell(where: str, cell: str) -> str | list[Any]:
    """A table's cell: a text, nothing for a value that is missing, or the list that is written in it.

    Lists are those of JSON, of Python (tuples and sets, too) and of numpy, which writes no commas. A cell that goes on
    behind a list is text.

    Raises:
        DataError: a list that was cut off, or holds something else than texts.
    """
    if cell in _MISSING or cell.strip() in _MISSING:
        return ""
    if not _BEGINS_AS_LIST.match(cell):
        return cell
    array = _ARRAY.fullmatch(cell)
    text = (array[1] if array else cell).strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        if isinstance(value, list):
            return value
    closing = {"[": "]", "(": ")", "{": "}"}.get(text[0], ")")
    try:
        if _LIST.fullmatch(text) and text.endswith(closing):
            return [ast.literal_eval(found) for found in _STRING.findall(text)]
    except (SyntaxError, ValueError):
        pass
    if text.endswith(closing) or closing not in _STRING.sub("", text):
        raise DataError(f"{where}: the caption begins as a list does, and is none that can be read: {cell[:60]!r}")
    return cell


def _is_same_photo(one: str, other: str) -> bool:
    """Whether two names, of one photo with more or fewer folders, may be of one file."""
    if one == other:
        return True
    parts, others = name_parts(one), name_parts(other)
    common = min(len(parts), len(others))
    return parts[-common:] == others[-common:] and _extension(one) == _extension(other)


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


class Folder:
    """The folder that the photos of a file of captions lie in, where that is known.

    Hugging Face's imagefolder has a `metadata.csv`, `metadata.jsonl` or `metadata.parquet` in the folder of each split,
    and names photos from there: `1.jpg` of `train` and of `test` are two photos.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.resolve().parent.name if path.name.split(".")[0].lower() == "metadata" else ""

    def within(self, image: CaptionedImage) -> CaptionedImage:
        """*image*, with the folder in front of its photo's name."""
        name = image.file_name
        if not self._name or name is None or name.startswith("/") or "://" in name:
            return image
        path = f"{self._name}/{name}"
        is_only_name = canonical_image_id(name) == image.image_id
        image_id = canonical_image_id(path) if is_only_name else image.image_id
        return CaptionedImage(image_id, image.split, image.captions, path)


def grouped_images(
    read: Callable[[], Iterator[tuple[str, CaptionedImage]]], log: ReadingLog
) -> Iterator[CaptionedImage]:
    """The images of records (see `grouped`), whose ids and file names must be of one photo each.

    Raises:
        DataError: one photo has several ids, or one id several photos.
    """
    ids: dict[str, str] = {}
    for image in grouped(read, log):
        if image.file_name is not None and canonical_image_id(image.file_name) != image.image_id:
            known = ids.setdefault(canonical_image_id(image.file_name), image.image_id)
            if known != image.image_id:
                raise DataError(
                    f"photo {image.file_name} has the ids {known} and {image.image_id}: choose the column that names "
                    "photos by --columns image=NAME"
                )
        yield image
