"""dataset.json, the manifest of a data directory, with one class for captions and one for text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import read_description, write_json

FORMAT_VERSION = 1
MANIFEST = "dataset.json"


class Kind(NamedTuple):
    """Contents of a directory, for messages."""

    items: str
    tasks: str
    made_by: str


# by `kind` in dataset.json; directories of captions do not have that key
KINDS = {
    "captions": Kind("captions", "tasks xgpt_caption and xgpt_pretrain", "xgpt-prepare-captions"),
    "text": Kind("sentences", "task xgpt_text_pretrain", "xgpt-prepare-text"),
}


@dataclass(frozen=True)
class CaptionSplit:
    """A split of captions.

    Attributes:
        images, captions: their numbers.
        cut_to_max_tokens: number of truncated captions.
        bin_bytes, idx_bytes: sizes of the files of token ids.
    """

    images: int
    captions: int
    cut_to_max_tokens: int
    bin_bytes: int
    idx_bytes: int


@dataclass(frozen=True)
class TextSplit:
    """A split of text.

    Attributes:
        sentences, tokens: their numbers; tokens include ends of sentences.
        bin_bytes, idx_bytes: sizes of the files of token ids.
    """

    sentences: int
    tokens: int
    bin_bytes: int
    idx_bytes: int


@dataclass(frozen=True)
class CaptionManifest:
    """The manifest of a directory of captions, in the order of the file.

    Attributes:
        splits: the splits by name.
        max_tokens: longest caption in tokens, end of sentence included.
        feature_dim: width of the region features.
        regions: path of the region store, relative to the directory.
        regions_ids_crc32: `RegionStore.ids_crc32` of that store.
        dictionary_crc32: checksum of dict.txt.
        made_by: the program that wrote the directory, and its source.
    """

    splits: dict[str, CaptionSplit]
    max_tokens: int
    feature_dim: int
    regions: str
    regions_ids_crc32: str
    dictionary_crc32: str
    made_by: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read dataset.json of the data directory *folder*.

        Raises:
            DataError: not a data directory of captions, a newer format version, or a value is missing or wrong.
        """
        return cls(**_read_fields(folder, "captions", cls, CaptionSplit))

    def write(self, folder: Path) -> None:
        """Write dataset.json of the data directory *folder*, whole or not at all."""
        write_json(folder / MANIFEST, {"version": FORMAT_VERSION, **asdict(self)})


@dataclass(frozen=True)
class TextManifest:
    """The manifest of a directory of text; see `CaptionManifest` for the attributes."""

    splits: dict[str, TextSplit]
    max_tokens: int
    dictionary_crc32: str
    made_by: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read dataset.json of the data directory *folder*.

        Raises:
            DataError: not a data directory of text, a newer format version, or a value is missing or wrong.
        """
        return cls(**_read_fields(folder, "text", cls, TextSplit))

    def write(self, folder: Path) -> None:
        """Write dataset.json of the data directory *folder*, whole or not at all."""
        write_json(folder / MANIFEST, {"version": FORMAT_VERSION, "kind": "text", **asdict(self)})


def read_kind(folder: Path, wanted: str) -> str:
    """The kind of the data directory *folder*.

    Raises:
        DataError: a newer format version, or not a data directory; the message names the program for *wanted* ones.
    """
    return _read_json(folder, wanted).get("kind", "captions")


def _read_json(folder: Path, wanted: str) -> dict[str, Any]:
    return read_description(
        folder / MANIFEST, what="a data directory", made_by=KINDS[wanted].made_by, newest=FORMAT_VERSION
    )


def _read_fields(folder: Path, wanted: str, manifest_type: type, split_type: type) -> dict[str, Any]:
    """The fields of a manifest of the kind *wanted*."""
    description = _read_json(folder, wanted)
    found = description.get("kind", "captions")
    if found != wanted:
        here, there = KINDS[wanted], KINDS.get(found)
        what = f"{there.items}, for the {there.tasks}" if there else f"data of the unknown kind {found!r}"
        raise DataError(
            f"{folder} holds {what}; {here.items}, for the {here.tasks}, are needed here: prepare them with "
            f"{here.made_by}"
        )
    file = folder / MANIFEST
    values = _checked(manifest_type, description, f"{file}")
    values["splits"] = {
        name: split_type(**_checked(split_type, split, f"{file}, split {name!r}"))
        for name, split in values["splits"].items()
    }
    return values


def _checked(fields_of: type, value: Any, where: str) -> dict[str, Any]:
    """The values of a dataclass's fields in the JSON object *value*; its other keys are ignored.

    Raises:
        DataError: a key is missing, or its value is of another type; *where* names the file.
    """
    if not isinstance(value, dict):
        raise DataError(f"{where}: {value!r} is not a JSON object: prepare the data again")
    values = {}
    for field in fields(fields_of):
        found = value.get(field.name)
        if field.type == "int":
            right, rule = isinstance(found, int) and not isinstance(found, bool) and found >= 0, "a whole number"
        elif field.type == "str":
            right, rule = isinstance(found, str), "a string"
        else:
            right, rule = isinstance(found, dict), "a JSON object"
        if not right:
            raise DataError(f"{where}: {field.name} is {found!r}, {rule} expected: prepare the data again")
        values[field.name] = found
    return values
