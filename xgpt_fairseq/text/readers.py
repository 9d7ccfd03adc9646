"""Readers of plain text, one sentence or paragraph per line, for programs that learn from it or encode it.

A file of text is UTF-8, as it is or compressed; `-` is the standard input. Of a caption file or folder (any format of
`captions.registry`) the training captions are the lines. What is neither, a table of unknown columns for one, is
refused. Files are streamed, but for captions in JSON.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO

from xgpt_fairseq.captions.base import CaptionFile, CaptionFormat, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS, UNLISTED, find_format, near_miss, read_captions
from xgpt_fairseq.captions.structure import structure_of, structure_of_lines
from xgpt_fairseq.errors import DataError, NoTextError, check_unchanged
from xgpt_fairseq.io.text_lines import BYTE_ORDER_MARK, COMPRESSIONS, LONGEST_LINE, READ_ERRORS

STDIN = Path("-")
BLOCK_BYTES = 1 << 18
_LOOKED_AT = 20  # lines of a pipe, to see that they are text
_OTHER_SPLIT = "left out, which are"  # in the log, of captions that are not of the training split


@dataclass(frozen=True)
class Block:
    """Complete lines of one file, not yet decoded.

    Attributes:
        path: the file.
        first_line: the line number of the first, from 1.
        data: the lines.
        position: bytes of all inputs, as on disk, up to the end of this block.
    """

    path: Path
    first_line: int
    data: bytes
    position: int

    def lines(self) -> list[str]:
        """The lines.

        Raises:
            DataError: they are not UTF-8.
        """
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self.first_line + self.data.count(b"\n", 0, error.start)
            raise DataError(f"{self.path} is not UTF-8 text: line {line}, {error.reason}") from error
        return text.removesuffix("\n").split("\n")


def check_inputs(paths: Sequence[Path], captions: CaptionOptions | None = None) -> None:
    """Refuse inputs that cannot be read, before hours are spent on those in front of them.

    Args:
        paths: the inputs.
        captions: how caption files are read.

    Raises:
        DataError: an input does not exist, is neither text nor captions, or the standard input is named twice.
    """
    for path in paths:
        if path != STDIN and not path.exists():
            raise DataError(f"--input {path} does not exist")
        if path.is_dir() and not is_caption_file(path, captions):
            raise DataError(f"--input {path} is a folder without captions of a known format; name the files in it")
        if path.is_file() and not is_caption_file(path, captions) and (structure := structure_of(CaptionFile(path))):
            raise _not_text(path, structure, near_miss(CaptionFile(path, captions.columns if captions else None)))
    if paths.count(STDIN) > 1:
        raise DataError("--input - (the standard input) is named twice; it can be read once")


def _not_text(path: Path, structure: str, miss: str | None = None) -> DataError:
    columns = "(of a table or of records, say which columns have the captions by --columns image=…,caption=…)"
    return DataError(
        f"--input {path} looks like {structure}, and no reader of captions knows it {miss or columns}; or make it "
        "plain text, one sentence a line"
    )


def total_bytes(paths: Sequence[Path]) -> int | None:
    """The size of all inputs on disk, in bytes; None if one of them is a pipe."""
    if not all(path.is_file() for path in paths):
        return None
    return sum(path.stat().st_size for path in paths)


def is_caption_file(path: Path, captions: CaptionOptions | None = None) -> bool:
    """Whether *path* holds captions: every `.json` is taken for that, other files if they are in a known format."""
    return path.suffix == ".json" or caption_format(path, captions) is not None


def caption_format(path: Path, captions: CaptionOptions | None = None) -> CaptionFormat | None:
    """The format of captions in *path*: of whatever is not plain text the one of --format; None if there are none."""
    captions = captions or CaptionOptions()
    if path == STDIN:
        return None
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _find_format(path, stamp, tuple(captions.columns.items()), captions.format)


@functools.lru_cache(maxsize=64)
def _find_format(
    path: Path, stamp: tuple[int, int] | None, columns: tuple[tuple[str, str], ...], name: str
) -> CaptionFormat | None:
    """Cached by the time of the last change and the size, *stamp*: JSON is parsed to find out what it is."""
    file = CaptionFile(path, dict(columns))
    if name == "auto":
        return find_format(file)
    return FORMATS[name] if structure_of(file) is not None or FORMATS[name].recognise(file) else None


def report_caption_inputs(paths: Sequence[Path], captions: CaptionOptions) -> None:
    """Tell the user, on the standard error, which inputs are not taken as text."""
    for path in (path for path in paths if is_caption_file(path, captions)):
        print(f"{path}: caption file; the training split is used", file=sys.stderr)


def report_log(log: ReadingLog) -> None:
    """Tell the user, on the standard error, what the readers of captions left out or mended."""
    for what, times in log.counts.items():
        print(f"{times} {what}", file=sys.stderr)
    for message in log.bad:
        print(f"left out (--skip-bad): {message}", file=sys.stderr)


@contextlib.contextmanager
def telling_why_no_text(log: ReadingLog) -> Iterator[None]:
    """Where inputs have no text, tell the user what was left out of them (`report_log`), and what to do about it.

    Raises:
        DataError: the block's own, of captions that are all of other splits with advice.
    """
    try:
        yield
    except NoTextError as error:
        report_log(log)
        if not any(_OTHER_SPLIT in what and times for what, times in log.counts.items()):
            raise
        raise DataError(
            f"{error}: captions are left out, which are not of the training split (train=FILE in place of FILE says "
            "that they are training captions, where their records say nothing else)"
        ) from None


def read_blocks(paths: Sequence[Path], captions: CaptionOptions | None = None) -> Iterator[Block]:
    """All lines of all inputs, in order. The same inputs always give the same blocks.

    Args:
        paths: the inputs.
        captions: the splits of caption files that do not contain them.

    Raises:
        DataError: an input is missing, damaged or neither text nor captions, a line is longer than `LONGEST_LINE`, the
            split of captions is unknown, or a split is said of a file that has no captions.
    """
    captions = captions or CaptionOptions()
    check_inputs(paths, captions)
    if captions.hold_out or captions.columns or any(path.is_dir() for path in paths):
        only = len(paths) == 1 or sum(is_caption_file(path, captions) for path in paths) == 1
        captions = replace(captions, is_only_source=only, columns_of_others=not only)
    position = 0
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    for path in paths:
        if is_caption_file(path, captions):
            position += path.stat().st_size if path.is_file() else 0
            yield from _caption_blocks(path, position, captions)
            continue
        if path in captions.named_splits:
            raise DataError(
                f"--input {captions.named_splits[path]}={path}: only caption files have splits, and it is not one of a "
                "known format"
            )
        with _raw(path) as raw:
            yield from _text_blocks(path, raw, position)
        if path in sizes:
            check_unchanged(path, sizes[path], path.stat().st_size if path.exists() else 0)
            position += sizes[path]


def sentences(paths: Sequence[Path], captions: CaptionOptions | None = None) -> Iterator[str]:
    """The lines of all inputs that are not blank."""
    for block in read_blocks(paths, captions):
        yield from (line for line in block.lines() if line.strip())


def _raw(path: Path) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb")


def _text_blocks(path: Path, raw: BinaryIO, start: int) -> Iterator[Block]:
    counted = path.is_file()
    file: IO[bytes] = COMPRESSIONS[path.suffix](raw) if path.suffix in COMPRESSIONS else raw
    line = 1
    while data := _whole_lines(path, file, line):
        if not counted and line == 1 and (structure := structure_of_lines(_first_lines(data))):
            raise _not_text(path, structure)
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        data = data.removeprefix(BYTE_ORDER_MARK) if line == 1 else data
        yield Block(path, line, data, start + raw.tell() if counted else 0)
        line += lines


def _first_lines(data: bytes) -> list[str]:
    lines = data.removeprefix(BYTE_ORDER_MARK).decode("utf-8", errors="replace").split("\n")
    return [line for line in lines if line.strip()][:_LOOKED_AT]


def _whole_lines(path: Path, file: IO[bytes], line: int) -> bytes:
    """About `BLOCK_BYTES`, up to the end of a line; empty at the end of the file. *line* is the number of the first."""
    try:
        data = file.read(BLOCK_BYTES)
        if data and not data.endswith(b"\n"):
            data += (rest := file.readline(LONGEST_LINE))
            if len(rest) == LONGEST_LINE:
                line += data.count(b"\n")
                raise DataError(
                    f"{path}: line {line} is longer than {LONGEST_LINE >> 20} MiB; text has one sentence or paragraph "
                    "per line"
                )
        return data
    except READ_ERRORS as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _caption_blocks(path: Path, position: int, options: CaptionOptions) -> Iterator[Block]:
    texts: list[str] = []
    line, size = 1, 0
    for image in read_captions(path, options.format, options):
        if image.split != "train":
            split = "in no list of --split-files" if image.split == UNLISTED else f"of split {image.split}, not train"
            options.log.count(f"captions of {path} {_OTHER_SPLIT} {split}", len(image.captions))
            continue
        for caption in image.captions:
            texts.append(" ".join(caption.text.split()))  # a caption may have line breaks in it
            size += len(texts[-1]) + 1
        if size >= BLOCK_BYTES:
            yield Block(path, line, _joined(texts), position)
            line += len(texts)
            texts, size = [], 0
    if texts:
        yield Block(path, line, _joined(texts), position)


def _joined(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode("utf-8")
