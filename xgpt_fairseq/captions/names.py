"""json-names: a JSON object of images' names and their captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    file_name_of,
    image_id_of,
    split_of_folder,
)
from xgpt_fairseq.captions.columns import Columns, caption_texts, choose_columns, has_columns
from xgpt_fairseq.errors import DataError

# So many entries are looked at to find out what they are.
_HEAD = 20
# The key that stands for the image's name, beside those of its captions.
_NAME = "image"


def recognise(file: CaptionFile) -> bool:
    """Whether the values of an object are captions, lists of them, or objects with them, and its keys may be names."""
    value = file.json_object
    head = list(itertools.islice(value.items(), _HEAD))
    if has_columns(list(value), file.columns) or all(split_of_folder(key) for key in value):
        return False  # one record with its keys; lists of each split
    if any("://" in key for key, _ in head):
        return False  # a map from URLs to names
    texts = [text for _, of_name in head for text in _texts(of_name)]
    are_captions = all(isinstance(text, str) for text in texts) and any(map(str.strip, texts))
    return are_captions and not all(file_name_of(text) for text in texts)


def _texts(value: Any) -> list[Any]:
    """What may be the captions in a value of the object; [None] for anything else."""
    if isinstance(value, dict):
        fitting = [of_key for key, of_key in value.items() if of_key is not None and has_columns([_NAME, key], {})]
        texts = [[None] if isinstance(of_key, dict) else _texts(of_key) for of_key in fitting]
        return list(itertools.chain(*texts)) or [None]
    return value if isinstance(value, list) else [value if isinstance(value, str) else None]


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """`{name: caption}`, `{name: [caption, …]}` or `{name: {"caption": …, "split": …}}`; names are files or ids."""
    path, value = file.path, file.json
    if not isinstance(value, dict):
        raise DataError(f"{path} is not an object of names and captions")
    _check_names_differ(file)
    for name, of_name in value.items():
        where = f"{path}: {name[:60]!r}"
        try:
            image = _image(where, name, of_name, options)
        except DataError as error:
            options.log.bad_record(error)
        else:
            yield image


def _image(where: str, name: str, value: Any, options: CaptionOptions) -> CaptionedImage:
    if isinstance(value, dict):
        record = {_NAME: name, **value}
        chosen = {**options.columns, "image": _NAME}
        columns: Columns = choose_columns(where, tuple(record), chosen)
        return columns.read(where, record)
    captions = [Caption(place, text) for place, text in enumerate(caption_texts(where, value))]
    return CaptionedImage(image_id_of(where, "name", name), "", captions, file_name_of(name))


def _check_names_differ(file: CaptionFile) -> None:
    """Python keeps the last of several values with one key: captions would be lost.

    Raises:
        DataError: a name is there twice.
    """

    def check(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise DataError(
                    f"{file.path}: {name[:60]!r} is there twice; an image's captions are a list under its name"
                )
            names.add(name)

    json.loads(file.path.read_text(encoding="utf-8-sig"), object_pairs_hook=check)


JSON_NAMES = CaptionFormat(
    "json-names", "a JSON object of names and captions: {name: caption or [captions]}", recognise, read
)
