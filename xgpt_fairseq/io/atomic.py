"""Atomic writing of files and folders: write to a temporary name, then rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from xgpt_fairseq.errors import LONGEST_REASON, DataError, reason_of
from xgpt_fairseq.io.json_files import read_json

# What the system says where there is no room, or nothing may be written.
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# In torch's error of a full disk, which is none of the system's.
TORCH_WRITER: Final = re.compile(r"PytorchStreamWriter failed|inline_container\.cc(?:.*strerror: (?P<reason>[\w ]+))?")
_NAME_BYTES: Final = 200


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Check, before any work, that a program may write the file *path*.

    Raises:
        DataError: *path* exists and *overwrite* is false, it is a folder, or its folder does not exist or cannot be
            written to.
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file")
        if os.path.lexists(path) and not overwrite:
            raise DataError(f"{path} exists; give another name or --overwrite")
        if not path.parent.is_dir():
            raise DataError(f"{path}: no folder {path.parent}")
    except DataError:
        raise
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DataError(f"{str(path)[:LONGEST_REASON]!r}: {reason_of(error)}") from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{path}: its folder cannot be written to")


def check_output_folder(path: Path, kind: str, description: str, *, overwrite: bool) -> None:
    """Check, before any work, that a program may write the folder *path*.

    Args:
        kind: what the folder will be, for messages: "a bundle".
        description: the file by which a folder is known as such.
        overwrite: whether one that is there may be replaced; a folder of something else never is.

    Raises:
        DataError: *path* is a file, or a folder that is not empty, and *overwrite* is false or it is of something else.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; {kind} is a folder")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise DataError(f"{path} exists and is not empty; --overwrite replaces {kind} in it")
        if not (path / description).exists():
            raise DataError(f"{path} is not {kind} (it has no {description}), and is not replaced")


@contextlib.contextmanager
def writing(path: Path, aside: Path | None = None) -> Iterator[None]:
    """Name *path* in errors of writing it: those of the system say only "No space left on device".

    Args:
        path: the file or folder as the user knows it.
        aside: where it is written until it is whole.

    Raises:
        DataError: the disk is full, a quota is used up, or the file system is read-only.
    """
    try:
        yield
    except Exception as error:
        if (named := write_error(error, path, aside)) is not None:
            raise named from error
        raise


def write_error(error: BaseException | None, path: Path, aside: Path | None = None) -> DataError | None:
    """What `writing` raises in place of *error*; None: *error* itself."""
    if isinstance(error, OSError):
        own = error.filename is None or (aside is not None and str(error.filename).startswith(str(aside)))
        # numpy's error of a full disk has no number
        if own and (error.errno in FULL or error.errno is None):
            return DataError(f"{path} cannot be written: {reason_of(error)}")
    if isinstance(error, RuntimeError) and (found := TORCH_WRITER.search(str(error))):
        return DataError(f"{path} cannot be written: {found['reason'] or 'the disk is full, most likely'}")
    return None


def interrupted(error: BaseException, output: Path) -> DataError:
    """The error of a run that the same command will resume: where *error* names no file, it is of *output*."""
    if isinstance(error, OSError):
        return DataError(
            f"{error.filename or output}: {reason_of(error)} (correct this, and the same command resumes where it "
            "stopped)"
        )
    return DataError(f"{error} (correct this, and the same command resumes where it stopped)")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to *path*; rename it to *path* if the block succeeds, delete it otherwise.

    The file is on the disk before it has its name: else it could be empty after a power failure, and the old one gone.

    Raises:
        DataError: see `writing`.
    """
    aside = aside_of(path)
    try:
        with writing(path, aside):
            _clear(aside)
            yield aside
            sync_file(aside)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_writes(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Like `atomic_write` of several files: all of them appear, or none."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(atomic_write(path)) for path in paths]


def aside_of(path: Path) -> Path:
    """The temporary name next to *path*, of this process. Of a long name a part: no name has more than 255 bytes."""
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    return path.with_name(f".{name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def atomic_directory(path: Path, *, last: str, files: Iterable[str] | None) -> Iterator[Path]:
    """Yield an empty folder next to *path*; if the block succeeds, move its files to *path*, and delete it otherwise.

    As in `atomic_write`, the files are on the disk before they have their names.

    Args:
        path: a folder, new or existing. Files in it that do not match *files* stay.
        last: the file that identifies the folder: removed first and written last.
        files: patterns of the names of all files that such a folder may have; the old ones are replaced. None: an
            existing folder is replaced as a whole, whatever is in it; it stays as it was unless the block succeeds.
    """
    path = path.resolve()
    aside = aside_of(path)
    _clear(aside)
    aside.mkdir(parents=True)
    try:
        with writing(path, aside):
            yield aside
            sync_and_swap_in(aside, path, last=last, files=files)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clear(aside: Path) -> None:
    """Remove what a process of the same number has left under the temporary name; a link itself, not where it leads."""
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)


def sync_and_swap_in(aside: Path, path: Path, *, last: str, files: Iterable[str] | None) -> None:
    """Flush the finished folder *aside* to disk, and move it to *path*, with arguments as for `atomic_directory`."""
    for folder, _, names in os.walk(aside):
        for file in (Path(folder, name) for name in names):
            if file.is_file():
                sync_file(file)
        sync_folder(Path(folder))
    _swap_in(aside, path, last=last, files=files)
    sync_folder(path)
    sync_folder(path.parent)


def _swap_in(aside: Path, path: Path, *, last: str, files: Iterable[str] | None) -> None:
    """Move the finished folder *aside* to *path*; the other arguments are those of `atomic_directory`."""
    if not path.exists():
        aside.rename(path)
        return
    if files is None:
        _replace(aside, path)
        return
    (path / last).unlink(missing_ok=True)
    for old in [file for pattern in files for file in path.glob(pattern)]:
        old.unlink()
    for new in sorted(aside.iterdir(), key=lambda file: file.name == last):
        new.replace(path / new.name)
    aside.rmdir()


def _replace(aside: Path, path: Path) -> None:
    """Put the finished folder *aside* in the place of the folder *path*, or leave that as it is."""
    old = aside.with_suffix(".old")
    _clear(old)
    try:
        path.rename(old)
        aside.rename(path)
    except BaseException:  # Ctrl-C, too
        if not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Flush a file's content to disk, whoever has written it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's directory entries to disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_no_link(folder: Path) -> None:
    """Raise DataError where the working folder *folder* is a link: it would be emptied where that leads."""
    if folder.is_symlink():
        raise DataError(f"{folder} is a link to {folder.readlink()}; remove it: a program makes this folder itself")


def take_lock(folder: Path, what: str) -> int:
    """Lock *folder* for this process until the returned file descriptor is closed, or the process ends.

    Args:
        what: what another process does if it has the lock, for the message: "another import is writing …".

    Raises:
        DataError: another process has the lock.
    """
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataError(f"{what} at this moment") from None
    except OSError:
        pass  # some network file systems have no locks; the user must then avoid concurrent runs
    return lock


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write *value* as JSON (UTF-8, non-ASCII characters kept) to *path*, atomically.

    Bytes of a file's name that are no UTF-8 become `\\udcXX`, which `json.loads` and `os.fsencode` make those bytes of.
    """
    write_jsons([(path, value)], indent=indent)


def write_jsons(values: Iterable[tuple[Path, Any]], *, indent: int | None = 1) -> None:
    """Like `write_json` of several files: all of them appear, or none."""
    values = list(values)
    with atomic_writes(path for path, _ in values) as asides:
        for aside, (_, value) in zip(asides, values, strict=True):
            text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
            aside.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files may be no Unicode


def read_description(file: Path, *, what: str, made_by: str, newest: int) -> dict[str, Any]:
    """Read the JSON object in *file*, which describes its folder.

    Args:
        what: what the folder is, for messages: "a data directory".
        made_by: the program that makes such folders.
        newest: the newest supported format version.

    Raises:
        DataError: no such file, not a JSON object, or of a newer format version.
    """
    if not file.is_file():
        raise DataError(f"{file.parent} is not {what}: it has no {file.name} (see {made_by})")
    description = read_json(file)
    if not isinstance(description, dict):
        raise DataError(f"{file} does not describe {what}: it holds no JSON object")
    version = description.get("version")
    if not isinstance(version, int) or version > newest:
        raise DataError(
            f"{file} has format version {version}, this xgpt_fairseq reads versions up to {newest}: upgrade it"
        )
    return description
