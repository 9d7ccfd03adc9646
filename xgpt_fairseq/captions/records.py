"""jsonl and json-records: objects with an image and captions, as JSON lines, as a list, or in lists of an object."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from xgpt_fairseq.captions import coco
from xgpt_fairseq.captions.base import COLUMNS, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import (
    Column,
    Columns,
    Folder,
    choose_columns,
    grouped_images,
    has_columns,
    photo_path,
)
from xgpt_fairseq.captions.json_values import file_name_of, most
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import numbered_lines

# So many records are looked at to find out what they are.
HEAD = 20


class Record(NamedTuple):
    """A record of JSON.

    Attributes:
        where: file and place, for messages.
        value: what is there; a `DataError` in place of a line that is no JSON.
        split: what the name of its list says, by fairseq's name; or an empty string.
    """

    where: str
    value: Any
    split: str = ""


def json_lines(file: CaptionFile) -> Iterator[Record]:
    """The records of JSON lines, one a line."""
    for number, line in numbered_lines(file.path):
        if not line.strip():
            continue
        where = f"{file.path}: line {number}"
        try:
            yield Record(where, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Record(where, DataError(f"{where} is not JSON: {error}"))


def json_list(file: CaptionFile, are_records: Callable[[list[Any]], bool]) -> Iterator[Record]:
    """The records of a JSON list, of the lists of a JSON object (`record_lists`), or under its keys (`is_keyed`).

    Raises:
        DataError: there is no such list.
    """
    if isinstance(file.json, list):
        yield from (Record(f"{file.path}: record {place}", value) for place, value in enumerate(file.json))
        return
    if is_keyed(file.json, are_records):
        yield from (Record(f"{file.path}: {key[:60]!r}", value) for key, value in file.json.items())
        return
    lists = record_lists(file.json, are_records)
    if not lists:
        raise DataError(f"{file.path} is no list of records with an image and captions, and has none under one key")
    for key, values in lists.items():
        split = split_of_folder(key)
        yield from (Record(f"{file.path}: {key}[{place}]", value, split) for place, value in enumerate(values))


def record_lists(value: Any, are_records: Callable[[list[Any]], bool]) -> dict[str, list[Any]]:
    """The lists of records in a JSON object: one, or several that are named after splits; empty where it is otherwise.

    Args:
        value: the object; of anything else there are none.
        are_records: whether a list's first values are records.
    """
    if not isinstance(value, dict):
        return {}
    lists = {key: values for key, values in value.items() if isinstance(values, list) and are_records(values[:HEAD])}
    return lists if len(lists) == 1 or all(split_of_folder(key) for key in lists) else {}


def is_keyed(value: Any, are_records: Callable[[list[Any]], bool]) -> bool:
    """Whether an object has a record under each key, as pandas writes rows by their index: the keys name no photos."""
    head = list(itertools.islice(value.items(), HEAD)) if isinstance(value, dict) else []
    return are_records([of_key for _, of_key in head]) and not any(file_name_of(key) for key, _ in head)


def record_object(record: Record) -> dict[str, Any]:
    """The object that a record is.

    Raises:
        DataError: it is none.
    """
    if isinstance(record.value, DataError):
        raise record.value
    if not isinstance(record.value, dict):
        raise DataError(f"{record.where}: {repr(record.value)[:60]} is not a JSON object")
    return record.value


def are_captions(columns: Mapping[str, str]) -> Callable[[list[Any]], bool]:
    """The test whether most of a list's first values are records with an image and captions."""
    return lambda head: most(isinstance(value, dict) and has_columns(list(value), columns) for value in head)


def recognise_lines(file: CaptionFile) -> bool:
    """Whether most lines are objects with an image and captions."""
    head = file.head_of_json_lines
    return are_captions(file.columns)(head) and not (len(head) == 1 and _are_columns(file, head[0], file.columns))


def recognise_list(file: CaptionFile) -> bool:
    """Whether there is a list of objects with an image and captions, and it is not COCO's."""
    value, are_records = file.json_value, are_captions(file.columns)
    if isinstance(value, list):
        return are_records(value[:HEAD])
    if coco.is_layout(value):
        return False
    return _are_columns(file, value, file.columns) or is_keyed(value, are_records) or _is_alone(value, are_records)


def _is_alone(value: Any, are_records: Callable[[list[Any]], bool]) -> bool:
    """Whether an object has lists of records, and no other list of images, with ids, that these may belong to."""
    lists = record_lists(value, are_records)
    images = value.get("images") if lists and "images" not in lists else None
    are_images = isinstance(images, list) and most(isinstance(one, dict) and "id" in one for one in images[:HEAD])
    return bool(lists) and not are_images


def _are_columns(file: CaptionFile, value: Any, chosen: Mapping[str, str]) -> bool:
    """Whether an object has columns in place of records: equally long lists or, as pandas has it, objects."""
    if not isinstance(value, dict) or not has_columns(list(value), chosen):
        return False
    values = [value[column.key] for column in _used(file, value, chosen)]
    return all(isinstance(of, list) or (isinstance(of, dict) and photo_path(of) is of) for of in values)


def _used(file: CaptionFile, value: dict[str, Any], chosen: Mapping[str, str]) -> list[Column]:
    columns = choose_columns(str(file.path), tuple(value), chosen)
    return [*columns.images, *columns.captions, *([columns.split] if columns.split else [])]


def _rows(file: CaptionFile, chosen: Mapping[str, str]) -> Iterator[Record]:
    """The records that columns make.

    Raises:
        DataError: columns of different lengths, or of different keys.
    """
    columns = {column.key: file.json[column.key] for column in _used(file, file.json, chosen)}
    first, *others = columns
    keys = list(columns[first]) if isinstance(columns[first], dict) else range(len(columns[first]))
    for other in others:
        values = columns[other]
        same = keys == list(values) if isinstance(values, dict) else keys == range(len(values))
        if not same:
            raise DataError(
                f"{file.path}: {first!r} has {len(columns[first])} values and {other!r} {len(values)}; columns must "
                "have the same rows"
            )
    for key in keys:
        yield Record(f"{file.path}: row {key}", {name: values[key] for name, values in columns.items()})


def read_lines(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """An object per line: `image`, `caption` or `captions` (a list), `split` or not; or other names of `columns`."""
    return _read(file, options, lambda: json_lines(file))


def read_list(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """A list of such objects; an object that has one under some key, one for each split, or an object under each; or
    the columns of such objects.
    """
    chosen = options.columns
    if _are_columns(file, file.json, chosen):
        return _read(file, options, lambda: _rows(file, chosen))
    return _read(file, options, lambda: json_list(file, are_captions(chosen)))


def _read(
    file: CaptionFile, options: CaptionOptions, records: Callable[[], Iterator[Record]]
) -> Iterator[CaptionedImage]:
    folder = Folder(file.path)
    known: dict[tuple[str, ...], Columns] = {}

    def image_of(record: Record) -> CaptionedImage:
        value = record_object(record)
        names = tuple(value)
        columns = known.get(names)
        if columns is None:
            columns = known[names] = choose_columns(record.where, names, options.columns)
        return folder.within(columns.read(record.where, value, record.split))

    def images() -> Iterator[tuple[str, CaptionedImage]]:
        for record in records():
            try:
                image = image_of(record)
            except DataError as error:
                options.log.bad_record(error)
            else:
                yield record.where, image

    return grouped_images(images, options.log)


JSONL = CaptionFormat(
    "jsonl",
    "JSON lines with image, caption or captions, and split; or with other usual keys",
    recognise_lines,
    read_lines,
    two_names=True,
    columns=COLUMNS,
)
JSON_RECORDS = CaptionFormat(
    "json-records",
    "a JSON list of such objects, or an object that has one: TextCaps",
    recognise_list,
    read_list,
    two_names=True,
    columns=COLUMNS,
)
