"""Interface of the caption file formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from xgpt_fairseq.captions.json_values import begins_json, load_json, most, parsed
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.text_lines import first_lines
from xgpt_fairseq.regions.image_ids import NameIndex, name_parts

# What --columns can name.
COLUMNS = ("image", "caption", "split")


@dataclass(frozen=True)
class Caption:
    """One raw caption, with its number in the source."""

    caption_id: int
    text: str


class Origin(NamedTuple):
    """Where captions come from.

    Attributes:
        path: their file or folder.
        folder: the folder that *path* is or lies in, from the root on.
        split: what is said of their split, before images are held out; or an empty string.
    """

    path: Path
    folder: str
    split: str


@dataclass
class CaptionedImage:
    """What a source says of an image. Millions of them are made: they are not frozen, which would take twice as long.

    Attributes:
        image_id: by which the source knows the image (`canonical_image_id`): its id, or the name of its file.
        split: empty where the record does not say it; `read_captions` fills it in.
        captions: in their order.
        file_name: path of the photo, where the source has one: it counts before the id when photos are looked up.
        origin: where its captions come from; `read_captions` fills it in.
    """

    image_id: str
    split: str
    captions: list[Caption]
    file_name: str | None = None
    origin: Origin | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The image's name without folders: the same in every source that names its photo."""
        return name_parts(self.file_name or self.image_id)[-1]

    @property
    def shown(self) -> str:
        """The image's name for messages and lists: its id, or the name of its file where that says more."""
        if self.file_name is None or name_parts(self.file_name)[-1] == self.image_id:
            return self.image_id
        return self.file_name


class ReadingLog:
    """What readers leave out or mend, counted; and records that cannot be read.

    Args:
        skip_bad: how many such records may be left out (--skip-bad).

    Attributes:
        counts: what was left out or mended → how often.
        bad: the messages of records that were left out.
    """

    def __init__(self, skip_bad: int = 0) -> None:
        self.skip_bad = skip_bad
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []

    def clear(self) -> None:
        """Forget what was counted, before the source is read again."""
        self.counts.clear()
        self.bad.clear()

    def count(self, what: str, times: int = 1) -> None:
        """Count that something was left out or mended, such as "blank captions left out"."""
        self.counts[what] += times

    def bad_record(self, error: DataError) -> None:
        """Leave out a record that cannot be read.

        Raises:
            DataError: *error*, where no more may be left out.
        """
        if len(self.bad) >= self.skip_bad:
            more = (
                f"more than --skip-bad {self.skip_bad} allows" if self.skip_bad else "--skip-bad N leaves up to N out"
            )
            raise DataError(f"{error} ({more})")
        self.bad.append(str(error))


@dataclass(frozen=True)
class CaptionOptions:
    """Command-line options for caption files.

    Attributes:
        named_splits: the split of each file that was named SPLIT=FILE.
        split_lists: the lists of --split-files; None if there are none.
        hold_out: split → which share of the training images it takes (--hold-out).
        unknown_split: the split of images whose split nothing tells; None: that is an error.
        image_id_of_url: how cc-tsv names the image of a URL (None: it has no name); if not given, by its line.
        columns: `image`, `caption` or `split` → the name of that column in tables and records (--columns); of several
            columns of captions, the names with commas between them.
        columns_of_others: whether these may be meant for another source that is read, so that one that lacks them has
            its own; else that is an error.
        answers: of conversations with several answers: `one` is an error, `first` or `all` are captions (--answers).
        format: of caption files among other inputs, for readers that look for them (--format).
        is_only_source: whether no other captions are read. Then its folder's name alone does not say that all are of
            one split, if some are to be held out; and of a folder only the whole name may say it.
        folder_says_split: whether the name of the folder of a source may say the split of its images.
        log: what readers leave out.
    """

    named_splits: Mapping[Path, str] = field(default_factory=dict)
    split_lists: SplitLists | None = None
    hold_out: Mapping[str, float] = field(default_factory=dict)
    unknown_split: str | None = None
    image_id_of_url: Callable[[str], str | None] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    columns_of_others: bool = False
    answers: str = "one"
    format: str = "auto"
    is_only_source: bool = False
    folder_says_split: bool = True
    log: ReadingLog = field(default_factory=ReadingLog)


class SplitLists:
    """The lists of --split-files: which split an image is of.

    Args:
        entries: (image name or id, split), as the lists have them.
    """

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        self._unused = dict(entries)
        self._names = NameIndex((name, (name, split)) for name, split in self._unused.items())
        self._size = len(self._unused)

    def __len__(self) -> int:
        return self._size

    @property
    def unused(self) -> list[str]:
        """The names that no image has had so far."""
        return list(self._unused)

    def split_of(self, image: CaptionedImage) -> str | None:
        """The split of *image*; None: it is in no list.

        Raises:
            DataError: its name fits images of different splits.
        """
        for name in filter(None, (image.file_name, image.image_id)):
            found = self._names.find(name) if name is image.file_name else self._names.find_id(name)
            if len({split for _, split in found}) > 1:
                names = " and ".join(sorted(name for name, _ in found)[:2])
                raise DataError(f"image {name} fits {names} of --split-files, which are of different splits")
            for listed, split in found:
                self._unused.pop(listed, None)
                return split
        return None


class CaptionFile:
    """A caption file, for the formats that look at it and the one that reads it: it is parsed once for all of them.

    Args:
        path: the file.
        columns: what --columns says, so that a table with columns of other names is recognised.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.columns = columns or {}

    @cached_property
    def first_lines(self) -> list[str]:
        """The first non-blank lines."""
        return first_lines(self.path)

    @cached_property
    def json(self) -> Any:
        """The file's JSON value. Raises DataError if it has none."""
        return load_json(self.path)

    @cached_property
    def json_value(self) -> Any:
        """The JSON value of a file that begins as one, or is named so; None if there is none, or JSON in lines."""
        lines = self.first_lines
        if len(lines) > 1 and (self.head_of_json_lines or parsed(lines[0]) is not None):
            return None
        return self.json if self.path.suffix == ".json" or begins_json("\n".join(lines)) else None

    @property
    def json_object(self) -> dict[str, Any]:
        """The JSON object of a file; empty if there is none, or JSON in lines."""
        value = self.json_value
        return value if isinstance(value, dict) else {}

    @cached_property
    def head_of_json_lines(self) -> list[Any]:
        """The JSON values of its first lines, one a line, None where a line is none; empty if most are no objects."""
        values = [parsed(line) if line.lstrip().startswith("{") else None for line in self.first_lines]
        return values if most(isinstance(value, dict) for value in values) else []


@dataclass(frozen=True)
class CaptionFormat:
    """A format of caption files.

    Attributes:
        name: as `--format` takes it.
        summary: what it is, in a line, for `--help` and messages.
        recognise: whether a file is of this format, by its content.
        read: streams its images; raises `DataError` naming file and record.
        images_by_url: whether it has URLs in place of image ids, so that `CaptionOptions.image_id_of_url` counts.
        two_names: whether an image may have the name of a file and an id that is another (see `Pairing.choose`).
        keeps_entities: whether `&amp;` in a caption stays: files of published corpora are scored as they are.
        columns: those of `COLUMNS` that --columns can choose; `read` raises `DataError` where the file has no such.
        takes_answers: whether `CaptionOptions.answers` counts.
    """

    name: str
    summary: str
    recognise: Callable[[CaptionFile], bool]
    read: Callable[[CaptionFile, CaptionOptions], Iterator[CaptionedImage]]
    images_by_url: bool = False
    two_names: bool = False
    keeps_entities: bool = False
    columns: tuple[str, ...] = ()
    takes_answers: bool = False
