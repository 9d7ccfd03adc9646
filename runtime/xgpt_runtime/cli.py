"""`xgpt-caption-lite`: captions of photos and folders, as `xgpt-caption` prints them, without torch and fairseq."""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from xgpt_runtime.errors import DataError, check_at_least
from xgpt_runtime.parser import Parser

if TYPE_CHECKING:
    from xgpt_runtime.captioner import Captioner
    from xgpt_runtime.files import PhotoFile
    from xgpt_runtime.photos import Photo, PhotoError
    from xgpt_runtime.search import SearchOptions

_LOADERS: Final = 4  # threads that decode photos
_AHEAD: Final = 32  # photos that are decoded before they are captioned
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors of writing, which name no file

_EXAMPLE: Final = """\
Each caption is printed as a line: file, tab, caption. Files that cannot be read as photos are listed on standard error;
the exit status is 1 only if none could be read (with --strict, if any could not). Photos that look unlike those that
the captioner was trained on are named there, too: their captions are probably wrong. With --jsonl, both are said in the
lines: "error" and "unlike".

examples:
  xgpt-caption-lite photos holiday.jpg --json captions.json
  xgpt-caption-lite photos --path captioner
  xgpt-caption-lite million --jsonl captions.jsonl
"""


@dataclass(frozen=True)
class _Result:
    """A file with its caption, its score and distance from the training photos, or the reason why it has none."""

    file: PhotoFile
    caption: str = ""
    score: float = 0.0
    novelty: float | None = None
    reason: str = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program. A mistake is a line on stderr and exit status 1; Ctrl-C is 130, `kill` 143, a closed pipe 141.

    Raises:
        SystemExit: with that status.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may be no Unicode: they keep their bytes. A file or pipe gets UTF-8, whatever the code page
        # or PYTHONIOENCODING: names from a code page of another encoding are written as UTF-8, too.
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="surrogateescape")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # once temporary files are taken away
    try:
        _caption(_parse(arguments))
        sys.stdout.flush()
    except DataError as error:
        _end(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        _drop_output()
        sys.exit(141)
    except OSError as error:
        if error.filename is not None and error.strerror:
            _end(f"{error.filename}: {error.strerror}")
        if error.errno not in _FULL:
            raise
        _drop_output()  # whose error it is: files are named where they are written
        _end(f"the output cannot be written: {error.strerror}")


def _end(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _drop_output() -> None:
    """Write what is still to be flushed nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _caption(args: argparse.Namespace) -> None:
    from xgpt_runtime.captioner import Captioner
    from xgpt_runtime.files import check_ids
    from xgpt_runtime.search import SearchOptions

    if args.about:
        if args.photos:
            raise DataError("--about prints what the captioner is; it captions nothing: leave photos out")
        print(Captioner(args.path).about)
        return
    if args.json is not None and args.jsonl is not None:
        raise DataError("--jsonl is for collections that take hours, --json for a few photos: one of them")
    if args.json is not None:
        _check_json(args)
    check_at_least("--beam", args.beam, 1)
    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--max-len", args.max_len, 1)
    check_at_least("--no-repeat-ngram-size", args.no_repeat_ngram_size, 0)
    options = SearchOptions(
        beam=args.beam,
        lenpen=args.lenpen,
        max_len_b=args.max_len,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        no_early_stop=args.no_early_stop,
    )
    captioner = Captioner(args.path)
    if captioner.needs_boxes:
        raise DataError(
            "the model was trained on the boxes of a detector; xgpt-caption --detections captions its photos"
        )
    if args.jsonl is not None:
        _write_lines(captioner, options, args)
        return
    files = _find(args)
    if args.json is not None:
        check_ids(files)
    results = _print(_results(captioner, files, options, args.batch_size), len(files), captioner)
    captioned = [each for each in results if not each.reason]
    if args.json is not None:
        named = ({"file": str(each.file.path), "image_id": each.file.image_id} for each in captioned)
        _write_json(args.json, [{**name, "caption": each.caption} for name, each in zip(named, captioned, strict=True)])
    _check_read(len(captioned), len(files), args)


def _find(args: argparse.Namespace) -> list[PhotoFile]:
    from xgpt_runtime.files import find_photos

    files = find_photos(args.photos)
    if not files:
        raise DataError(f"there are no files in {', '.join(map(str, args.photos))}")
    return files


def _check_read(captioned: int, total: int, args: argparse.Namespace) -> None:
    if not captioned:
        raise DataError(f"none of the {total} files could be read as a photo")
    if args.strict and captioned < total:
        raise DataError(f"--strict: {total - captioned} of {total} files could not be read")


def _write_lines(captioner: Captioner, options: SearchOptions, args: argparse.Namespace) -> None:
    """Write a line of JSON for each file, in groups of a batch, which are the same after an interruption."""
    from dataclasses import asdict

    from xgpt_runtime.files import PhotoFile
    from xgpt_runtime.lines import ResumableLines

    path: Path = args.jsonl
    output = _not_a_photo(path, args)

    def find() -> list[Any]:
        found = [file.as_json() for file in _find(args) if os.path.realpath(file.path) != output]
        if not found:
            raise DataError(f"there are no files in {', '.join(map(str, args.photos))}")
        return found

    given = [str(photo.absolute()) for photo in args.photos]
    how = {"captioner": captioner.sha256(), "photos": given, **asdict(options), "batch_size": args.batch_size}
    group = args.batch_size
    with ResumableLines(path, how, find, group=group, overwrite=args.overwrite) as lines:
        files = list(map(PhotoFile.of_json, lines.items))
        done = min(lines.groups * group, len(files))
        captioned = done - _errors(path)
        if done:
            print(f"resuming an interrupted run after {done} images; files that came since it began are left out")
        progress, limit = _Progress(len(files)), None if captioner.novelty is None else captioner.novelty.limit
        progress.show(done)
        results = _results(captioner, files[done:], options, args.batch_size)
        while some := list(islice(results, group)):
            lines.write([_line(result, limit) for result in some])
            captioned += sum(not result.reason for result in some)
            done += len(some)
            progress.clear()
            progress.show(done)
        progress.clear()
        lines.finish()
    print(f"{captioned} of {len(files)} images captioned: {path}")
    _check_read(captioned, len(files), args)


def _errors(path: Path) -> int:
    """How many lines say that a file can't be read."""
    with open(path, "rb") as lines:
        return sum(b'"error": ' in line and "error" in json.loads(line) for line in lines)


def _line(result: _Result, limit: float | None) -> dict[str, Any]:
    named = {"file": str(result.file.path), "image_id": result.file.image_id}
    if result.reason:
        return {**named, "error": result.reason}
    line = {**named, "caption": result.caption, "score": round(result.score, 4)}
    if limit is not None and result.novelty is not None:
        line["unlike"] = result.novelty > limit
    return line


def _check_json(args: argparse.Namespace) -> None:
    path: Path = args.json
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not args.overwrite:
        raise DataError(f"{path} exists; give another name or --overwrite")
    if not path.parent.is_dir():
        raise DataError(f"{path}: no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{path}: its folder cannot be written to")
    _not_a_photo(path, args)


def _not_a_photo(path: Path, args: argparse.Namespace) -> str:
    """Where an output leads that is none of the photos; `Path.resolve` would not take links that lead in a circle."""
    output = os.path.realpath(path)
    if output in map(os.path.realpath, args.photos):
        raise DataError(f"{output} is one of the photos; name another file for the captions")
    return output


def _print(results: Iterator[_Result], total: int, captioner: Captioner) -> list[_Result]:
    """Print the results as they come; returns all of them."""
    from xgpt_runtime.files import as_field
    from xgpt_runtime.novelty import NoveltyWarnings

    unlike, done, progress = NoveltyWarnings(captioner.novelty), [], _Progress(total)
    for result in results:
        done.append(result)
        progress.clear()
        name = as_field(str(result.file.path))
        if result.reason:
            print(f"not read: {name}: {as_field(result.reason)}", file=sys.stderr)
        else:
            print(f"{name}\t{result.caption}")
            for line in unlike.of(name, result.novelty):
                print(line, file=sys.stderr)
        progress.show(len(done))
    progress.clear()
    if summary := unlike.summary():
        print(summary, file=sys.stderr)
    return done


class _Progress:
    """How far the work is, in the last line of a terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._on = sys.stderr.isatty() and total > 1

    def show(self, done: int) -> None:
        """Show that *done* photos are done."""
        if self._on:
            print(f"{done} of {self._total} photos", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._on:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _results(
    captioner: Captioner, files: Sequence[PhotoFile], options: SearchOptions, batch_size: int
) -> Iterator[_Result]:
    """The results of *files*, in their order."""
    from xgpt_runtime.photos import PhotoError

    loaded = _load(captioner, files)
    while batch := list(islice(loaded, batch_size)):
        photos = [(file, photo, None) for file, photo in batch if not isinstance(photo, PhotoError)]
        found = captioner.caption_loaded(photos, options=options, batch_size=batch_size)
        for file, photo in batch:
            if isinstance(photo, PhotoError):
                yield _Result(file, reason=photo.reason)
            else:
                each = next(found)
                yield _Result(file, each.best.text, each.best.score, each.novelty)


def _load(captioner: Captioner, files: Sequence[PhotoFile]) -> Iterator[tuple[PhotoFile, Photo | PhotoError]]:
    """Read photos, some ahead of those that are captioned."""
    from xgpt_runtime.photos import PhotoError

    def load(file: PhotoFile) -> Photo | PhotoError:
        try:
            return captioner.load(file.content())
        except PhotoError as error:
            return error

    pool = ThreadPoolExecutor(_LOADERS)
    try:
        rest = iter(files)
        waiting = deque((file, pool.submit(load, file)) for file in islice(rest, _AHEAD))
        while waiting:
            file, future = waiting.popleft()
            waiting.extend((following, pool.submit(load, following)) for following in islice(rest, 1))
            yield file, future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # nobody waits for photos that are not captioned any more


def _write_json(path: Path, value: Any) -> None:
    """Write *value* to *path*, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    try:
        aside.unlink(missing_ok=True)  # a link would lead elsewhere
        with aside.open("x", encoding="utf-8", errors="backslashreplace") as file:  # names of files may be no Unicode
            file.write(text)
        aside.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="xgpt-caption-lite",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option: Callable[..., Any] = parser.add_argument
    option("photos", type=Path, nargs="*", metavar="PHOTO", help="photos, folders and tars of photos")
    more = "a file that names more of them, a path a line, as `find` prints them"
    option("--list", type=Path, metavar="FILE", help=more)
    option("--path", type=Path, metavar="FOLDER", help="a folder of xgpt-export --onnx [the captioner in the package]")
    option("--beam", type=int, default=2, help="beam size (%(default)s)")
    option("--lenpen", type=float, default=1.0, help="> 1: longer captions, < 1: shorter (%(default)s)")
    option("--max-len", type=int, default=60, help="longest caption in tokens (%(default)s)")
    option(
        "--no-repeat-ngram-size",
        type=int,
        default=0,
        metavar="N",
        help="no sequence of N tokens occurs twice in a caption [0: any may]",
    )
    option(
        "--no-early-stop",
        action="store_true",
        help="search on when there are as many captions as beams, as long as an unfinished one may become better",
    )
    option("--batch-size", type=int, default=32, metavar="N", help="photos per batch (%(default)s)")
    option("--json", type=Path, metavar="FILE", help="write the captions: a list of file, id and caption")
    option(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="write a line of JSON for each photo as it comes, and print none; killed, the same command goes on",
    )
    option("--about", action="store_true", help="print what the captioner is, and its model card")
    option("--strict", action="store_true", help="exit with status 1 if any file could not be read")
    option("--overwrite", action="store_true", help="replace the file of --json or --jsonl")
    args = parser.parse_args(arguments)
    if args.about:
        others = {name: value for name, value in vars(args).items() if name not in ("about", "path", "photos", "list")}
        given = [name for name, value in others.items() if value != parser.get_default(name)]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise DataError(f"{options} {'has' if len(given) == 1 else 'have'} no effect with --about")
    if args.list is not None:
        args.photos = [*args.photos, *_listed(args.list)]
    elif not args.photos and not args.about:
        parser.error("the following arguments are required: PHOTO, or --list, or --about")
    return args


def _listed(path: Path) -> list[Path]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"--list {path}: {error.strerror}") from None
    if b"\0" in content:
        raise DataError(f"--list {path} is no list of paths, a path a line: it holds bytes that no text has")
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines()  # Notepad and PowerShell write one
    paths = [Path(os.fsdecode(line)) for line in lines if line.strip()]
    if not paths:
        raise DataError(f"--list {path} names no files")
    return paths


if __name__ == "__main__":
    main()
