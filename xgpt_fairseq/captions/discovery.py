"""Finds the captions of a folder of photos, so that a folder is all that a user has to name."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Final

from xgpt_fairseq.captions.arrow import PARQUET
from xgpt_fairseq.captions.base import CaptionFile, CaptionOptions
from xgpt_fairseq.captions.folder import FOLDER, OWN, UNREADABLE
from xgpt_fairseq.captions.registry import CaptionSource, find_format, open_source, read_sources
from xgpt_fairseq.captions.split_names import split_in_name, split_of_folder
from xgpt_fairseq.captions.structure import structure_of
from xgpt_fairseq.captions.tar_shards import TAR
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import walk
from xgpt_fairseq.regions.image_ids import is_photo_name

# What caption files are called; in the folder and down to its second subfolders, such as annotations/.
SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".token", ".parquet", ".xlsx", ".xls")
DEPTH: Final = 2
# Files that are looked into: those that are called captions or are tables first, then those near the top.
MOST_FILES: Final = 100

# A file in a folder that a recipe writes, which holds no captions of one's own.
MARK: Final = "real_photos.settings"

# What is held out of captions that come without validation images: the first share that takes some. It goes by a hash
# of names, which of a few photos may take none.
SHARES: Final = (0.1, 0.2, 0.4, 0.5)
# From so many images on, the first share takes some: none has a probability of 3e-10.
_MANY: Final = 200

_LISTED_SPLIT = re.compile(r"train|dev|val|test")
# What `structure_of` says of tables that have to be saved in another way
_UNREAD = re.compile(r"UTF-16|a zip|a spreadsheet")
# Lines of a list of photos that are looked at, and the share that must be photos of the folder.
_LINES, _SHARE = 50, 0.8


def discover(folder: Path) -> list[str]:
    """The arguments that name the captions of *folder* to `xgpt-learn-bpe --input` and `xgpt-prepare-captions`.

    Captions are a file of a known format, or several of one format, each of a split by its name; or the folder itself,
    with texts beside the photos, tars or tables of photos. Files named as photos, and folders that our programs or
    recipes wrote, are passed over. Where captions come without splits, --split-files follows, if the folder has lists
    of photos called train, val or test; where they come without validation images, --hold-out with the first of
    `SHARES` that takes some. The folder's own name says no split: captions in one that is called test are `train=FILE`.

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
    if all(source.format is PARQUET for source in found) and (whole := _whole(folder, found)):
        found = [whole]
    if not found:
        raise DataError(_nothing_found(folder, files))
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
    others = [path for path in files if not _is_of_photo(path.name, photos, stems)]
    files = [path for path in others if not path.name.endswith(UNREADABLE)]
    distinct = {path.resolve(): path for path in reversed(files)}
    files = sorted(distinct.values(), key=lambda path: (not _is_likely(path), len(path.parts), str(path)))
    return files, photos


def _is_of_photo(name: str, photos: set[str], stems: set[str]) -> bool:
    """Whether a file is named as a photo is: `1.txt`, `1.jpg.json` or `1.jpg.supplemental-metadata.json` of `1.jpg`."""
    parts = name.split(".")
    return ".".join(parts[:-1]) in stems or any(".".join(parts[:end]) in photos for end in range(2, len(parts)))


def _is_likely(path: Path) -> bool:
    """Whether a file is called captions, or is a table or JSON lines by its name."""
    return "caption" in path.name.lower() or path.suffix.lower() not in (".json", ".txt")


def _is_table_or_json(path: Path) -> bool:
    return _is_likely(path) or path.suffix.lower() == ".json"


def _whole(folder: Path, found: list[CaptionSource]) -> CaptionSource | None:
    """What *folder* is as a whole, whose files *found* are Parquet, or none: they are the shards of one data set, or
    what img2dataset writes beside its tars. None where it is nothing, or they are a split each.
    """
    tables = [source.file.path for source in found]
    are_beside = all(path.with_suffix(".tar").is_file() or path.with_suffix("").is_dir() for path in tables)
    for place in dict.fromkeys([folder, *([Path(os.path.commonpath([t.parent for t in tables]))] if tables else [])]):
        whole = _source(place)
        if whole and (not found or (are_beside and whole.format in (TAR, FOLDER))):
            return whole
        if whole and whole.format is PARQUET and _of_different_splits(found) is None:
            return whole
    return None


def _nothing_found(folder: Path, files: list[Path]) -> str:
    """Why no captions are found, in words: what is wrong with the first file that looks like some, if one does."""
    for path in filter(_is_table_or_json, files[:MOST_FILES]):
        try:
            structure = structure_of(CaptionFile(path)) or ""
            if _UNREAD.match(structure):
                return f"{folder} holds no captions that can be read: {path} looks like {structure}"
            open_source(path)
        except (DataError, UnicodeDecodeError) as error:
            if "--help describes" in str(error) and not _is_likely(path):  # JSON of any kind
                continue
            name = shlex.quote(str(path.relative_to(folder)))
            hint = f'; name it by CAPTIONS="{name} --columns image=…,caption=…"' if "--columns" in str(error) else ""
            return f"{folder} holds no captions that can be read: {error}{hint}"
    cut = f" Of its {len(files)} files {MOST_FILES} were looked into; CAPTIONS= names another."
    return (
        f"{folder} holds no captions of a known format: neither a file such as captions.csv, captions.json or "
        "metadata.jsonl, nor texts beside its photos (docs/layouts.md shows what is known)."
        + (cut if len(files) > MOST_FILES else "")
    )


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
