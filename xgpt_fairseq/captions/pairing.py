"""Which photo a caption is about: by its file's name, else by the source's id."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from xgpt_fairseq.captions.base import CaptionedImage
from xgpt_fairseq.captions.split_names import split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id, name_parts

if TYPE_CHECKING:
    from xgpt_fairseq.regions.names import ImageNames

PAIR_BY = ("auto", "file", "id")
# Of files that photos were made of, `x.dcm`
_OTHER_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{1,4}$", re.IGNORECASE)


class Pairing:
    """Finds images of a caption source among those of a region store, or among photos that have no regions yet.

    A source may know a photo by two names, the name of its file and an id of its own, and in COCO's layout an id may
    count otherwise than the files do: then it fits another photo. So one of the two is chosen for all images that have
    both. The file's name is, if it fits any image; but if they come from an archive, whose ids may be either, and both
    names fit, different images, the user must say which. Names of files count with their extensions or, if none fits
    so, without them (`x.dcm`), whether images have an id beside or not.

    Args:
        names: those of the images, of a store or of photos.
        by: `auto`, `file` or `id` (--pair-by).

    Attributes:
        by_file, by_id: how many images were found by which.
    """

    def __init__(self, names: ImageNames, by: str = "auto") -> None:
        self.names = names
        self.by_file = self.by_id = 0
        self._by = by
        self._drops_extensions = False

    def choose(self, images: Iterable[CaptionedImage]) -> None:
        """Look at the images of the source: do extensions count, and which name does, where that is not said already.

        Raises:
            DataError: both names fit, different images of an archive.
        """
        fits_whole = fits_stem = False  # of all that name a file; and of those that have an id, too:
        whole_of_two = stem_of_two = False
        by_id: CaptionedImage | None = None
        conflict: CaptionedImage | None = None
        for image in images:
            if image.file_name is None:
                continue
            whole = file = self.names.find(image.file_name)
            fits_whole |= bool(whole)
            if not file and (stem := _OTHER_EXTENSION.sub("", image.file_name)) != image.file_name:
                file = self.names.find(stem)
                fits_stem |= bool(file)
            if self._by != "auto" or canonical_image_id(image.file_name) == image.image_id:
                continue
            of_id = self.names.find_id(image.image_id)
            whole_of_two |= bool(whole)
            stem_of_two |= bool(file)
            if of_id and by_id is None:
                by_id = image
            if file and of_id and file != of_id and conflict is None:
                conflict = image
        self._drops_extensions = fits_stem and not fits_whole
        if self._by != "auto":
            return
        self._by = "file" if whole_of_two or (stem_of_two and self._drops_extensions) else "id"
        if self._by == "id" and by_id and self.names.are_of_photos:
            photo = self._id(self.names.find_id(by_id.image_id))
            print(
                f"warning: no file that the captions name is in {self.names.where}, and photos are found by ids: "
                f"{by_id.file_name}, image {by_id.image_id} of the captions, is taken for the photo {photo}. If ids "
                "count otherwise than the names of photos do, that is another photo: give photos and captions the same "
                "names. --pair-by id says that ids are meant",
                file=sys.stderr,
            )
        if conflict is not None and not self.names.are_of_photos:
            assert conflict.file_name is not None
            stem = _OTHER_EXTENSION.sub("", conflict.file_name)
            file = self.names.find(conflict.file_name) or self.names.find(stem)
            of_id = self.names.find_id(conflict.image_id)
            raise DataError(
                f"image {conflict.image_id} ({conflict.file_name}) is {self._id(of_id)} of {self.names.where} by its "
                f"id, and {self._id(file)} by its file's name: say which is meant by --pair-by id or --pair-by file"
            )

    def find(self, image: CaptionedImage) -> int | None:
        """The place of *image* among the names; None if it is not there.

        Raises:
            DataError: its name fits several images, in different folders.
        """
        name: str = image.image_id
        by_file = image.file_name is not None and (self._by != "id" or canonical_image_id(image.file_name) == name)
        if by_file:
            assert image.file_name is not None
            name = image.file_name
        elif "://" in name:  # an image that has no name (see conceptual_captions.read): a URL's end is none
            return None
        found = self._find_file(image, name) if by_file else self.names.find_id(name)
        if not found:
            return None
        if len(found) > 1:
            raise DataError(
                f"image {name} may be {self._id(found)} or {self._id(found[1:])} of {self.names.where}: captions of "
                "photos that share a name must name the folder, too"
            )
        if by_file:
            self.by_file += 1
        else:
            self.by_id += 1
        return found[0]

    def _find_file(self, image: CaptionedImage, name: str) -> list[int]:
        """The photos that *name* may mean.

        Where photos of several folders share names, a name without folders is one of the folder that the captions lie
        in, if photos do; else of the folder that is called like their split. So is a name that fits several photos.
        """
        found = self._find_in_folder(name)
        if image.origin is None or not self.names.shares_name() or _is_absolute(name):
            return found
        if len(found) < 2 and len(name_parts(name)) > 1:
            return found
        if PurePosixPath(image.origin.folder).name in self.names.folders:
            return self._find_in_folder(f"{image.origin.folder}/{name}")
        if image.origin.split not in self._split_folders:
            return found
        said = {index: {split_of_folder(folder) for folder in self.names.folder_parts(index)} - {""} for index in found}
        return [i for i in found if image.origin.split in said[i]] or [i for i in found if not said[i]]

    @cached_property
    def _split_folders(self) -> set[str]:
        """The splits that folders of the photos are called like."""
        return {split_of_folder(folder) for folder in self.names.folders} - {""}

    def _find_in_folder(self, name: str) -> list[int]:
        """The photos whose names fit *name*, and whose folders do not contradict it."""
        if self._drops_extensions:
            name = _OTHER_EXTENSION.sub("", name)
        found = self.names.find(name)
        if not found or ("/" not in name and "\\" not in name):
            return found
        parts = name_parts(name)
        return [index for index in found if not self._is_elsewhere(parts, index)]

    def _is_elsewhere(self, parts: tuple[str, ...], index: int) -> bool:
        """Whether *parts*, a path, is known to be that of another photo, though only the last part of it counts.

        That is so if the first folders from the end that differ are called like different splits, or are different
        tars, or photos lie in the one that *parts* has, and this one does not.
        """
        image_id = self.names.image_id(index)
        folders = self.names.folder_parts(index)
        if "/" in image_id or not folders:
            return False
        whole = (*folders, image_id)
        for one, other in zip(reversed(parts), reversed(whole), strict=False):
            if one == other:
                continue
            if split_of_folder(one) and split_of_folder(other):
                return split_of_folder(one) != split_of_folder(other)
            if one in self.names.folders and one not in whole and other not in parts:
                return True
            # "" is a folder whose name is not known
            return bool(other) and (self.names.shares_name(image_id) or (_is_tar(one) and _is_tar(other)))
        return False

    def _id(self, found: list[int]) -> str:
        return self.names.image_id(found[0])


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\")) or "://" in name or name[1:2] == ":"


def _is_tar(folder: str) -> bool:
    return folder.lower().endswith(".tar")
