"""tar: shards of WebDataset, with photos and their captions as members of a key."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionFormat, CaptionOptions
from xgpt_fairseq.captions.folder import OF_PHONES, TEXTS, files_alone, split_of_file, split_of_path
from xgpt_fairseq.captions.json_values import image_id_of
from xgpt_fairseq.captions.photo_texts import (
    agreed_captions,
    check_text_size,
    count_lines,
    json_captions,
    lines_of,
    other_keys,
)
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.tar_members import TarMember, is_tar, read_member, tar_members
from xgpt_fairseq.regions.image_ids import is_photo_name


def recognise(file: CaptionFile) -> bool:
    """Whether it begins like a tar; a compressed one, too, since `read` says what to do about it. Or a folder has tars,
    and no photos.
    """
    return is_tar(file.path) or any(map(is_tar, files_alone(file.path, ".tar")))


def read(file: CaptionFile, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """`KEY.jpg` or any other photo, with its captions in `KEY.txt`, `KEY.caption` or `KEY.json`, as img2dataset writes.

    A folder in the tar called train, val, validation or test says the split. A photo is named by its member, the tar
    and the tar's folder: other tars often have the same keys, and `train` and `val` the same names of tars.

    Raises:
        DataError: there is no captioned photo in the tar, or in any tar of the folder; records that cannot be read.
    """
    if not file.path.is_dir():
        yield from _read(file.path, options)
        return
    tars = 0
    without: list[_NoCaption] = []
    for path in files_alone(file.path, ".tar"):
        tars += 1
        split = split_of_file(file.path, path)
        try:
            for image in _read(path, replace(options, columns_of_others=True)):  # tars may differ
                yield image if image.split else replace(image, split=split)
        except _NoCaption as error:  # such as the last of a download, or one of which all URLs were dead
            without.append(error)
    if without and len(without) == tars:
        raise without[0]
    if without:
        options.log.count("tars without a captioned photo", len(without))


class _NoCaption(DataError):
    """No photo in a tar has a caption, or there is none."""


def _read(path: Path, options: CaptionOptions) -> Iterator[CaptionedImage]:
    """The captioned images in a tar.

    Raises:
        _NoCaption: there are none.
    """
    photos, texts = _members(path)
    names = [text.name for of_stem in texts.values() for text in of_stem]
    counts = "caption" in options.columns and not options.columns_of_others
    if counts and names and not any(map(_is_json, names)):
        raise DataError(
            f"{path}: --columns caption=… chooses a key of photos' .json; it has none, but texts, such as {names[0]}"
        )
    keys = Counter(_key(photo.name) for photo in photos)
    used: dict[str, str] = {}
    without_caption = 0
    without_key: TarMember | None = None
    for photo in photos:
        mine = [*texts.get(_stem(photo.name), ()), *texts.get(photo.name, ())]
        if not mine and keys[_key(photo.name)] == 1:
            mine = texts.get(_key(photo.name), [])
        mine = mine or texts.get(f"{photo.name}{OF_PHONES}", [])
        try:
            for text in mine:
                if used.setdefault(text.name, photo.name) != photo.name:
                    raise DataError(f"{path}: is {text.name} the caption of {used[text.name]} or of {photo.name}?")
            image = _read_image(path, photo.name, mine, options)
        except DataError as error:
            options.log.bad_record(error)
            continue
        if image is None:
            without_caption += 1
            without_key = without_key or next(iter(mine), None)
        else:
            yield image
    if without_caption:
        options.log.count("photos in tars without a caption", without_caption)
    if unused := sum(map(len, texts.values())) - len(used):
        options.log.count("texts in tars without a photo", unused)
    if without_caption == len(photos):
        raise _NoCaption(
            f"{path}: no photo in it has a .txt, .caption or .json of its key"
            + ("" if without_key is None else other_keys(*_content(path, without_key), options.columns))
        )


def _members(path: Path) -> tuple[list[TarMember], dict[str, list[TarMember]]]:
    """The photos in a tar; and the texts by what is in front of their extension."""
    photos: list[TarMember] = []
    texts: dict[str, list[TarMember]] = defaultdict(list)
    for member in tar_members(path):
        if member.is_hidden:
            continue
        if is_photo_name(member.name):
            photos.append(member)
        elif member.name.lower().endswith((*TEXTS, ".json")):
            texts[_stem(member.name)].append(member)
    return photos, texts


def _stem(name: str) -> str:
    """What is in front of the last extension."""
    return str(PurePosixPath(name).with_suffix(""))


def _key(name: str) -> str:
    """WebDataset's key of a member: what is in front of the first dot behind its folders."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.split('.')[0]}"


def _read_image(tar: Path, photo: str, texts: list[TarMember], options: CaptionOptions) -> CaptionedImage | None:
    """The image of a photo; None if it has no caption."""
    where = f"{tar}/{photo}"
    found = [(text.name, caption) for text in texts for caption in _read_captions(tar, text, options.columns)]
    if not found:
        return None
    file_name = "/".join(filter(None, (tar.absolute().parent.name, tar.name, photo)))
    image_id = image_id_of(str(tar), "member", file_name)
    captions = agreed_captions(where, found)
    if not any(_is_json(text.name) for text in texts):
        count_lines(options.log, len(captions))
    said = [Caption(number, text) for number, text in enumerate(captions)]
    return CaptionedImage(image_id, split_of_path(PurePosixPath(photo)), said, file_name)


def _read_captions(tar: Path, text: TarMember, columns: Mapping[str, str]) -> list[list[str]]:
    """The captions that a text has, each time as a list of all of them."""
    where, content = _content(tar, text)
    return json_captions(where, content, columns) if _is_json(text.name) else [lines_of(where, content)]


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _content(tar: Path, text: TarMember) -> tuple[str, bytes]:
    """Where a text is, for messages, and what is in it."""
    where = f"{tar}/{text.name}"
    if text.reason:
        raise DataError(f"{where}: {text.reason}")
    check_text_size(where, text.size)
    return where, read_member(tar, text)


TAR = CaptionFormat(
    "tar",
    "tars of WebDataset and img2dataset: KEY.jpg, KEY.txt, KEY.json",
    recognise,
    read,
    columns=("caption",),
)
