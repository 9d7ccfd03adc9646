"""The caption file formats, the detection of a file's format, and the checks that all formats share.

To add a format, write a module with a `CaptionFormat`, and add it to `FORMATS`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from xgpt_fairseq.captions.arrow import HF_DATASETS, PARQUET
from xgpt_fairseq.captions.base import (
    Caption,
    CaptionedImage,
    CaptionFile,
    CaptionFormat,
    CaptionOptions,
    ReadingLog,
    check_split,
    image_listed_twice,
    is_unicode,
    split_in_name,
    split_of_folder,
)
from xgpt_fairseq.captions.coco import COCO
from xgpt_fairseq.captions.columns import choose_columns
from xgpt_fairseq.captions.conceptual_captions import CC_TSV
from xgpt_fairseq.captions.conversations import CONVERSATIONS
from xgpt_fairseq.captions.flickr30k_token import FLICKR30K_TOKEN
from xgpt_fairseq.captions.folder import FOLDER
from xgpt_fairseq.captions.hold_out import hash_split
from xgpt_fairseq.captions.karpathy import KARPATHY
from xgpt_fairseq.captions.names import JSON_NAMES
from xgpt_fairseq.captions.records import JSON_RECORDS, JSONL
from xgpt_fairseq.captions.structure import structure_of
from xgpt_fairseq.captions.studies import STUDIES
from xgpt_fairseq.captions.tables import TABLE, what_is_missing
from xgpt_fairseq.captions.tar_shards import TAR
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id

FORMATS: dict[str, CaptionFormat] = {
    caption_format.name: caption_format
    for caption_format in (
        KARPATHY,
        COCO,
        FLICKR30K_TOKEN,
        CC_TSV,
        JSONL,
        FOLDER,
        TAR,
        TABLE,
        JSON_RECORDS,
        JSON_NAMES,
        CONVERSATIONS,
        STUDIES,
        PARQUET,
        HF_DATASETS,
    )
}

# Control characters that are no blanks or line breaks
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1b\x7f]")
# Categories of Unicode that show nothing: control and format characters, blanks and separators
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}

# The split of images that are in none of the lists of --split-files
UNLISTED = "(in no list)"


class CaptionSource(NamedTuple):
    """A caption file and its format."""

    file: CaptionFile
    format: CaptionFormat


def find_format(file: CaptionFile) -> CaptionFormat | None:
    """The format of a file, by its content; None if it is none.

    Raises:
        DataError: several fit.
    """
    fitting = [caption_format for caption_format in FORMATS.values() if caption_format.recognise(file)]
    if len(fitting) > 1:
        names = " and ".join(caption_format.name for caption_format in fitting)
        raise DataError(f"{file.path} can be read as {names}: say which by --format")
    return fitting[0] if fitting else None


def open_source(path: Path, name: str = "auto", columns: Mapping[str, str] | None = None) -> CaptionSource:
    """The caption file *path* with its format: *name*, or the detected one for `auto`.

    Args:
        path: the file.
        name: as `--format` takes it.
        columns: what --columns says.

    Raises:
        DataError: the file does not exist, or its format is unknown.
    """
    file = CaptionFile(path, columns)
    if name != "auto":
        return CaptionSource(file, FORMATS[name])
    if not path.exists():
        raise DataError(f"{path} does not exist")
    found = find_format(file)
    if found is None:
        texts = "; of texts whose photos lie elsewhere, name the folder that holds both" if path.is_dir() else ""
        reason = near_miss(file) or (
            f"({', '.join(FORMATS)}; --help describes them){_looks_like(file)}. Of a table whose columns have other "
            f"names, say which they are by --columns image=…,caption=…{texts}"
        )
        raise DataError(f"{path}: not a caption file of a known format {reason}")
    return CaptionSource(file, found)


def near_miss(file: CaptionFile) -> str | None:
    """What a file of no known format lacks for the one that it is most like, in brackets; None if it is like none."""
    lines = file.first_lines
    if file.path.is_file() and not lines:
        return "(it is empty)"
    if len(lines) == 1 and "\r" in lines[0]:
        return "(its lines end with \\r alone; they must end with \\n or \\r\\n)"
    structure = structure_of(file) or ""
    if structure.startswith("JSON"):
        records = file.json_value if file.json_value is not None else file.head_of_json_lines
        if not isinstance(records, list) or len(records) < 2 or not isinstance(records[0], dict):  # one may be anything
            return None
        try:
            choose_columns("its first record", list(records[0]), file.columns)
        except DataError as error:
            return f"({error})"
    is_table = structure.startswith("a table") or (bool(file.columns) and not structure)
    missing = what_is_missing(file) if is_table else None
    return f"({missing})" if missing else None


def _looks_like(file: CaptionFile) -> str:
    structure = structure_of(file)
    return f"; it looks like {structure}" if structure else ""


def read_captions(path: Path, name: str = "auto", options: CaptionOptions | None = None) -> Iterator[CaptionedImage]:
    """Read *path* in the format *name* (`auto`: look at the file), checking what holds for every format.

    An image is of the split that its record says, or that the file was named by (SPLIT=FILE), or in whose list it is
    (--split-files). Where none of them says it, it is `UNLISTED` if there are lists; else the file's name may tell, or
    the name of its folder, or it is training data, if --hold-out says what is not. Captions without a visible character
    are left out; entities of HTML such as `&amp;` become characters, but in published corpora.

    Raises:
        DataError: a caption that is not text or has control characters, an image that comes twice, a split that is said
            in different ways or in none.
    """
    options = options or CaptionOptions()
    return read_sources([open_source(path, name, options.columns)], options)


def read_sources(sources: Iterable[CaptionSource], options: CaptionOptions) -> Iterator[CaptionedImage]:
    """Read several files like `read_captions`. If photos have file names, ids may count anew in each file.

    Raises:
        DataError: as for `read_captions`, or an image is in more than one file.
    """
    source_of: dict[str, CaptionSource] = {}  # by the name of a photo's file if there is one, else by its id
    for source in sources:
        path = source.file.path
        seen: set[str] = set()
        splits = _Splits(source, options)
        for image in source.format.read(source.file, options):
            if image.image_id in seen:
                raise image_listed_twice(path, image.shown)
            photo = image.image_id if image.file_name is None else canonical_image_id(image.file_name)
            if (other := source_of.setdefault(photo, source)) is not source:
                raise DataError(f"image {photo} is in {path} and in {other.file.path}; it may be in one of them")
            seen.add(image.image_id)
            captions = _checked_captions(path, image, options.log, keeps_entities=source.format.keeps_entities)
            split = splits.split_of(image)
            if split == image.split and captions is image.captions:
                yield image
            else:
                yield CaptionedImage(image.image_id, split, captions, image.file_name)


class _Splits:
    """Finds the split of each image of a source.

    Args:
        source: the source, which is read once before if images are to be held out.
        options: what the command line says of splits.
    """

    def __init__(self, source: CaptionSource, options: CaptionOptions) -> None:
        self._path = path = source.file.path
        self._options = options
        self._named = options.named_splits.get(path)
        self._by_name = split_in_name(path.name) or split_of_folder(path.resolve().parent.name)
        self._shared = _shared_names(source, options) if options.hold_out else set()
        self._usable: set[str] = set()  # the names of splits that were checked

    def split_of(self, image: CaptionedImage) -> str:
        """The split of *image*.

        Raises:
            DataError: nothing says it, what says it disagrees, or it is no name (see `check_split`).
        """
        lists = self._options.split_lists
        listed = lists.split_of(image) if lists is not None else None
        different = {split for split in (image.split, self._named, listed) if split}
        if len(different) > 1:
            said = {"its record": image.split, "SPLIT=FILE": self._named, "--split-files": listed}
            ways = ", ".join(f"{split!r} by {way}" for way, split in said.items() if split)
            raise DataError(f"{self._path}: image {image.image_id} is of split {ways}; these must agree")
        if different:
            split = different.pop()
            if split not in self._usable:
                check_split(f"{self._path}: image {image.shown}", split)
                self._usable.add(split)
            return self._hold_out(split, image)
        if lists is not None:
            return UNLISTED
        split = self._by_name or ("train" if self._options.hold_out else "")
        if split:
            return self._hold_out(split, image)
        if self._options.unknown_split is None:
            raise DataError(
                f"{self._path}: of which split is image {image.image_id}? Neither its record nor the names of file and "
                f"folder say it: hold images out by --hold-out val=0.1,test=0.1, name the file as SPLIT=FILE (such as "
                f"train={self._path}), or name the images of each split by --split-files"
            )
        return self._options.unknown_split

    def _hold_out(self, split: str, image: CaptionedImage) -> str:
        """*split*, or of a training image the one that --hold-out takes it for."""
        shares = self._options.hold_out
        if not shares:
            return split
        if split == "train":
            name = image.key
            return hash_split(_whole_name(image) if name in self._shared else name, shares)
        if split in shares:
            raise DataError(
                f"{self._path}: image {image.image_id} is of split {split!r} already: leave it out of --hold-out"
            )
        return split


def _whole_name(image: CaptionedImage) -> str:
    return canonical_image_id(image.file_name or image.image_id)


def _shared_names(source: CaptionSource, options: CaptionOptions) -> set[str]:
    """The names, without folders, that images in different folders of the source share (a/1.jpg, b/1.jpg).

    If such images were held out by these names alone, all photos called 1.jpg would be of one split.
    """
    whole: dict[str, str] = {}
    shared = set()
    for image in source.format.read(source.file, replace(options, log=ReadingLog(options.log.skip_bad))):
        name = image.key
        if whole.setdefault(name, _whole_name(image)) != _whole_name(image):
            shared.add(name)
    return shared


def _checked_captions(path: Path, image: CaptionedImage, log: ReadingLog, *, keeps_entities: bool) -> list[Caption]:
    """The captions of *image* that are not blank, and can be read."""
    if all(_is_plain(caption.text) for caption in image.captions):
        return image.captions
    kept = []
    for caption in image.captions:
        try:
            text = _checked_text(f"{path}: image {image.shown}, caption {caption.caption_id}", caption.text)
        except DataError as error:
            log.bad_record(error)
            continue
        if "&" in text and not keeps_entities:
            text = html.unescape(text)
        if _is_blank(text):
            log.count("blank captions left out")
        else:
            kept.append(Caption(caption.caption_id, text))
    return kept


def _is_plain(text: object) -> bool:
    """Whether *text*, as most are, is beyond doubt: this is asked of millions."""
    return isinstance(text, str) and text.isprintable() and "&" not in text and bool(text) and not text.isspace()


def _checked_text(where: str, text: object) -> str:
    if not isinstance(text, str):
        raise DataError(f"{where} must be text, found {text!r:.60}")
    if not is_unicode(text):
        raise DataError(f"{where} is not Unicode text: {text!r:.60}")
    found = _CONTROL.search(text)
    if found is not None and not _is_blank(text):
        raise DataError(f"{where} has a control character, {found[0]!r}: {text!r:.60}")
    return text


def _is_blank(text: str) -> bool:
    return all(unicodedata.category(character) in _INVISIBLE for character in text)
