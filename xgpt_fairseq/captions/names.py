"""json-names: a JSON object of images' names and their captions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from xgpt_fairseq.captions.base import COLUMNS, Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    Column,
    Columns,
    caption_texts,
    choose_columns,
    chosen_names,
    has_columns,
)
from xgpt_fairseq.captions.json_values import file_name_of, image_id_of, most
from xgpt_fairseq.captions.records import HEAD, are_captions, is_keyed
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import whole_text

# The column of the image's name, the key, beside those of its value.
_KEY = "the key"


def recognise(file: CaptionFile) -> bool:
    """Whether most values of an object are captions, lists of them, or objects with them, and its keys may be names."""
    value = file.json_object
    head = list(itertools.islice(_entries(value), HEAD))
    if has_columns(list(value), file.columns) or is_keyed(value, are_captions(file.columns)):
        return False  # one record, or columns; records, which name their images
    if any("://" in name for _, name, _ in head):
        return False  # a map from URLs to names
    if any(_is_image(name) or _is_caption(name, file.columns) or split_of_folder(name) for _, name, _ in head):
        return False  # columns of other names, or what belongs to a data set
    lists = [of_name for _, _, of_name in head if isinstance(of_name, list) and of_name]
    if any(
        isinstance(of_list[0], dict | list) or (len(of_list) > 1 and all(map(_is_name, of_list))) for of_list in lists
    ):
        return False  # records; photos
    texts = [_texts(of_name, file.columns) for _, _, of_name in head]
    are_texts = most(all(isinstance(text, str) for text in of_name) for of_name in texts)
    said = [text for of_name in texts for text in of_name if isinstance(text, str) and text.strip()]
    return are_texts and bool(said) and not most(map(_is_name, said))


def _entries(value: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(split or an empty string, name, what is under it); an object may have such an object for each split."""
    if all(split_of_folder(key) and isinstance(of_split, dict) for key, of_split in value.items()):
        for key, of_split in value.items():
            yield from ((split_of_folder(key), *entry) for entry in of_split.items())
    else:
        yield from (("", *entry) for entry in value.items())


def _is_name(text: Any) -> bool:
    """Whether a text is no caption, but the name of a photo, or a URL."""
    return isinstance(text, str) and (file_name_of(text) is not None or ("://" in text and " " not in text))


def _texts(value: Any, columns: Mapping[str, str]) -> list[Any]:
    """What may be the captions in a value of the object; [None] for anything else."""
    if isinstance(value, dict):
        fitting = [of_key for key, of_key in value.items() if of_key is not None and _is_caption(key, columns)]
        texts = [[None] if isinstance(of_key, dict) else _texts(of_key, columns) for of_key in fitting]
        return list(itertools.chain(*texts)) or [None]
    return value if isinstance(value, list) else [value if isinstance(value, str) else None]


def _is_caption(key: str, columns: Mapping[str, str]) -> bool:
    """Whether a key is one of captions, by its name or by --columns."""
    chosen = [{"caption": name} for name in chosen_names(columns, "caption")] if "caption" in columns else []
    return any(has_columns([IMAGE_COLUMNS[0], key], choice) for choice in ({}, *chosen))


def _is_image(key: str) -> bool:
    return has_columns([key, CAPTION_COLUMNS[0]], {})


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """`{name: caption}`, `{name: [caption, …]}` or `{name: {"caption": …, "split": …}}`; names are files or ids."""
    path, value = file.path, file.json
    if not isinstance(value, dict):
        raise DataError(f"{path} is not an object of names and captions")
    _check_names_differ(file)
    have_columns = any(isinstance(of_name, dict) for _, _, of_name in _entries(value))
    if options.columns and not have_columns and not options.columns_of_others:
        raise DataError(f"{path} has captions alone under its names, no columns that --columns could choose")
    for split, name, of_name in _entries(value):
        where = f"{path}: {name[:60]!r}"
        try:
            image = _image(where, name, of_name, split, options)
        except DataError as error:
            options.log.bad_record(error)
        else:
            yield image


def _image(where: str, name: str, value: Any, split: str, options: CaptionOptions) -> CaptionedImage:
    if isinstance(value, dict):
        return _columns(where, name, value, options).read(where, {**value, _KEY: name}, split)
    captions = [Caption(place, text) for place, text in enumerate(caption_texts(where, value))]
    return CaptionedImage(image_id_of(where, "name", name), split, captions, file_name_of(name))


def _columns(where: str, name: str, value: dict[str, Any], options: CaptionOptions) -> Columns:
    """The columns of a value. Its own image counts, and its key does not; but the name of a photo's file always does:
    the two must agree then.
    """
    chosen = dict(options.columns)
    if options.columns_of_others and chosen.get("image") not in value:
        chosen.pop("image", None)
    if "image" in chosen or any(map(_is_image, value)):
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

    json.loads(whole_text(file.path), object_pairs_hook=check)


JSON_NAMES = CaptionFormat(
    "json-names",
    "a JSON object of names and captions: {name: caption or [captions]}",
    recognise,
    read,
    two_names=True,
    columns=COLUMNS,
)
