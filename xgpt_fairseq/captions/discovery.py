"""Finds the captions of a folder of photos, so that a folder is all that a user has to name."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from xgpt_fairseq.captions.base import CaptionFile, CaptionOptions, split_in_name, split_of_folder
from xgpt_fairseq.captions.folder import OWN, UNREADABLE
from xgpt_fairseq.captions.registry import CaptionSource, find_format, read_sources
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import walk
from xgpt_fairseq.regions.image_ids import is_photo_name

# What caption files are called; in the folder and down to its second subfolders, such as annotations/.
SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".token", ".parquet")
DEPTH: Final = 2
# Files that are looked into, those near the top first.
MOST_FILES: Final = 100

# A file in a folder that a recipe writes, which holds no captions of one's own.
MARK: Final = "real_photos.settings"

# What is held out of captions that come without validation images: the first share that takes some. It goes by a hash
# of names, which of a few photos may take none.
SHARES: Final = (0.1, 0.2, 0.4, 0.5)
# From so many images on, the first share takes some: none has a probability of 3e-10.
_MANY: Final = 200

_LISTED_SPLIT = re.compile(r"train|dev|val|test")
# Lines of a list of photos that are looked at, and the share that must be photos of the folder.
_LINES, _SHARE = 50, 0.8


def discover(folder: Path) -> list[str]:
    """The arguments that name the captions of *folder* to `xgpt-learn-bpe --input` and `xgpt-prepare-captions`.

    Captions are a file of a known format, or several of one format, each of a split by its name; or the folder itself,
    with texts beside the photos, tars or tables of photos. Files named as photos, and folders that our programs or
    recipes wrote, are passed over. Where captions come without splits, --split-files follows, if the folder has lists
    of photos called train, val or test; where they come without validation images, --hold-out with the first of
    `SHARES` that takes some.

    Args:
        folder: photos and captions, in subfolders or not.

    Raises:
        DataError: there are no captions, several files hold some, they are of no training images, or of so few that
            none can be held out.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    files, photos = _listing(folder)
    found = [source for path in files[:MOST_FILES] if (source := _source(path))]
    if not found and (itself := _source(folder)):
        found = [itself]
    if not found:
        raise DataError(
            f"{folder} holds no captions of a known format: neither a file such as captions.csv, captions.json or "
            "metadata.jsonl, nor texts beside its photos (docs/layouts.md shows what is known)"
        )
    chosen = _of_different_splits(found)
    if chosen is None:
        names = ", ".join(str(source.file.path.relative_to(folder)) for source in found)
        raise DataError(f"{folder} holds several files of captions: {names}; say which are to be read")
    return _with_splits(folder, chosen, files, photos)


def _listing(folder: Path) -> tuple[list[Path], set[str]]:
    """The files that may hold captions, those near the top first, and the names of photos."""
    files, photos = [], set[str]()
    own = set[Path]()
    for place, names in walk(folder, on_error=lambda error: None):
        parts = place.relative_to(folder).parts
        here = set(names)
        if own & {place, *place.parents} or (parts and (MARK in here or any(each <= here for each in OWN))):
            own.add(place)
            continue
        photos.update(name for name in names if is_photo_name(name))
        if len(parts) <= DEPTH:
            files += [place / name for name in names if Path(name).suffix.lower() in SUFFIXES]
    stems = {Path(name).stem for name in photos}
    files = [path for path in files if path.stem not in stems and not path.name.endswith(UNREADABLE)]
    distinct = {path.resolve(): path for path in reversed(files)}
    files = sorted(distinct.values(), key=lambda path: (len(path.parts), str(path)))
    return files, photos


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


def _with_splits(folder: Path, sources: list[CaptionSource], files: list[Path], photos: set[str]) -> list[str]:
    """The arguments that name *sources*, and how the images' splits are found, where the captions do not say them.

    Raises:
        DataError: none is a training image, or no share of them has validation images.
    """
    alone = len(sources) == 1
    path = sources[0].file.path
    own = alone and folder in (path, path.parent)  # whose name, such as test, is none of a split
    options = CaptionOptions(unknown_split="", is_only_source=alone, folder_says_split=not own)
    images = Counter(image.split for image in read_sources(sources, options) if image.captions)
    splits = set(images)
    if not splits & {"", "train"}:
        raise DataError(f"{folder} has no captions of training images, only of {', '.join(sorted(splits)) or 'none'}")
    names, arguments = [str(source.file.path) for source in sources], []
    if "train" not in splits:
        lists = {split: path for path in files if (split := _split_of_list(path, photos))}
        if "train" in lists and len(lists) > 1:
            arguments = ["--split-files", *(f"{split}={path}" for split, path in sorted(lists.items()))]
            splits |= lists.keys()
    if "valid" in splits:
        return [*names, *arguments]
    if own and not arguments and splits <= {"", "train"} and _named_like(path) - {"", "train"}:
        names = [f"train={path}"]  # beside captions of other folders, the name would count
    few = not arguments and images[""] + images["train"] < _MANY
    return [*names, *arguments, "--hold-out", f"val={_share(folder, sources, options) if few else SHARES[0]}"]


def _named_like(path: Path) -> set[str]:
    """The splits that the folder of captions, or a folder of captions, may be called like."""
    parent = split_of_folder(path.resolve().parent.name)
    return {parent, split_in_name(path.name), split_of_folder(path.resolve().name)} if path.is_dir() else {parent}


def _share(folder: Path, sources: list[CaptionSource], options: CaptionOptions) -> float:
    """The first of `SHARES` that leaves training images, and takes others.

    Raises:
        DataError: none does.
    """
    for share in SHARES:
        held_out = replace(options, hold_out={"valid": share})
        if {"train", "valid"} <= {image.split for image in read_sources(sources, held_out) if image.captions}:
            return share
    raise DataError(
        f"{folder} has too few captioned photos: by the hash of their names, --hold-out takes none or all of them for "
        "validation"
    )


def _split_of_list(path: Path, photos: set[str]) -> str:
    """The split that *path* lists photos of; empty if it is no such list."""
    named = set(_LISTED_SPLIT.findall(path.stem.lower()))
    if path.suffix.lower() != ".txt" or len(named) != 1:
        return ""
    stems = {Path(name).stem for name in photos}
    lines = CaptionFile(path).first_lines[:_LINES]
    known = sum(line.strip() in photos or line.strip() in stems for line in lines)
    if not lines or known < _SHARE * len(lines):
        return ""
    [split] = named
    return "valid" if split in ("dev", "val") else split
