"""folder: photos, each with a text file of its name beside it, or in a folder beside the photos' folder."""

from __future__ import annotations

import itertools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import NoReturn

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.json_values import image_id_of
from xgpt_fairseq.captions.photo_texts import (
    agreed_captions,
    check_text_size,
    count_lines,
    json_captions,
    lines_of,
    other_keys,
)
from xgpt_fairseq.captions.split_names import split_in_name, split_of_folder
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.folders import walk
from xgpt_fairseq.regions.image_ids import is_photo_name

TEXTS = (".txt", ".caption")
# What Google's Takeout has between a photo's name and .json
OF_PHONES = ".supplemental-metadata"
# Where Hugging Face's imagefolder has captions
METADATA = ("metadata.jsonl", "metadata.csv")

# The files of a region store, a vocabulary or a data directory, which are no captions
OWN = ({"store.json", "ids.npy"}, {"dict.txt", "vocabulary.json"}, {"dict.txt", "dataset.json"})
UNREADABLE = ".unreadable.txt"


@dataclass(frozen=True)
class _Place:
    """A folder: its path below the source, in parts; the photos in it; stem → texts, and files of JSON."""

    parts: tuple[str, ...]
    photos: list[str] = field(default_factory=list)
    texts: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    metadata: list[Path] = field(default_factory=list)

    @cached_property
    def folded(self) -> dict[str, Path]:
        """Stem without case → text, of those that are of no photo here."""
        stems = {_normal(PurePath(photo).stem) for photo in self.photos}
        return {stem.casefold(): texts[0] for stem, texts in self.texts.items() if stem not in stems}


@dataclass
class _Listing:
    """What lies in a source.

    Attributes:
        photos: those that have texts: their paths below the source, and the texts.
        bare: how many others there are.
        unused: how many texts are of no photo.
        errors: what is wrong with photos that are in neither.
        metadata: files of imagefolder's captions.
    """

    photos: list[tuple[PurePath, list[Path]]] = field(default_factory=list)
    bare: int = 0
    unused: int = 0
    errors: list[DataError] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)


def recognise(file: CaptionFile) -> bool:
    """Whether it is a folder with a text of a photo; or with imagefolder's captions, to which `read` points."""
    if not file.path.is_dir():
        return False
    try:
        if any(_texts_beside(place, name) for place in _places(file.path) for name in place.photos):
            return True
        found = _list(file.path)
    except DataError:
        return True  # `read` says what is wrong
    return bool(found.photos or found.errors or found.metadata)


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """`NAME.txt`, `NAME.caption` or `NAME.json` of a photo `NAME.jpg` or any other, at any depth.

    It lies beside the photo; or in a folder of texts beside the folder of photos, at the same place below it
    (`images/a/1.jpg`, `captions/a/1.txt`). Each line of a text is a caption. JSON is looked at if there is no text. A
    folder called train, val, validation or test says the split of what is in it. The name of a photo's file begins
    with that of the source's folder: `train` and `val` often have photos of the same names.
    """
    source, found = file.path, _list(file.path)
    if found.photos and found.metadata:
        raise DataError(
            f"{source} has captions in {found.metadata[0]}, and {found.photos[0][1][0]} beside a photo: name the first "
            "for its captions, or move it elsewhere for those of the texts"
        )
    counts = "caption" in options.columns and not options.columns_of_others
    if counts and found.photos and not any(_is_json(texts[0]) for _, texts in found.photos):
        raise DataError(
            f"{source}: --columns caption=… chooses a key of photos' .json, and all captions are in texts, such as "
            f"{found.photos[0][1][0]}"
        )
    for error in found.errors:
        options.log.bad_record(error)
    captioned, without = len(found.errors), []
    for photo, texts in found.photos:
        try:
            image = _read_image(source, photo, texts, options)
        except DataError as error:
            options.log.bad_record(error)
            captioned += 1
            continue
        if image is None:
            without.append(texts[0])
        else:
            captioned += 1
            yield image
    if not captioned:
        hint = _without_key(without[0], options.columns) if without else ""
        if found.metadata:
            which = "that" if len(found.metadata) == 1 else "those"
            hint = f"; its captions are in {' and '.join(map(str, found.metadata[:3]))}: name {which}"
        raise DataError(f"{source}: no photo has a .txt or .caption of its name beside it{hint}")
    for what, count in (
        ("photos without a text", found.bare + len(without)),
        ("texts without a photo", found.unused),
    ):
        if count:
            options.log.count(f"{what} in {source}", count)


def split_of_path(path: PurePath) -> str:
    """The split that the folders of a relative *path* say; empty if none does.

    Raises:
        DataError: they say different ones.
    """
    splits = {split for folder in path.parts[:-1] if (split := split_of_folder(folder))}
    if len(splits) > 1:
        raise DataError(f"{path}: its folders say the splits {' and '.join(sorted(splits))}; one is possible")
    return splits.pop() if splits else ""


def files_alone(source: Path, suffix: str) -> list[Path]:
    """The files with *suffix* in the folder *source* and below; none if there is a photo among them."""
    found: list[Path] = []
    for folder, names in walk(source, on_error=lambda _: None) if source.is_dir() else ():
        if any(map(is_photo_name, names)):
            return []
        found += [folder / name for name in names if name.lower().endswith(suffix)]
    return found


def split_of_file(source: Path, path: Path) -> str:
    """The split that the name of a file in the folder *source* says, or else its folders; empty if none does."""
    return split_in_name(path.name) or split_of_path(path.relative_to(source))


def _read_image(source: Path, photo: PurePath, texts: list[Path], options: CaptionOptions) -> CaptionedImage | None:
    """The image of a photo; None if its .json has no caption."""
    found = [(text.name, captions) for text in texts for captions in _read_text(text, options.columns)]
    if not found:
        return None
    image_id = image_id_of(str(source), "file name", photo.as_posix())
    captions = agreed_captions(str(source / photo), found)
    if not _is_json(texts[0]):
        count_lines(options.log, len(captions))
    said = [Caption(number, text) for number, text in enumerate(captions)]
    return CaptionedImage(image_id, split_of_path(photo), said, f"{source.resolve().name}/{photo.as_posix()}")


def _read_text(path: Path, columns: Mapping[str, str]) -> list[list[str]]:
    """The captions that a text has, each time as a list of all of them."""
    content = _content(path)
    if _is_json(path):
        return json_captions(str(path), content, columns)
    return [lines_of(str(path), content)]


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _without_key(path: Path, columns: Mapping[str, str]) -> str:
    return other_keys(str(path), _content(path), columns)


def _content(path: Path) -> bytes:
    try:
        check_text_size(path, path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _list(source: Path) -> _Listing:
    """Find the texts of all photos in *source*.

    Raises:
        DataError: a folder cannot be listed, or a text is that of two photos.
    """
    listing = _Listing()
    places = list(_places(source))
    trees = _Trees(places)
    owner: dict[Path, PurePath] = {}
    for place in places:
        listing.metadata += place.metadata
        for name in place.photos:
            photo = PurePath(*place.parts, name)
            try:
                mine = _texts_beside(place, name) or trees.texts(place, name) or _unlike(place, name)
                mine = mine or _whole_name(place, name)
            except DataError as error:
                listing.errors.append(error)
                continue
            for text in mine:
                if owner.setdefault(text, photo) != photo:
                    raise DataError(f"{text}: is it the caption of {owner[text]} or of {photo}?")
            if mine:
                listing.photos.append((photo, mine))
            else:
                listing.bare += 1
    texts = itertools.chain.from_iterable(each for place in places for each in place.texts.values())
    listing.unused = sum(text not in owner for text in texts)
    return listing


def _places(source: Path) -> Iterator[_Place]:
    """The folders in *source*, but those that the programs write.

    Raises:
        DataError: one cannot be listed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename} cannot be listed: {error.strerror}")

    for folder, names in walk(source, on_error=refuse):
        if any(own.issubset(names) for own in OWN):
            continue
        place = _Place(folder.relative_to(source).parts)
        for name in names:
            suffix = PurePath(name).suffix.lower()
            if is_photo_name(name):
                place.photos.append(name)
            elif name in METADATA:
                place.metadata.append(folder / name)
            elif suffix in TEXTS and not _lists_unreadable(folder, name):
                place.texts[_normal(PurePath(name).stem)].append(folder / name)
            elif suffix == ".json":
                place.objects[_normal(PurePath(name).stem)].append(folder / name)
        yield place


def _lists_unreadable(folder: Path, name: str) -> bool:
    """Whether a file is the list of what xgpt-extract-regions could not read, beside its store."""
    return name.endswith(UNREADABLE) and (folder / name.removesuffix(UNREADABLE) / "store.json").is_file()


def _texts_beside(place: _Place, name: str) -> list[Path]:
    """The texts of a photo in its folder: `a.txt` and `a.jpg.txt` of `a.jpg`, or else `a.json`."""
    return _texts_of(place, name) or place.objects.get(_normal(PurePath(name).stem), [])


def _whole_name(place: _Place, name: str) -> list[Path]:
    """`a.jpg.json` of `a.jpg`, or else `a.jpg.supplemental-metadata.json`: for photos that have no other text."""
    return next((of for each in (name, f"{name}{OF_PHONES}") if (of := place.objects.get(_normal(each)))), [])


def _texts_of(place: _Place, name: str) -> list[Path]:
    return [*place.texts.get(_normal(PurePath(name).stem), ()), *place.texts.get(_normal(name), ())]


def _unlike(place: _Place, name: str) -> list[Path]:
    """No text. Raises DataError where one beside a photo has its name but for case."""
    text = place.folded.get(_normal(PurePath(name).stem).casefold())
    if text is not None:
        raise DataError(f"{text}: is it the text of {name} beside it? Their names differ in case: rename one")
    return []


def _normal(name: str) -> str:
    """*name* in Unicode's normal form C: some systems write an accent by itself, and equal names are different then."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class _Trees:
    """Finds texts that lie in folders of their own.

    Those of the photos in `x/images/a` are in `x/captions/a`, if no photo in `x/images` and below has a text beside it,
    and there are no photos in `x/captions` and below.
    """

    def __init__(self, places: Sequence[_Place]) -> None:
        self._at = {place.parts: place for place in places}
        with_photos = _within(place for place in places if place.photos)
        self._with_pairs = _within(place for place in places if any(_texts_beside(place, n) for n in place.photos))
        self._names: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for *parent, name in sorted(_within(place for place in places if place.texts) - with_photos):
            self._names[tuple(parent)].append(name)

    def texts(self, place: _Place, name: str) -> list[Path]:
        """The texts of a photo of *place*; none if there are none.

        Raises:
            DataError: several folders have some.
        """
        found = [texts for other in self._beside(place.parts) if (texts := _texts_of(other, name))]
        if len(found) > 1:
            photo = "/".join((*place.parts, name))
            raise DataError(f"{photo}: its text may be {found[0][0]} or {found[1][0]}; leave one of them")
        return found[0] if found else []

    def _beside(self, parts: tuple[str, ...]) -> Iterator[_Place]:
        for depth in range(len(parts)):
            for name in () if parts[: depth + 1] in self._with_pairs else self._names.get(parts[:depth], ()):
                other = self._at.get((*parts[:depth], name, *parts[depth + 1 :]))
                if other is not None:
                    yield other


def _within(places: Iterable[_Place]) -> set[tuple[str, ...]]:
    """The folders that have one of *places* in them, or are one; but the source itself."""
    return {place.parts[:depth] for place in places for depth in range(1, len(place.parts) + 1)}


FOLDER = CaptionFormat(
    "folder",
    "photos, each with NAME.txt or NAME.caption beside it, or in a folder beside theirs",
    recognise,
    read,
    columns=("caption",),
)
