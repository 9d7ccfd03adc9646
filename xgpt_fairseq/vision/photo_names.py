"""The names that photos will have in a region store, before anything is extracted from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import is_photo_name
from xgpt_fairseq.regions.names import ImageNames, extracted_folder, named_paths
from xgpt_fairseq.vision.photo_files import are_of_one_tar, list_photos, stored_names
from xgpt_fairseq.vision.photo_formats import missing_reader
from xgpt_fairseq.vision.photos import PhotoError, PhotoFile, first_bytes, is_photo


def names_of_photos(paths: Sequence[Path]) -> tuple[ImageNames, list[PhotoFile]]:
    """The names that the photos in *paths* have in the region store that is extracted from them.

    Of each file the beginning is read: what is no photo by that will not be in the store. A photo that is damaged
    behind its beginning will not, either, though it is taken for one here.

    Args:
        paths: photos, folders, tars and tables, as extraction takes them.

    Returns:
        tuple: the names, and the files that are no photos.

    Raises:
        DataError: extraction would refuse the paths (see `list_photos`), or none of the files is a photo.
    """
    files = list_photos(paths)
    ids: list[str] = []
    folders: list[str] = []
    others: list[PhotoFile] = []
    in_one_tar = are_of_one_tar(paths)
    # A million photos take minutes.
    for file in tqdm(files, desc="looking at photos", unit=" photos", unit_scale=True, delay=2, disable=None):
        try:
            if not is_photo(file):
                others.append(file)
                continue
            image_id, folder = stored_names(file, in_one_tar=in_one_tar)
        except PhotoError:
            others.append(file)
        else:
            ids.append(image_id)
            folders.append(folder)
    where = named_paths(paths)
    if not ids:
        raise DataError(
            f"none of the {len(files)} files in {where} is a photo. The first: {files[0].path}: {_why(files[0])}"
        )
    names = ImageNames(ids, where=where, folders=folders, extracted=extracted_folder(where), kind="photos")
    return names, others


def needed_reader(files: Iterable[PhotoFile]) -> str:
    """Of the first of *files*, which are no photos, that would be one with another package: which, with its path.

    Those that are named as photos are looked at, since others may be many. Empty if there is none.
    """
    for file in files:
        if is_photo_name(file.path.name) and (reader := _missing_reader(file)):
            return f"{file.path}: {reader}"
    return ""


def _missing_reader(file: PhotoFile) -> str:
    with contextlib.suppress(DataError, OSError):
        return missing_reader(first_bytes(file.content()))
    return ""


def _why(file: PhotoFile) -> str:
    """Why *file* is no photo."""
    try:
        file.content()
        stored_names(file, in_one_tar=False)
    except PhotoError as error:
        return error.reason
    return _missing_reader(file) or "it does not begin like one"
