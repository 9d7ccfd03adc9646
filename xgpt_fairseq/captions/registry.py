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
    Origin,
    ReadingLog,
)
from xgpt_fairseq.captions.coco import COCO
from xgpt_fairseq.captions.columns import choose_columns
from xgpt_fairseq.captions.conceptual_captions import CC_TSV
from xgpt_fairseq.captions.conversations import CONVERSATIONS
from xgpt_fairseq.captions.flickr30k_token import FLICKR30K_TOKEN
from xgpt_fairseq.captions.folder import FOLDER
from xgpt_fairseq.captions.hold_out import hash_split
from xgpt_fairseq.captions.json_values import image_listed_twice, is_unicode
from xgpt_fairseq.captions.karpathy import KARPATHY
from xgpt_fairseq.captions.names import JSON_NAMES
from xgpt_fairseq.captions.records import JSON_RECORDS, JSONL
from xgpt_fairseq.captions.split_names import check_split, split_in_name, split_of_folder
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
    """Read several files like `read_captions`. Ids may count anew in each file, and `1.jpg` be another photo's name.

    Raises:
        DataError: as for `read_captions`.
    """
    for source in sources:
        path = source.file.path
        seen: set[str] = set()
        splits = _Splits(source, options)
        for image in source.format.read(source.file, options):
            if not image.image_id:
                options.log.bad_record(
                    DataError(f"{path}: an image has an empty name (its file is {image.shown!r:.60})")
                )
                continue
            if image.image_id in seen:
                raise image_listed_twice(path, image.shown)
            seen.add(image.image_id)
            image.captions = _checked_captions(path, image, options.log, keeps_entities=source.format.keeps_entities)
            said = splits.said_of(image)
            image.split, image.origin = splits.split_of(image, said), splits.origin(said)
            yield image


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
        self._usable: set[str] = set()  # the names of splits that were checked
        self._folder = path.resolve() if path.is_dir() else path.resolve().parent
        self._by_file, self._by_folder = split_in_name(path.name), split_of_folder(path.resolve().parent.name)
        if options.is_only_source and path.is_dir():  # a user's own folder, such as "Val Gardena 2019"
            self._by_file, self._by_folder = "", split_of_folder(path.resolve().name)
        if not options.folder_says_split:
            self._by_folder = ""
        self._names: _Names | None = None
        if options.hold_out:
            self._by_folder = "" if options.is_only_source else self._by_folder
            self._names = _Names(source, options)
            if self._named is None and options.split_lists is None:
                self._names.count_other_splits(options.log)
        self._origins: dict[str, Origin] = {}

    def said_of(self, image: CaptionedImage) -> str:
        """The split that is said of *image*, before any is held out; empty if nothing says it.

        Raises:
            DataError: what says it disagrees, or it is no name (see `check_split`).
        """
        lists = self._options.split_lists
        listed = lists.split_of(image) if lists is not None else None
        different = {image.split, self._named or "", listed or ""}
        different.discard("")
        if len(different) > 1:
            said = {"its record": image.split, "SPLIT=FILE": self._named, "--split-files": listed}
            ways = ", ".join(f"{split!r} by {way}" for way, split in said.items() if split)
            raise DataError(f"{self._path}: image {image.image_id} is of split {ways}; these must agree")
        if different:
            split = different.pop()
            if split not in self._usable:
                check_split(f"{self._path}: image {image.shown}", split)
                self._usable.add(split)
            return split
        return UNLISTED if lists is not None else self._by_file or self._by_folder

    def split_of(self, image: CaptionedImage, said: str) -> str:
        """The split of *image*, of which *said* is said: that, or what it is held out for.

        Raises:
            DataError: nothing says it, or it is of one that others are held out for.
        """
        shares = self._options.hold_out
        if said in ("train", "") and self._names is not None:
            return hash_split(self._names.key(image), shares)
        if said in shares:
            already = f"{self._path}: image {image.image_id} is of split {said!r} already"
            raise DataError(f"{already}, by {self._what_says(image)}: leave it out of --hold-out")
        if not said and self._options.unknown_split is None:
            raise DataError(
                f"{self._path}: of which split is image {image.image_id}? Neither its record nor the names of file and "
                f"folder say it: hold images out by --hold-out val=0.1,test=0.1, name the file as SPLIT=FILE (such as "
                f"train={self._path}), or name the images of each split by --split-files"
            )
        return said or self._options.unknown_split or ""

    def _what_says(self, image: CaptionedImage) -> str:
        """What says the split of *image*, for messages."""
        if image.split or self._named is not None or self._options.split_lists is not None:
            return "its record" if image.split else "--split-files" if self._named is None else "SPLIT=FILE"
        named = "file" if self._by_file else f"folder {self._folder}"
        return f"the name of the {named} (train={self._path} in its place says that they are training images)"

    def origin(self, said: str) -> Origin:
        """Where images come from of which the split *said* is said."""
        if said not in self._origins:
            self._origins[said] = Origin(self._path, self._folder.as_posix(), said)
        return self._origins[said]


class _Names:
    """The names by which images of a source are held out.

    That is the name without folders; where images in different folders share it (a/1.jpg, b/1.jpg), with the last
    folder or, if that does not tell them apart, with all: else all photos called 1.jpg would be of one split.

    Args:
        source: is read once.
        options: how it is read.
    """

    def __init__(self, source: CaptionSource, options: CaptionOptions) -> None:
        self._path = source.file.path
        first: dict[str, str] = {}
        shared: dict[str, set[str]] = {}
        self._unsaid: dict[str, str] = {}  # folder → an image of it, where records say no split
        for image in source.format.read(source.file, replace(options, log=ReadingLog(options.log.skip_bad))):
            name, whole = image.key, self._whole(image)
            if first.setdefault(name, whole) != whole:
                shared.setdefault(name, {first[name]}).add(whole)
            if not image.split:
                self._unsaid.setdefault(whole.rpartition("/")[0], image.shown)
        self._parts = {
            name: 2 if len({_last_parts(whole, 2) for whole in names}) == len(names) else 0
            for name, names in shared.items()
        }

    def key(self, image: CaptionedImage) -> str:
        """What is hashed."""
        return _last_parts(self._whole(image), self._parts[image.key]) if image.key in self._parts else image.key

    def count_other_splits(self, log: ReadingLog) -> None:
        """Count folders of training images that are called like different splits, which nothing says of the images."""
        splits = {folder: {split_of_folder(part) for part in folder.split("/")} for folder in self._unsaid}
        others = [folder for folder, said in splits.items() if said - {"", "train"}]
        if others and len(set().union(*splits.values()) - {""}) > 1:
            log.count(
                f"folders of images of {self._path} are called like a split (the first has {self._unsaid[others[0]]}), "
                "which --hold-out does not mind: say the splits in a column 'split', or by --split-files",
                len(others),
            )

    @staticmethod
    def _whole(image: CaptionedImage) -> str:
        return canonical_image_id(image.file_name) if image.file_name is not None else image.image_id


def _last_parts(name: str, count: int) -> str:
    """The last *count* parts of a path; 0: all."""
    return "/".join(name.split("/")[-count:])


def _checked_captions(path: Path, image: CaptionedImage, log: ReadingLog, *, keeps_entities: bool) -> list[Caption]:
    """The captions of *image* that are not blank, and can be read."""
    for caption in image.captions:
        if not _is_plain(caption.text):
            break
    else:
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
