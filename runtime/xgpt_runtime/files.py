"""Photos found in folders and tars, and named: as `xgpt_fairseq.vision.photo_files` and `regions.image_ids` do it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from xgpt_runtime.errors import DataError
from xgpt_runtime.photos import PhotoError, is_photo
from xgpt_runtime.tars import DamagedTarError, check_not_compressed, has_compressed_tar_name, read_member, tar_members

# Of all formats that are read as photos (`vision.photo_formats.FORMATS`).
_PHOTO_EXTENSIONS = (
    "jpe?g|jpe|jfif|mpo|a?png|gif|bmp|dib|webp|tiff?|p[bfgnp]m|jp2|j2k|jpf|jpx|j2c|jpc|avifs?|hei[cf]s?|hif"
)
_PHOTO = re.compile(rf".\.({_PHOTO_EXTENSIONS})$", re.IGNORECASE)
_EXTENSION = re.compile(rf"\.({_PHOTO_EXTENSIONS}|npz|npy)$", re.IGNORECASE)
# The most bytes of a file, which some formats' readers take into memory: as `xgpt_fairseq.vision.photos`.
LARGEST_FILE = 1 << 30
_MOST_DIGITS = 1000  # Python reads no integers of more than 4300
_COCO_PREFIX = re.compile(r"^COCO_(train|val|test)\d{4}_(?=\d+$)")

# What would end a field of a line, or the line, or speak to a terminal; and what escapes it.
_ESCAPES = {ord(char): char.encode("unicode_escape").decode() for char in map(chr, [*range(32), 92, *range(127, 160)])}
_ESCAPES |= {ord(char): char.encode("unicode_escape").decode() for char in "\u2028\u2029"}


def as_field(text: str) -> str:
    r"""*text*, such as a file's name, as a field of a line: a tab is `\t`, a line break `\n`, a backslash `\\`."""
    return text.translate(_ESCAPES)


@dataclass(frozen=True)
class PhotoFile:
    """A file that was found, maybe a photo.

    Attributes:
        path: of the file; in a tar, the tar's and the member's.
        image_id: its name without extension, with folders if it is shared.
        tar, offset, size: where it is in a tar.
        reason: why it cannot be read, where that is known already.
    """

    path: Path
    image_id: str = ""
    tar: Path | None = None
    offset: int = 0
    size: int = 0
    reason: str = ""

    def content(self) -> Path | bytes:
        """What is read: the file itself, or its bytes in the tar.

        Raises:
            PhotoError: it cannot be read, or has more than `LARGEST_FILE` bytes.
            DataError: the tar was cut since the photo was found in it.
        """
        if self.reason:
            raise PhotoError(self.path, self.reason)
        size = self.size
        if self.tar is None:
            size = self.path.stat().st_size if is_file(self.path) else 0  # what is no file is refused later
        if size > LARGEST_FILE:
            raise PhotoError(self.path, f"the file has {size:,} bytes; of a photo at most {LARGEST_FILE:,} are read")
        return self.path if self.tar is None else read_member(self.tar, self.offset, self.size)

    def as_json(self) -> list[str | int | None]:
        """The same, as `of_json` takes it."""
        tar = None if self.tar is None else str(self.tar)
        return [str(self.path), self.image_id, tar, self.offset, self.size, self.reason]

    @classmethod
    def of_json(cls, value: Sequence[Any]) -> PhotoFile:
        """What `as_json` has written."""
        path, image_id, tar, *place = value
        return cls(Path(path), image_id, None if tar is None else Path(tar), *place)


def find_photos(paths: Sequence[Path]) -> list[PhotoFile]:
    """The files that *paths* name, in that order; of folders all files in them and below, sorted; of tars their photos.

    What lies in a folder is not looked at, but names that begin with a dot are passed over. A file that is named more
    than once is there once. A path that does not exist, and a folder that cannot be listed, is in the result, too:
    reading it will say so. So is a tar without photos; and a tar that is cut, behind its photos.

    Raises:
        DataError: a tar is compressed.
    """
    files: dict[str, Path] = {}
    folders: list[str] = []
    for path in paths:
        is_folder = _is_folder(path)
        folders.append(_absolute(path if is_folder else path.absolute().parent))
        for file in _files_below(path) if is_folder else [path]:
            files.setdefault(_absolute(file), file)
    if not files:
        return []
    root = _common(folders)
    found: list[PhotoFile] = []
    relative: list[str] = []
    for whole, file in files.items():
        below = os.path.relpath(file, root) if root else whole
        for photo in _photos_in(file):
            found.append(photo)
            inside = (
                below if photo.tar is None else (Path(below).parent / photo.path.relative_to(file.parent)).as_posix()
            )
            relative.append(inside)
    return _named(found, relative)


def _common(folders: Sequence[str]) -> str:
    """The deepest folder that all *folders* are in; empty where there is none, as on two drives of Windows."""
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def is_file(path: Path) -> bool:
    """Whether *path* is a file; a name that is too long, or in a folder that may not be entered, is none."""
    return os.path.isfile(path)  # noqa: PTH113  (`Path.is_file` raises there, up to Python 3.13)


def _photos_in(file: Path) -> Iterator[PhotoFile]:
    """*file* itself or, of a tar, its members that are named as photos."""
    if has_compressed_tar_name(file) and is_file(file):
        with open(file, "rb") as content:
            check_not_compressed(file, content)
    if file.suffix.lower() != ".tar" or not is_file(file):
        yield PhotoFile(file)
        return
    number = 0
    try:
        for member in tar_members(file):
            if is_photo_name(member.name) and not member.is_hidden:
                number += 1
                cut = f"cut within {member.name}" if member.offset + member.size > file.stat().st_size else ""
                yield PhotoFile(
                    file / member.name,
                    tar=file,
                    offset=member.offset,
                    size=member.size,
                    reason=member.reason or cut,
                )
    except DamagedTarError as error:
        yield PhotoFile(file, reason=f"{error.reason} ({number} photos before that)")
    else:
        if not number:
            yield PhotoFile(file, reason="a tar without members that are named as photos, .jpg or another")


def _named(files: Sequence[PhotoFile], relative: Sequence[str]) -> list[PhotoFile]:
    """*files* with the shortest ids that keep them apart; *relative* are their whole names.

    A file of another kind beside a photo, such as its features, takes no name away from it.
    """
    last_parts = [name_parts(file.path.name)[-1] for file in files]
    times = Counter(last_parts)
    counted = [
        times[last] > 1 and (is_photo_name(file.path.name) or _is_photo(file))
        for file, last in zip(files, last_parts, strict=True)
    ]
    ids = shortest_ids(name for name, counts in zip(relative, counted, strict=True) if counts)
    return [
        replace(file, image_id=next(ids) if counts else canonical_image_id(file.path.name))
        for file, counts in zip(files, counted, strict=True)
    ]


def check_ids(photos: Iterable[PhotoFile]) -> None:
    """Raises DataError where two photos have one image id. Files that are no photos may share it."""
    by_id: dict[str, list[PhotoFile]] = defaultdict(list)
    for photo in photos:
        by_id[photo.image_id].append(photo)
    for image_id, files in by_id.items():
        same = [file.path for file in files if _is_photo(file)] if len(files) > 1 else []
        if len(same) > 1:
            raise DataError(
                f"{same[0]} and {same[1]} are both image {image_id}: an image id must be unique. It is the file's name "
                "without extension, with its folders where photos of several folders share it; COCO's long names and "
                "the bare number are one id"
            )


def _is_photo(file: PhotoFile) -> bool:
    """Whether *file* begins like a photo; one that is too large, such as a video, is none."""
    try:
        return is_photo(file.content())
    except PhotoError:
        return False


def _files_below(folder: Path) -> list[Path]:
    files: list[Path] = []

    def cannot_list(error: OSError) -> None:
        files.append(Path(error.filename))

    for parent, names in walk(folder, on_error=cannot_list):
        files += [parent / name for name in names]
    return sorted(files)


def walk(folder: Path, *, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """The folders in *folder* and below, itself first, each with the sorted names of its files.

    Names that begin with a dot are passed over. Links are followed, but no folder comes twice.

    Args:
        on_error: is told of a folder that cannot be listed.
    """
    seen: set[tuple[int, int]] = set()  # since links may lead round in a circle
    for parent, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        place = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, sorted(name for name in names if not name.startswith("."))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a parent that may not be read
        return False


def _absolute(path: Path) -> str:
    """*path* from the root on, so that each file has one name; links are not followed, since theirs is another."""
    return os.path.normpath(path.absolute())


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


def is_photo_name(name: str) -> bool:
    """Whether a file name has a photo's extension, one that `canonical_image_id` removes."""
    return _PHOTO.search(name) is not None


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
