"""Photos found in folders, tars and tables, and named."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from xgpt_fairseq.captions.arrow import is_cache, place_in_table
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import is_file, walk
from xgpt_fairseq.io.tar_members import (
    DamagedTarError,
    check_not_compressed,
    has_compressed_tar_name,
    tar_members,
)
from xgpt_fairseq.regions.image_ids import canonical_image_id, is_photo_name, name_parts, shortest_ids
from xgpt_fairseq.regions.names import storable_folder
from xgpt_fairseq.regions.validation import one_line
from xgpt_fairseq.vision.photos import PhotoError, PhotoFile, is_photo
from xgpt_fairseq.vision.table_photos import SUFFIXES, photos_in_table


def find_photos(paths: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[PhotoFile]:
    """The files that *paths* name, in that order; of folders all files in them and below, sorted; of tars and of tables
    (Parquet, Arrow) their photos.

    What lies in a folder is not looked at, but names that begin with a dot are passed over. So is what is in *exclude*,
    and Arrow files that the `state.json` beside them does not name, the caches of `datasets`.
    A file that is named more than once is there once. A path that does not exist, and a folder that cannot be listed,
    is in the result, too: reading it will say so. So is a tar or a table without photos; and a tar that is cut, behind
    its photos.

    Raises:
        DataError: a tar is compressed.
    """
    excluded = {_absolute(path) for path in exclude}
    files: dict[str, Path] = {}
    folders: list[str] = []
    for path in paths:
        is_folder = _is_folder(path)
        folders.append(_absolute(path if is_folder else path.absolute().parent))
        for file in _files_below(path, excluded) if is_folder else [path]:
            files.setdefault(_absolute(file), file)
    if not files:
        return []
    root = os.path.commonpath(folders)
    found: list[PhotoFile] = []
    relative: list[str] = []
    # The headers of tars of millions of photos take minutes.
    for file in tqdm(files.values(), desc="looking for photos", unit=" files", delay=2, leave=False, disable=None):
        below = os.path.relpath(file, root)
        for photo in _photos_in(file):
            found.append(photo)
            inside = "." if photo.is_file else photo.path.relative_to(file.parent)
            relative.append(below if photo.is_file else (Path(below).parent / inside).as_posix())
    return _named(found, relative)


def list_photos(paths: Sequence[Path], *, exclude: Sequence[Path] = (), unique: bool = True) -> list[PhotoFile]:
    """The files in *paths*, of which there must be some; see `find_photos`.

    Args:
        unique: whether image ids must be.

    Raises:
        DataError: there are none, or a tar is compressed, or two photos have one image id.
    """
    files = find_photos(paths, exclude=exclude)
    if not files:
        raise DataError(f"there are no files in {', '.join(map(str, paths))}")
    if unique:
        check_ids(files)
    return files


def _photos_in(file: Path) -> Iterator[PhotoFile]:
    """*file* itself or, of a tar, its members that are named as photos, or the photos of a table."""
    if has_compressed_tar_name(file) and is_file(file):
        with open(file, "rb") as content:
            check_not_compressed(file, content)
    if file.suffix.lower() in SUFFIXES and is_file(file):
        try:
            for name, cell in photos_in_table(file):
                yield PhotoFile(place_in_table(file, name), cell=cell)
        except DataError as error:
            yield PhotoFile(file, reason=str(error).removeprefix(f"{file}: "))
        return
    if file.suffix.lower() != ".tar" or not is_file(file):
        yield PhotoFile(file)
        return
    number = 0
    try:
        for member in tar_members(file):
            if is_photo_name(member.name) and not member.is_hidden:
                number += 1
                cut = f"cut within {member.name}" if member.offset + member.size > file.stat().st_size else ""
                yield PhotoFile(file / member.name, tar=file, member=member, reason=member.reason or cut)
    except DamagedTarError as error:
        yield PhotoFile(file, reason=f"{error.reason} ({number} photos before that)")
    else:
        if not number:
            yield PhotoFile(file, reason="a tar without members that are named as photos, .jpg or another")


def _named(photos: Sequence[PhotoFile], relative: Sequence[str]) -> list[PhotoFile]:
    """*photos* with the shortest names that keep them apart; *relative* are their whole names.

    A file of another kind beside a photo, such as its features, takes no name away from it. A damaged photo does: its
    captions must not find another photo of the name.
    """
    last_parts = [name_parts(photo.path.name)[-1] for photo in photos]
    times = Counter(last_parts)
    counted = [
        times[last] > 1 and (photo.cell is not None or is_photo_name(photo.path.name) or is_photo(photo))
        for photo, last in zip(photos, last_parts, strict=True)
    ]
    ids = shortest_ids(name for name, counts in zip(relative, counted, strict=True) if counts)
    named = []
    for photo, whole, counts in zip(photos, relative, counted, strict=True):
        image_id = next(ids) if counts else canonical_image_id(photo.path.name)
        folder = "/".join(name_parts(whole)[:-1])
        name = whole if "/" in image_id else photo.path.name
        named.append(replace(photo, name=name, image_id=image_id, folder=folder))
    return named


def check_ids(photos: Iterable[PhotoFile]) -> None:
    """Raises DataError where two photos have one image id. Files that are no photos may share it."""
    by_id: dict[str, list[PhotoFile]] = defaultdict(list)
    for photo in photos:
        by_id[photo.image_id].append(photo)
    for image_id, files in by_id.items():
        same = [file.path for file in files if is_photo(file)] if len(files) > 1 else []
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
        raise PhotoError(photo.path, "its name is not a valid image id: empty, not Unicode, or with a line break")
    return photo.image_id


def stored_names(photo: PhotoFile, *, in_one_tar: bool) -> tuple[str, str]:
    """The image id of a photo, and its folder, as a region store that is extracted from it has them.

    Args:
        photo: as `find_photos` gives it.
        in_one_tar: see `are_of_one_tar`.

    Raises:
        PhotoError: the name is none that a store can hold.
    """
    return photo_id(photo), storable_folder(photo.folder.partition("/")[2] if in_one_tar else photo.folder)


def are_of_one_tar(paths: Sequence[Path]) -> bool:
    """Whether the photos are those of one tar, whose folders count from inside it: else a tar is a folder, too."""
    return len(paths) == 1 and paths[0].suffix.lower() == ".tar"


def _files_below(folder: Path, excluded: set[str]) -> list[Path]:
    files: list[Path] = []

    def cannot_list(error: OSError) -> None:
        files.append(Path(error.filename))

    for parent, names in walk(folder, on_error=cannot_list, leave_out=lambda path: _absolute(path) in excluded):
        files += [file for name in names if not is_cache(file := parent / name)]
    return sorted(files)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a parent that may not be read
        return False


def _absolute(path: Path) -> str:
    """*path* from the root on, so that each file has one name; links are not followed, since theirs is another."""
    return os.path.normpath(path.absolute())
