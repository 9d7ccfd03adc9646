"""One name for one image, whatever the archive or the caption file calls it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar
from urllib.parse import unquote

# Of all formats that are read as photos (`vision.photo_formats.FORMATS`).
_PHOTO_EXTENSIONS = (
    "jpe?g|jpe|jfif|mpo|a?png|gif|bmp|dib|webp|tiff?|p[bfgnp]m|jp2|j2k|jpf|jpx|j2c|jpc|avifs?|hei[cf]s?|hif"
)
_PHOTO = re.compile(rf".\.({_PHOTO_EXTENSIONS})$", re.IGNORECASE)
_EXTENSION = re.compile(rf"\.({_PHOTO_EXTENSIONS}|npz|npy)$", re.IGNORECASE)
_MOST_DIGITS = 1000  # Python reads no integers of more than 4300
_COCO_PREFIX = re.compile(r"^COCO_(train|val|test)\d{4}_(?=\d+$)")

T = TypeVar("T")


def canonical_image_id(name: str | int) -> str:
    """The image id that *name* stands for: a string, in Unicode's normal form C.

    COCO's long names and the bare number are one id, the number: `COCO_val2014_000000000042.jpg`,
    `000000000042.jpg`, `42` and the integer 42 all give `"42"`. Other names lose a file extension only. Folders stay,
    separated by `/`: `photos\\a\\001.jpg` is `"photos/a/1"`; of a URL, what is in front of `?` and `#` counts.
    """
    return "/".join(name_parts(name))


def name_parts(name: str | int) -> tuple[str, ...]:
    """The parts of a path to an image, the last one as an image id: `photos/a/001.jpg` is (photos, a, 1)."""
    text = str(name).strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "/" not in text and "\\" not in text:
        return (_last_part(text),)
    *folders, last = [part for part in re.split(r"[/\\]", path_of_url(text)) if part not in ("", ".")] or [""]
    return (*folders, _last_part(last.lstrip()))  # as of a name alone


def path_of_url(text: str) -> str:
    """A photo's URL without query and fragment, and with characters in place of `%20`; other text as it is."""
    if "://" not in text:
        return text
    path = unquote(re.split(r"[?#]", text, maxsplit=1)[0])
    return path if is_photo_name(path) else text


def _last_part(text: str) -> str:
    text = _EXTENSION.sub("", text)
    text = _COCO_PREFIX.sub("", text)
    return text.lstrip("0") or "0" if is_number(text) else text


def is_number(image_id: str) -> bool:
    """Whether an image id is a number, as in COCO and Flickr30k."""
    return image_id.isascii() and image_id.isdigit()


def json_image_id(image_id: str) -> int | str:
    """The image id as COCO's tools expect it in JSON: an integer if it is a number, of not too many digits."""
    return int(image_id) if is_number(image_id) and len(image_id) <= _MOST_DIGITS else image_id


def is_photo_name(name: str) -> bool:
    """Whether a file name has a photo's extension, one that `canonical_image_id` removes."""
    return _PHOTO.search(name) is not None


class NameIndex(Generic[T]):
    """Finds what belongs to an image by any of its names: names are compared from their end, folder by folder.

    `a/1.jpg`, `photos/a/1.png` and `1` may all mean the entry `a/1`, unless there is another one that fits as well or
    better. The most parts in common win, and the whole name before all.

    Args:
        entries: (image id, value); the ids as `canonical_image_id` makes them. They are not made again: `1.png`, the id
            of `1.png.jpg`, would become `1`.

    Attributes:
        folders: all folders in the ids, each name alone.
    """

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._alone: dict[str, T] = {}  # the ids without folders
        self._within: dict[str, list[tuple[tuple[str, ...], T]]] = {}  # by their last part
        self.folders: set[str] = set()
        for image_id, value in entries:
            if "/" not in image_id:
                self._alone.setdefault(image_id, value)
            else:
                parts = tuple(image_id.split("/"))
                self._within.setdefault(parts[-1], []).append((parts, value))
                self.folders.update(parts[:-1])

    def find(self, name: str | int) -> list[T]:
        """What fits *name*, in any spelling, best: nothing, one value or, where several fit equally well, all."""
        return self._find(name_parts(name))

    def find_id(self, image_id: str) -> list[T]:
        """What fits *image_id*, which `canonical_image_id` has made, best."""
        if not self._within and image_id in self._alone:  # most ids, at once
            return [self._alone[image_id]]
        return self._find(tuple(image_id.split("/")))

    def shares(self, image_id: str | None = None) -> bool:
        """Whether ids have folders, which they have where names are shared; or those of this name."""
        return bool(self._within) if image_id is None else image_id in self._within

    def _find(self, parts: tuple[str, ...]) -> list[T]:
        alone = self._alone.get(parts[-1])
        if not self._within:
            return [] if alone is None else [alone]
        fitting = [] if alone is None else [(1 if len(parts) > 1 else 2, alone)]  # the whole name, or its last part
        for other, value in self._within.get(parts[-1], ()):
            common = min(len(parts), len(other))
            if parts[-common:] == other[-common:]:
                fitting.append((common + (parts == other), value))
        most = max((common for common, _ in fitting), default=0)
        return [value for common, value in fitting if common == most]


def shortest_ids(paths: Iterable[str]) -> Iterator[str]:
    """An image id for each of *paths* (relative, with `/`): its file's name or, where others share it, the whole path.

    Only the photos of a shared name have folders in their ids.
    """
    parts = [name_parts(path) for path in paths]
    seen: set[str] = set()
    shared: set[str] = set()
    for each in parts:
        (shared if each[-1] in seen else seen).add(each[-1])
    for each in parts:
        yield "/".join(each) if each[-1] in shared else each[-1]
