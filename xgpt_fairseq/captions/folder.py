"""folder: photos, each with a text file of its name beside it."""

from __future__ import annotations

import html
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NoReturn

from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    image_id_of,
    split_of_folder,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import walk
from xgpt_fairseq.regions.image_ids import is_photo_name

TEXTS = (".txt", ".caption")
# Where Hugging Face's imagefolder has captions
METADATA = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True)
class _Photo:
    """The name of a photo in its folder, and those of the texts beside it."""

    name: str
    texts: list[str]


def recognise(file: CaptionFile) -> bool:
    """Whether it is a folder with a text beside a photo; or with imagefolder's captions, to which `read` points."""
    if not file.path.is_dir():
        return False
    try:
        return any(_pairs(folder, names)[0] for folder, names in _folders(file.path)) or bool(_metadata(file.path))
    except DataError:
        return True  # `read` says what is wrong


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """`NAME.txt` or `NAME.caption` beside a photo `NAME.jpg` or any other, at any depth: its whole text is a caption.

    A folder called train, val, validation or test says the split of what is in it. The name of a photo's file begins
    with that of the source's folder: `train` and `val` often have photos of the same names.
    """
    captioned = False
    name = file.path.resolve().name
    for folder, names in _folders(file.path):
        photos, without_text, without_photo = _pairs(folder, names)
        for photo in photos:
            captioned = True
            path = folder / photo.name
            try:
                image = _read_image(file.path, name, path, [folder / text for text in photo.texts])
            except DataError as error:
                options.log.bad_record(error)
                continue
            yield image
        for what, count in (("photos without a text", without_text), ("texts without a photo", without_photo)):
            if count:
                options.log.count(f"{what} beside them in {file.path}", count)
    if not captioned:
        found = _metadata(file.path)
        hint = f"; its captions are in {' and '.join(map(str, found))}: name {'that' if len(found) == 1 else 'those'}"
        raise DataError(f"{file.path}: no photo has a .txt or .caption of its name beside it{hint if found else ''}")


def agreed_captions(where: str, found: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The captions that all of *found* agree in, with single blanks; blank ones do not count.

    Args:
        where: the photo, for messages.
        found: (where they stand, captions), at least one.

    Raises:
        DataError: they differ.
    """
    captions = {tuple(" ".join(as_text(text).split()) for text in texts): place for place, texts in found}
    said = {texts: place for texts, place in captions.items() if any(texts)} or captions
    if len(said) > 1:
        (one, place), (other, another), *_ = said.items()
        raise DataError(
            f"{where} has different captions: {' '.join(one)[:60]!r} in {place}, {' '.join(other)[:60]!r} in {another}"
        )
    return list(next(iter(said)))


def as_text(text: str) -> str:
    """*text* without the entities of HTML, such as `&amp;`, that captions from web pages have."""
    return html.unescape(text) if "&" in text else text


def decode(where: str, content: bytes) -> str:
    """UTF-8 as text. Raises DataError where it is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def split_of_path(path: PurePath) -> str:
    """The split that the folders of a relative *path* say; empty if none does.

    Raises:
        DataError: they say different ones.
    """
    splits = {split for folder in path.parts[:-1] if (split := split_of_folder(folder))}
    if len(splits) > 1:
        raise DataError(f"{path}: its folders say the splits {' and '.join(sorted(splits))}; one is possible")
    return splits.pop() if splits else ""


def _read_image(source: Path, name: str, photo: Path, files: list[Path]) -> CaptionedImage:
    relative = photo.relative_to(source)
    image_id = image_id_of(str(source), "file name", relative.as_posix())
    texts = agreed_captions(str(photo), [(text.name, [_read_text(text)]) for text in files])
    captions = [Caption(number, text) for number, text in enumerate(texts)]
    return CaptionedImage(image_id, split_of_path(relative), captions, f"{name}/{relative.as_posix()}")


def _read_text(path: Path) -> str:
    try:
        return decode(str(path), path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _pairs(folder: Path, names: Sequence[str]) -> tuple[list[_Photo], int, int]:
    """The photos of a folder that have texts; the numbers of other photos and of other texts.

    The text of `a.jpg` is `a.txt`, or `a.jpg.txt`.

    Raises:
        DataError: a text is that of two photos.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if PurePath(name).suffix.lower() in TEXTS:
            texts[PurePath(name).stem].append(name)
    if not texts:
        return [], sum(map(is_photo_name, names)), 0
    photos, without = [], 0
    owner: dict[str, str] = {}
    for name in filter(is_photo_name, names):
        mine = [*texts.get(PurePath(name).stem, ()), *texts.get(name, ())]
        for text in mine:
            if owner.setdefault(text, name) != name:
                raise DataError(f"{folder / text}: is it the caption of {owner[text]} or of {name}, both beside it?")
        if mine:
            photos.append(_Photo(name, mine))
        else:
            without += 1
    return photos, without, sum(map(len, texts.values())) - len(owner)


def _folders(source: Path) -> Iterator[tuple[Path, list[str]]]:
    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}")

    return walk(source, on_error=refuse)


def _metadata(source: Path) -> list[Path]:
    """The first files of imagefolder's captions in *source*."""
    found = (folder / name for folder, names in _folders(source) for name in names if name in METADATA)
    return list(itertools.islice(found, 3))


FOLDER = CaptionFormat("folder", "a folder of photos, each with NAME.txt or NAME.caption beside it", recognise, read)
