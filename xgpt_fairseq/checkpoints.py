"""Reading and writing checkpoints without giving up torch's protection against malicious ones.

torch ≥ 2.6 loads with `weights_only=True`: only tensors, plain containers and allowed globals. fairseq's checkpoints
also hold an `argparse.Namespace`, so stock fairseq cannot read its own; allowing this one global is enough. The plugin
never turns the protection off.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from xgpt_fairseq.errors import DataError, foreign_bytes

LONGEST_NAME = 4096  # of a class or function, with its module

SAFE_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]

torch.serialization.add_safe_globals(SAFE_GLOBALS)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a fairseq checkpoint; tensors stay on disk until they are used (memory-mapped).

    Raises:
        DataError: no such file, not a checkpoint, or a checkpoint that holds anything but tensors and plain values.
    """
    if path.is_dir():
        bundle = (path / "bundle.json").exists()
        what = "a bundle, which xgpt-caption --path takes" if bundle else "a folder; name a checkpoint in it"
        raise DataError(f"{path} is no checkpoint: it is {what}")
    if not path.is_file():
        raise DataError(f"checkpoint {path} does not exist{why_missing(path)}")
    with foreign_bytes(path, "is damaged"):
        is_zip = zipfile.is_zipfile(path)
    if not is_zip:
        raise DataError(f"{path} {_why_no_zip(path)}")
    check_archive(path)
    try:
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0] if "GLOBAL" not in str(error) else _forbidden_global(str(error))
        raise DataError(f"checkpoint {path} is refused: {reason}") from error
    except Exception as error:  # bytes that are damaged fail anywhere in torch's reader
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise DataError(f"{path} is not a fairseq checkpoint: it has no entry 'model'")
    return state


def check_archive(path: Path) -> None:
    """Raise DataError where reading torch's zip file *path* could fill the memory, or take for ever.

    A part is compressed: torch writes none, and reads it whole, so that a few kilobytes could become gigabytes. Or what
    describes its tensors names something by `LONGEST_NAME` characters: torch searches its own message about that name
    by a pattern that takes the square of its length.
    """
    with foreign_bytes(path, "is damaged"), zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        described = [] if packed else [name for name in archive.namelist() if name.endswith("data.pkl")]
        longest = max((_longest_name(archive.read(name)) for name in described), default=0)
    if packed:
        raise DataError(f"{path} is refused: {packed[0][:60]!r} in it is compressed, which torch never does")
    if longest > LONGEST_NAME:
        raise DataError(
            f"{path} is refused: a name in it has {longest:,} characters, at most {LONGEST_NAME:,} are read"
        )


def _longest_name(pickled: bytes) -> int:
    """Characters of the longest name of a class or function in a pickle, up to where it is damaged."""
    longest = 0
    with contextlib.suppress(Exception):  # of damage, torch has its own message
        for code, argument, _ in pickletools.genops(pickled):
            if code.name == "GLOBAL":
                longest = max(longest, len(str(argument)))
    return longest


def _why_no_zip(path: Path) -> str:
    """Why a file is no checkpoint, which is a zip file."""
    with path.open("rb") as file:
        beginning = file.read(2)
    if beginning == b"PK":
        return f"is cut short: it ends after {path.stat().st_size:,} bytes"
    return "is not a checkpoint" if beginning else "is empty"


def aside_of_checkpoint(path: Path) -> Path:
    """Where the checkpoint *path* lies while its training writes it anew."""
    return path.with_name(f".{path.name}.before")


def why_missing(path: Path) -> str:
    """What to add to "the checkpoint *path* does not exist" where its training has moved it aside; else nothing."""
    aside = aside_of_checkpoint(path)
    if not aside.is_file() or not aside.stat().st_size:
        return ""
    if _is_locked(path.parent):
        return f" (its training is writing checkpoints at this moment: try again, or use {aside})"
    return f" (its training ended while it was written, and goes on with it; until then: {aside})"


def _is_locked(folder: Path) -> bool:
    """Whether a training has locked *folder*, as `WholeCheckpoints.hold` does for as long as it lives."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # some network file systems have no such locks
        return False
    finally:
        os.close(descriptor)
    return False


def is_remote(name: str) -> bool:
    """Whether fairseq fetches the file of this name from elsewhere, by itself."""
    return "://" in name


def name_with_suffix(name: str, suffix: str) -> str:
    """The file that fairseq reads where *name* is given, and --checkpoint-suffix."""
    return name.replace(".pt", f"{suffix}.pt")


def named_checkpoints(names: str | None, suffix: str = "") -> list[Path]:
    """The files on this machine that fairseq's --path names, separated by colons.

    Args:
        names: the option's value.
        suffix: --checkpoint-suffix.

    Raises:
        DataError: a file's own path has a colon.
    """
    if names and ":" in names and Path(names).exists():
        raise DataError(
            f"{names}: its path has a colon, which fairseq takes for the border between two checkpoints: rename it, or "
            "give a path without one, such as that of a link"
        )
    return [] if not names or is_remote(names) else [Path(name_with_suffix(name, suffix)) for name in names.split(":")]


def updates_of(state: Mapping[str, Any]) -> int:
    """How many updates the training of the checkpoint *state* had made; 0 where it does not say."""
    history = state.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))


def whole_checkpoint_beside(path: Path) -> Path | None:
    """The checkpoint of most updates in *path*'s folder, other than it, that can be read; None: there is none."""
    updates: dict[Path, int] = {}  # not the files' times: clocks jump, and copies have others
    for other in sorted(path.parent.glob("checkpoint*.pt")):
        with contextlib.suppress(DataError):
            if other != path:
                updates[other] = updates_of(load_checkpoint(other))
    return max(updates, key=updates.__getitem__, default=None)


def _forbidden_global(message: str) -> str:
    name = message.split("GLOBAL ", 1)[1].split(" ", 1)[0]
    return f"it holds {name}, which is neither a tensor nor a plain value; a checkpoint could run code through it"
