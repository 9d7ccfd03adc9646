"""json-names: a JSON object of images' names and their captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
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
from xgpt_fairseq.captions.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    Column,
    Columns,
    caption_texts,
    choose_columns,
    has_columns,
)
from xgpt_fairseq.captions.records import HEAD, are_captions, is_keyed
from xgpt_fairseq.errors import DataError

# The column of the image's name, the key, beside those of its value.
_KEY = "the key"


def recognise(file: CaptionFile) -> bool:
    """Whether the values of an object are captions, lists of them, or objects with them, and its keys may be names."""
    value = file.json_object
    head = list(itertools.islice(value.items(), HEAD))
    if has_columns(list(value), file.columns) or all(split_of_folder(key) for key in value):
        return False  # one record with its keys; lists of each split
    if is_keyed(value, are_captions(file.columns)):
        return False  # records, which name their images
    if any("://" in key for key, _ in head):
        return False  # a map from URLs to names
    texts = [text for _, of_name in head for text in _texts(of_name)]
    are_texts = all(isinstance(text, str) for text in texts) and any(map(str.strip, texts))
    return are_texts and not all(file_name_of(text) for text in texts)


def _texts(value: Any) -> list[Any]:
    """What may be the captions in a value of the object; [None] for anything else."""
    if isinstance(value, dict):
        fitting = [of_key for key, of_key in value.items() if _is_caption(key)]
        return _texts(fitting[0]) if len(fitting) == 1 and not isinstance(fitting[0], dict) else [None]
    return value if isinstance(value, list) else [value if isinstance(value, str) else None]


def _is_caption(key: str) -> bool:
    return has_columns([IMAGE_COLUMNS[0], key], {})


def _is_image(key: str) -> bool:
    return has_columns([key, CAPTION_COLUMNS[0]], {})


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
        return _columns(where, name, value, options).read(where, {**value, _KEY: name})
    captions = [Caption(place, text) for place, text in enumerate(caption_texts(where, value))]
    return CaptionedImage(image_id_of(where, "name", name), "", captions, file_name_of(name))


def _columns(where: str, name: str, value: dict[str, Any], options: CaptionOptions) -> Columns:
    """The columns of a value. Its own image counts, and its key does not; but the name of a photo's file always does:
    the two must agree then.
    """
    chosen = options.columns
    if chosen.get("image") in value or ("image" not in chosen and any(map(_is_image, value))):
        columns = choose_columns(where, tuple(value), chosen)
        if file_name_of(name) is None or "image" in chosen:
            return columns
        return replace(columns, images=(Column(_KEY, _KEY), *columns.images))
    return choose_columns(where, (_KEY, *value), {**chosen, "image": _KEY})


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
    "json-names", "a JSON object of names and captions: {name: caption or [captions]}", recognise, read, two_names=True
)
