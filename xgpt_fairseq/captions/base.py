"""What the formats of caption files have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import first_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id


@dataclass(frozen=True)
class Caption:
    """One caption, raw, with the number that its source gives it."""

    caption_id: int
    text: str


@dataclass(frozen=True)
class CaptionedImage:
    """An image id (`canonical_image_id`), the split it belongs to, and its captions.

    A reader leaves the split empty where the record does not say it; `read_captions` fills it in.
    """

    image_id: str
    split: str
    captions: list[Caption]


@dataclass(frozen=True)
class CaptionOptions:
    """What the command line says about caption files.

    Attributes:
        named_splits: the split of each file that was named SPLIT=FILE.
        split_lists: image id → split, from the lists of --split-files; None if there are none.
        unknown_split: the split of images whose split nothing tells; None: that is an error.
        image_id_of_url: how cc-tsv names the image of a URL (None: it has no name); if not given, by its line.
    """

    named_splits: Mapping[Path, str] = field(default_factory=dict)
    split_lists: Mapping[str, str] | None = None
    unknown_split: str | None = None
    image_id_of_url: Callable[[str], str | None] | None = None


class CaptionFile:
    """A caption file, for the formats that look at it and the one that reads it: it is parsed once for all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def first_lines(self) -> list[str]:
        """Its first lines that are not blank."""
        return first_lines(self.path)

    @cached_property
    def json(self) -> Any:
        """Its JSON value. Raises DataError where it has none."""
        return load_json(self.path)

    @property
    def json_object(self) -> dict[str, Any]:
        """The JSON object in a file that is named so; empty if there is none, or JSON in lines."""
        if self.path.suffix != ".json" or (len(self.first_lines) > 1 and _is_json(self.first_lines[0])):
            return {}
        return self.json if isinstance(self.json, dict) else {}


@dataclass(frozen=True)
class CaptionFormat:
    """A format of caption files.

    Attributes:
        name: as `--format` takes it.
        recognise: whether a file is of this format, by its content.
        read: streams its images in the file's order; raises `DataError` naming file and record.
        images_by_url: whether it has URLs in place of image ids, so that `CaptionOptions.image_id_of_url` counts.
    """

    name: str
    recognise: Callable[[CaptionFile], bool]
    read: Callable[[CaptionFile, CaptionOptions], Iterator[CaptionedImage]]
    images_by_url: bool = False


# fairseq's names for splits; Karpathy's `restval` is training data in every published result
_SPLITS = {
    "train": "train",
    "restval": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}


def fairseq_split(name: str) -> str:
    """fairseq's name for a split: `val` and `validation` are `valid`, `restval` is `train`; other names stay."""
    return _SPLITS.get(name, name)


_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|training|restval|val|valid|validation|test)(?![a-z])")


def split_in_name(name: str) -> str:
    """The split that a file's name speaks of, by fairseq's name; empty if there is none, or more than one.

    `captions_val2017.json` is `valid`, `Train_GCC-training.tsv` is `train`, `trainval.json` is neither.
    """
    found = {"train" if word == "training" else fairseq_split(word) for word in _SPLIT_IN_NAME.findall(name.lower())}
    return found.pop() if len(found) == 1 else ""


def load_json(path: Path) -> Any:
    """The JSON value in *path*, or a `DataError` that names the file and the place."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def record_image_id(where: str, record: Any, key: str) -> str:
    """The image id under *key* in a record of JSON.

    Raises:
        DataError: the record is no object or lacks the key, or its value is no id.
    """
    if not isinstance(record, dict) or key not in record:
        raise DataError(f"{where} lacks {key!r}")
    return image_id_of(where, key, record[key])


def image_listed_twice(path: Path, image_id: str) -> DataError:
    """The error for it."""
    return DataError(
        f"{path}: image {image_id} is listed twice; each image may stand there once, with all its captions together"
    )


def image_id_of(where: str, key: str, value: object) -> str:
    """The image id in a record of JSON, a string or a number.

    Raises:
        DataError: *value* is something else.
    """
    image_id = canonical_image_id(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not image_id or any(character in image_id for character in "\r\n") or not is_unicode(image_id):
        raise DataError(f"{where}: {key!r} must be an image's id or file name, found {_shown(value)}")
    return image_id


def caption_text(where: str, value: object) -> str:
    """The caption in a record, as it is.

    Raises:
        DataError: *value* is not text, or blank.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: a caption must be text that is not blank, found {_shown(value)}")
    return value


def is_unicode(text: str) -> bool:
    """False for half a character, which JSON can spell."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: object) -> str:
    return repr(value)[:60]
