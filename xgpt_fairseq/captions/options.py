"""Command-line options of the programs that read captions: files, splits and image ids."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from xgpt_fairseq.captions.base import COLUMNS, CaptionFormat, CaptionOptions, ReadingLog, SplitLists
from xgpt_fairseq.captions.columns import is_image_column
from xgpt_fairseq.captions.conceptual_captions import UrlMap, image_id_by_crc32
from xgpt_fairseq.captions.hold_out import parse_hold_out
from xgpt_fairseq.captions.json_values import load_json
from xgpt_fairseq.captions.registry import FORMATS
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.text_lines import first_lines, numbered_lines
from xgpt_fairseq.regions.image_ids import canonical_image_id

_JSON_START = re.compile(r"\s*[\[{]\s*(\"|$)")
_SPLIT_AND_FILE = re.compile(r"([A-Za-z][\w-]*)=(.+)", re.DOTALL)


def add_split_files(parser: argparse.ArgumentParser) -> None:
    """Add the option --split-files."""
    parser.add_argument(
        "--split-files",
        nargs="+",
        action="extend",
        default=[],
        metavar="SPLIT=LIST",
        help="the images of each split, one image name or id per line, if the captions have no splits: "
        "train=train.txt val=val.txt test=test.txt",
    )


def add_caption_options(parser: argparse.ArgumentParser, what: str = "the captions") -> None:
    """Add the options of all programs that read captions: all that decides what is read, and what images are called.

    Args:
        what: is read in that format, for `--help`.
    """
    parser.add_argument(
        "--format", choices=["auto", *FORMATS], default="auto", help=f"of {what} (default: by their content)"
    )
    add_split_files(parser)
    parser.add_argument(
        "--hold-out",
        default="",
        metavar="SPLIT=SHARE,…",
        help="take a share of the training images for other splits, by a hash of the image's name: val=0.1,test=0.1",
    )
    parser.add_argument(
        "--columns",
        default="",
        metavar="image=NAME,…",
        help="in tables and records: which columns hold the image, the caption and the split, such as "
        "image=photo,caption=description; caption=… may be repeated. In coco: the caption of annotations and the split "
        "of images; in folders and tars: the caption in a photo's .json",
    )
    parser.add_argument(
        "--answers",
        choices=["one", "first", "all"],
        default="one",
        help="of conversations with several answers: first or all are captions; one (default): that is an error",
    )
    parser.add_argument(
        "--image-ids",
        nargs="+",
        action="extend",
        metavar="line|crc32|MAP",
        help="image ids of cc-tsv files: line, the number of the line from 0 (default); crc32, of the URL; or files "
        "that map URLs to image ids, in JSON, tab-separated, or reports of DownloadConceptualCaptions",
    )
    parser.add_argument(
        "--skip-bad", type=int, default=0, metavar="N", help="leave out up to N records that cannot be read (0)"
    )


def read_caption_options(args: argparse.Namespace, named_splits: Mapping[Path, str]) -> CaptionOptions:
    """The options of `add_caption_options`, checked.

    Raises:
        DataError: an unusable list of --split-files or map of --image-ids, or value of another option.
    """
    check_at_least("--skip-bad", args.skip_bad, 0)
    return CaptionOptions(
        named_splits=named_splits,
        split_lists=read_split_files(args.split_files),
        hold_out=parse_hold_out(args.hold_out),
        image_id_of_url=image_id_resolver(args.image_ids or ["line"]),
        columns=parse_columns(args.columns),
        answers=args.answers,
        format=args.format,
        log=ReadingLog(args.skip_bad),
    )


def check_options_count(args: argparse.Namespace, sources: Iterable[tuple[Path, CaptionFormat]], what: str) -> None:
    """Refuse --image-ids, --answers and --columns where they would do nothing.

    A column must count for one file at least; others, such as Karpathy's, have theirs.

    Args:
        args: with the options of `add_caption_options`.
        sources: the caption files, and their formats.
        what: the captions are called, as an option or argument.

    Raises:
        DataError: no file has URLs, or conversations, or is of a format in which a column can be chosen.
    """
    sources = list(sources)
    if args.image_ids is not None and not any(found.images_by_url for _, found in sources):
        by_url = ", ".join(name for name, found in FORMATS.items() if found.images_by_url)
        raise DataError(f"--image-ids is for {by_url} files, and no {what} is one")
    if args.answers != "one" and not any(found.takes_answers for _, found in sources):
        with_answers = ", ".join(name for name, found in FORMATS.items() if found.takes_answers)
        raise DataError(f"--answers is for {with_answers}, and no {what} has any")
    for column, name in parse_columns(args.columns).items():
        if sources and not any(column in found.columns for _, found in sources):
            path, of_path = sources[0]
            formats = ", ".join(found.name for found in FORMATS.values() if column in found.columns)
            raise DataError(
                f"--columns {column}={name} would do nothing for {path}, which is {of_path.name}: the {column} can be "
                f"chosen in {formats}"
            )


def parse_columns(text: str) -> dict[str, str]:
    """--columns image=NAME,… → the value of `CaptionOptions.columns`.

    Raises:
        DataError: not such a list, or the image or the split twice.
    """
    columns: dict[str, str] = {}
    for word in filter(None, text.split(",")):
        what, _, name = word.partition("=")
        what, name = what.strip(), name.strip()
        if what not in COLUMNS or not name or (what in columns and what != "caption"):
            raise DataError(
                f"--columns {text}: expected {', '.join(f'{c}=NAME' for c in COLUMNS)}, each once, but for several "
                "columns of captions"
            )
        columns[what] = f"{columns[what]},{name}" if what in columns else name
    return columns


def format_list() -> str:
    """The formats of caption files, one per line, for `--help`."""
    width = max(map(len, FORMATS))
    return "formats of captions (--format):\n" + "\n".join(
        f"  {name:{width}}  {caption_format.summary}" for name, caption_format in FORMATS.items()
    )


def parse_files(words: Sequence[str]) -> tuple[list[Path], dict[Path, str]]:
    """Parse words FILE or SPLIT=FILE. Returns the files, and the splits of those with one (in fairseq's names).

    If a file of the whole name exists, that is meant, even with equal signs in its name.

    Raises:
        DataError: a file is named with two splits.
    """
    paths: list[Path] = []
    splits: dict[Path, str] = {}
    for word in words:
        match = _SPLIT_AND_FILE.fullmatch(word)
        path = Path(match[2] if match and not Path(word).exists() else word)
        if match and not Path(word).exists():
            split = fairseq_split(match[1])
            if splits.setdefault(path, split) != split:
                raise DataError(f"{path} is named as {splits[path]!r} and as {split!r}; a file may be named once")
        paths.append(path)
    return paths, splits


def read_split_files(words: Sequence[str]) -> SplitLists | None:
    """Lists of --split-files, SPLIT=LIST each; None without lists.

    Raises:
        DataError: a word is not SPLIT=LIST, a list is unreadable or empty, or an image is in two splits.
    """
    if not words:
        return None
    split_of: dict[str, str] = {}
    for word in words:
        match = _SPLIT_AND_FILE.fullmatch(word)
        if match is None:
            raise DataError(f"--split-files {word} is not SPLIT=LIST, such as train=train.txt")
        split, path = fairseq_split(match[1]), Path(match[2])
        ids = 0
        for where, name in _listed(path):
            if not (image_id := canonical_image_id(name)):
                continue
            ids += 1
            if split_of.setdefault(image_id, split) != split:
                raise DataError(
                    f"{where}: image {image_id} is of split {split_of[image_id]!r} by another list, and "
                    f"of {split!r} by this one"
                )
        if not ids:
            raise DataError(f"{path} names no image; --split-files are lists of image names or ids, one per line")
    return SplitLists(split_of.items())


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    """(where it is, name) of each image in a list: one per line, with a header or not, or a list in JSON.

    Raises:
        DataError: JSON that is no list of names.
    """
    if path.suffix == ".json" or _JSON_START.match(next(iter(first_lines(path)), "")):
        names = load_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
            raise DataError(f"{path} is JSON, and no list of image names or ids, as --split-files must be")
        yield from ((f"{path}: entry {place}", str(name)) for place, name in enumerate(names))
        return
    for number, line in numbered_lines(path):
        if number > 1 or not is_image_column(line):
            yield f"{path}: line {number}", line


def image_id_resolver(words: Sequence[str]) -> Callable[[str], str | None] | None:
    """The function from URL to image id for --image-ids `line`, `crc32` or map files; None for `line`."""
    if list(words) == ["line"]:
        return None
    return image_id_by_crc32 if list(words) == ["crc32"] else UrlMap([Path(word) for word in words])
