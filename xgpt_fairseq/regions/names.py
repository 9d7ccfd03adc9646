"""The names of images, by which captions find them: those of a region store, or of photos that have no regions yet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Final, Literal

from xgpt_fairseq.regions.image_ids import NameIndex, is_photo_name
from xgpt_fairseq.regions.validation import one_line

# Between the first and the last of several paths that were extracted.
_BETWEEN: Final = " … "


class ImageNames:
    """Finds images by their names, and says in which folders photos lie. An *image index* is an image's place in *ids*.

    About 110 bytes for each image.

    Args:
        ids: of all images, as `canonical_image_id` makes them.
        where: what holds the images, for messages: the path of the store, or those of the photos.
        folders: of each photo, below what was extracted, with `/`; None: no more is known than the ids say.
        extracted: the name of the folder that the photos come from (see `extracted_folder`); None: the images are those
            of an archive of features, whose ids need not be names of files.
        kind: "store" or "photos", for messages.
    """

    def __init__(
        self,
        ids: Sequence[str],
        *,
        where: str,
        folders: Sequence[str] | None = None,
        extracted: str | None = None,
        kind: Literal["store", "photos"] = "store",
    ) -> None:
        self.where = where
        self.kind: Final = kind
        self._ids = ids
        self._folders = folders
        self._extracted = extracted
        self._index = NameIndex((image_id, index) for index, image_id in enumerate(ids))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def are_of_photos(self) -> bool:
        """Whether the ids are the names of photos, not those of an archive."""
        return self._extracted is not None

    def image_id(self, image_index: int) -> str:
        """The id of image *image_index*."""
        return self._ids[image_index]

    def find(self, name: str | int) -> list[int]:
        """The places of the images that a name, in any spelling, may mean: none, one or, rarely, several.

        COCO's long names and the bare number are one id; of a path as many parts count as are needed (`NameIndex`).
        """
        return self._index.find(name)

    def find_id(self, image_id: str) -> list[int]:
        """The places of the images that an id, as `canonical_image_id` makes it, may mean."""
        return self._index.find_id(image_id)

    def shares_name(self, image_id: str | None = None) -> bool:
        """Whether photos of different folders share a name; or this one, an id without folders."""
        return self._index.shares(image_id)

    @cached_property
    def folders(self) -> frozenset[str]:
        """The folders that photos lie in, each name alone, as far as they are known."""
        known = set(self._folders or ())
        return frozenset(self._index.folders).union(*(folder.split("/") for folder in known)) - {""}

    def folder_parts(self, image_index: int) -> tuple[str, ...]:
        """The folders of photo *image_index*, the outermost first: that which was extracted, or "" if it has no name.

        Empty where the images were not made from photos.
        """
        if self._extracted is None:
            return ()
        *folders, _ = self._ids[image_index].split("/")
        if not folders and self._folders is not None:
            folders = self._folders[image_index].split("/")
        return (self._extracted, *filter(None, folders))


def storable_folder(folder: str) -> str:
    """A photo's folder as a store keeps it: nothing in place of a name that no line can hold."""
    return folder if one_line(folder) else ""


def named_paths(paths: Sequence[Path]) -> str:
    """What photos were extracted from, as `store.json` has it: a path, or the first and the last of several."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]}{_BETWEEN}{paths[-1]}"


def extracted_folder(named: str) -> str:
    """The name of the folder that was extracted, as it was given, of what `named_paths` says.

    "" where several were, or it is not known.
    """
    first, *others = named.split(_BETWEEN)
    path = PurePath(first)
    return path.parent.name if is_photo_name(first) else "" if others or path.name == ".." else path.name
