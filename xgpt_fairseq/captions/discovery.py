"""Finds the captions of a folder of photos, so that a folder is all that a user has to name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from xgpt_fairseq.captions.base import CaptionFile, CaptionOptions, split_in_name
from xgpt_fairseq.captions.registry import CaptionSource, find_format, read_sources
from xgpt_fairseq.errors import DataError

# What caption files are called; in subfolders, such as annotations/, down to the second.
SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".token", ".parquet")
_PATTERNS: Final = ("*", "*/*", "*/*/*")
# More files than this are texts of photos, which are looked for as such.
_MOST_FILES: Final = 100

# What is held out of captions that come without validation images.
HOLD_OUT: Final = "val=0.1"


def discover(folder: Path) -> list[str]:
    """The arguments that name the captions of *folder* to `xgpt-learn-bpe --input` and `xgpt-prepare-captions`.

    Captions are a file of a known format, or several of one format, each of a split by its name; or the folder itself,
    with texts beside the photos, tars or tables of photos. Where they come without validation images, --hold-out
    follows.

    Args:
        folder: photos and captions, in subfolders or not.

    Raises:
        DataError: there are no captions, or several files hold some.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    paths = sorted(path for pattern in _PATTERNS for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES)
    found = [source for path in paths[: _MOST_FILES + 1] if (source := _source(path))]
    if not found or len(paths) > _MOST_FILES:
        itself = _source(folder)
        found = [itself] if itself else found
    if not found:
        raise DataError(
            f"{folder} holds no captions of a known format: neither a file such as captions.csv, captions.json or "
            "metadata.jsonl, nor texts beside its photos (preprocess/layouts.md shows what is known)"
        )
    chosen = _of_different_splits(found)
    if chosen is None:
        names = ", ".join(str(source.file.path.relative_to(folder)) for source in found)
        raise DataError(f"{folder} holds several files of captions: {names}; say which are to be read")
    return [str(source.file.path) for source in chosen] + _hold_out(chosen)


def _source(path: Path) -> CaptionSource | None:
    file = CaptionFile(path)
    try:
        found = find_format(file)
    except (DataError, UnicodeDecodeError):  # named by its format it may be one, but not by itself
        return None
    return CaptionSource(file, found) if found else None


def _of_different_splits(found: list[CaptionSource]) -> list[CaptionSource] | None:
    """*found*, if they are one data set; else None."""
    if len(found) == 1:
        return found
    splits = [split_in_name(source.file.path.name) or split_in_name(source.file.path.parent.name) for source in found]
    same = len({source.format.name for source in found}) == 1
    return found if same and all(splits) and len(set(splits)) == len(splits) else None


def _hold_out(sources: list[CaptionSource]) -> list[str]:
    options = replace(CaptionOptions(unknown_split="train"), is_only_source=len(sources) == 1)
    splits = {image.split for image in read_sources(sources, options)}
    return [] if "valid" in splits else ["--hold-out", HOLD_OUT]
