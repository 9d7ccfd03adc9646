"""dataset.json: read and written back byte for byte; values that are missing or wrong are refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.data.manifest import CaptionManifest, CaptionSplit, TextManifest, TextSplit, read_kind
from xgpt_fairseq.errors import DataError

# As the programs have written them since format version 1.
CAPTIONS = """\
{
 "version": 1,
 "splits": {
  "train": {
   "images": 9,
   "captions": 39,
   "cut_to_max_tokens": 1,
   "bin_bytes": 742,
   "idx_bytes": 830
  },
  "test": {
   "images": 2,
   "captions": 10,
   "cut_to_max_tokens": 0,
   "bin_bytes": 184,
   "idx_bytes": 154
  }
 },
 "max_tokens": 60,
 "feature_dim": 16,
 "regions": "../größe.regions",
 "regions_ids_crc32": "9f5e1c33",
 "dictionary_crc32": "0ab37d2e",
 "made_by": {
  "program": "prepare_captions.py",
  "source": "dataset_coco.json",
  "format": "karpathy"
 }
}
"""
TEXT = """\
{
 "version": 1,
 "kind": "text",
 "splits": {
  "train": {
   "sentences": 120,
   "tokens": 1034,
   "bin_bytes": 2068,
   "idx_bytes": 1474
  }
 },
 "max_tokens": 60,
 "dictionary_crc32": "0ab37d2e",
 "made_by": {
  "program": "prepare_text.py",
  "input": [
   "wiki.en.txt.gz"
  ],
  "lines": 130,
  "blank": 10,
  "cut_to_max_tokens": 0,
  "valid_lines": 0,
  "copies_of_valid_lines": 0,
  "unknown_tokens": 3
 }
}
"""
KINDS: dict[str, tuple[Any, str]] = {"captions": (CaptionManifest, CAPTIONS), "text": (TextManifest, TEXT)}


@pytest.mark.parametrize("kind", KINDS)
def test_read_and_written_back_byte_for_byte(tmp_path: Path, kind: str) -> None:
    manifest_type, text = KINDS[kind]
    file = tmp_path / "dataset.json"
    file.write_text(text, encoding="utf-8")
    assert read_kind(tmp_path, kind) == kind
    manifest = manifest_type.read(tmp_path)
    file.unlink()
    manifest.write(tmp_path)
    assert file.read_bytes() == text.encode("utf-8")


def test_values_are_typed(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(CAPTIONS, encoding="utf-8")
    manifest = CaptionManifest.read(tmp_path)
    assert manifest.splits["test"] == CaptionSplit(2, 10, 0, 184, 154)
    assert (manifest.feature_dim, manifest.regions) == (16, "../größe.regions")
    (tmp_path / "dataset.json").write_text(TEXT, encoding="utf-8")
    assert TextManifest.read(tmp_path).splits == {"train": TextSplit(120, 1034, 2068, 1474)}


def wrong_values() -> list[Any]:
    """(kind, path to the value, value, what is said of it); the value `...`: it is missing."""
    cases: list[Any] = []
    for kind, manifest_type, split_type in (
        ("captions", CaptionManifest, CaptionSplit),
        ("text", TextManifest, TextSplit),
    ):
        for path, fields in (
            ((), dataclasses.fields(manifest_type)),
            (("splits", "train"), dataclasses.fields(split_type)),
        ):
            for field in fields:
                cases.append((kind, (*path, field.name), ..., f"{field.name} is None, "))
                cases.append((kind, (*path, field.name), 1.5, f"{field.name} is 1.5, "))
    return [
        *cases,
        ("captions", ("max_tokens",), "60", "max_tokens is '60', a whole number expected"),
        ("captions", ("max_tokens",), -1, "max_tokens is -1, a whole number expected"),
        ("captions", ("feature_dim",), True, "feature_dim is True, a whole number expected"),
        ("captions", ("regions",), None, "regions is None, a string expected"),
        ("text", ("made_by",), [], r"made_by is \[\], a JSON object expected"),
        ("text", ("splits", "train"), 7, r"dataset\.json, split 'train': 7 is not a JSON object"),
        ("captions", ("splits", "test", "images"), "x", r"dataset\.json, split 'test': images is 'x', a whole number"),
    ]


@pytest.mark.parametrize(("kind", "path", "value", "message"), wrong_values())
def test_what_is_missing_or_wrong_is_named(
    tmp_path: Path, kind: str, path: tuple[str, ...], value: Any, message: str
) -> None:
    manifest_type, text = KINDS[kind]
    content = place = json.loads(text)
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        manifest_type.read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))
    assert str(caught.value).endswith("prepare the data again")


def test_what_else_is_in_the_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(json.loads(TEXT) | {"notes": "of the user"}), encoding="utf-8")
    assert TextManifest.read(tmp_path).max_tokens == 60
