"""Photos found in folders, and named."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.validation import one_line
from xgpt_fairseq.vision.photos import PhotoError, is_photo


def find_photos(paths: Iterable[Path], *, exclude: Sequence[Path] = ()) -> list[Path]:
    """The files that *paths* name, in that order; of folders all files in them and below, sorted.

    What lies in a folder is not looked at, but names that begin with a dot are passed over. So is what is in *exclude*.
    A file that is named more than once is there once. A path that does not exist, and a folder that cannot be listed,
    is in the result, too: reading it will say so.
    """
    excluded = {_absolute(path) for path in exclude}
    found: dict[str, Path] = {}
    for path in paths:
        for file in _files_below(path, excluded) if _is_folder(path) else [path]:
            found.setdefault(_absolute(file), file)
    return list(found.values())


def check_ids(paths: Iterable[Path]) -> None:
    """Raises DataError where two of *paths* are photos of one image id. Files that are no photos may share it."""
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_id[canonical_image_id(path.name)].append(path)
    for name, files in by_id.items():
        photos = [file for file in files if is_photo(file)] if len(files) > 1 else []
        if len(photos) > 1:
            raise DataError(
                f"{photos[0]} and {photos[1]} are both image {name}: an image id must be unique. It is the file's "
                "name without folder and extension; COCO's long names and the bare number are one id"
            )


def photo_id(path: Path) -> str:
    """The image id of a photo: its file name, as `canonical_image_id` gives it.

    Raises:
        PhotoError: the name is none that a store can hold.
    """
    name = canonical_image_id(path.name)
    if not name or not one_line(name):
        raise PhotoError(path, "its name gives no image id: empty, not Unicode, or with a line break in it")
    return name


def _files_below(folder: Path, excluded: set[str]) -> list[Path]:
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()  # folders, since links may lead round in a circle

    def cannot_list(error: OSError) -> None:
        files.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, onerror=cannot_list, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        wanted = {
            name
            for name in (*folders, *names)
            if not name.startswith(".") and _absolute(Path(parent, name)) not in excluded
        }
        folders[:] = sorted(wanted.intersection(folders))
        files += [Path(parent, name) for name in names if name in wanted]
    return sorted(files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a parent that may not be read
        return False


def _absolute(path: Path) -> str:
    """*path* from the root on, so that each file has one name; links are not followed, since theirs is another."""
    return os.path.normpath(path.absolute())
