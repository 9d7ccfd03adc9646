"""Photos found in folders, and named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import walk
from xgpt_fairseq.regions.image_ids import canonical_image_id, is_photo_name, name_parts, shortest_ids
from xgpt_fairseq.regions.validation import one_line
from xgpt_fairseq.vision.photos import PhotoError, is_photo


@dataclass(frozen=True)
class PhotoFile:
    """A file that was found and may be a photo.

    Attributes:
        path: of the file.
        name: its name without folders or, where photos share that, its path below the folder that was given (below
            what the folders have in common, if several were given), with `/`.
        image_id: its id as `canonical_image_id` makes it of the name.
    """

    path: Path
    name: str
    image_id: str


def find_photos(paths: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[PhotoFile]:
    """The files that *paths* name, in that order; of folders all files in them and below, sorted.

    What lies in a folder is not looked at, but names that begin with a dot are passed over. So is what is in *exclude*.
    A file that is named more than once is there once. A path that does not exist, and a folder that cannot be listed,
    is in the result, too: reading it will say so.
    """
    excluded = {_absolute(path) for path in exclude}
    found: dict[str, Path] = {}
    folders: list[str] = []
    for path in paths:
        is_folder = _is_folder(path)
        folders.append(_absolute(path if is_folder else path.absolute().parent))
        for file in _files_below(path, excluded) if is_folder else [path]:
            found.setdefault(_absolute(file), file)
    if not found:
        return []
    root = os.path.commonpath(folders)
    return _named(list(found.values()), [os.path.relpath(file, root) for file in found])


def _named(files: Sequence[Path], relative: Sequence[str]) -> list[PhotoFile]:
    """*files* with the shortest names that keep photos apart; *relative* are their whole names.

    A file of another kind beside a photo, such as its features, takes no name away from it. A damaged photo does: its
    captions must not find another photo of the name.
    """
    last_parts = [name_parts(file.name)[-1] for file in files]
    times = Counter(last_parts)
    counted = [
        times[last] > 1 and (is_photo_name(file.name) or is_photo(file))
        for file, last in zip(files, last_parts, strict=True)
    ]
    ids = shortest_ids(name for name, counts in zip(relative, counted, strict=True) if counts)
    named = []
    for file, whole, counts in zip(files, relative, counted, strict=True):
        image_id = next(ids) if counts else canonical_image_id(file.name)
        named.append(PhotoFile(file, whole if "/" in image_id else file.name, image_id))
    return named


def check_ids(photos: Iterable[PhotoFile]) -> None:
    """Raises DataError where two photos have one image id. Files that are no photos may share it."""
    by_id: dict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        by_id[photo.image_id].append(photo.path)
    for image_id, files in by_id.items():
        same = [file for file in files if is_photo(file)] if len(files) > 1 else []
        if len(same) > 1:
            raise DataError(
                f"{same[0]} and {same[1]} are both image {image_id}: an image id must be unique. It is the file's name "
                "without extension, with its folders where photos of several folders share it; COCO's long names and "
                "the bare number are one id"
            )


def photo_id(photo: PhotoFile) -> str:
    """The image id of a photo, checked.

    Raises:
        PhotoError: the name is none that a store can hold.
    """
    if not photo.image_id or not one_line(photo.image_id):
        raise PhotoError(photo.path, "its name gives no image id: empty, not Unicode, or with a line break in it")
    return photo.image_id


def _files_below(folder: Path, excluded: set[str]) -> list[Path]:
    files: list[Path] = []

    def cannot_list(error: OSError) -> None:
        files.append(Path(error.filename))

    for parent, names in walk(folder, on_error=cannot_list, leave_out=lambda path: _absolute(path) in excluded):
        files += [parent / name for name in names]
    return sorted(files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a parent that may not be read
        return False


def _absolute(path: Path) -> str:
    """*path* from the root on, so that each file has one name; links are not followed, since theirs is another."""
    return os.path.normpath(path.absolute())
