"""Names of splits: fairseq's, and those that names of files and folders say."""

from __future__ import annotations

import re

from xgpt_fairseq.errors import DataError

# fairseq's names for splits; Karpathy's `restval` is training data in every published result
_SPLITS = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "valid",
    "dev": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}


def fairseq_split(name: str) -> str:
    """fairseq's name for a split: `val` and `validation` are `valid`, `restval` is `train`; other names stay."""
    return _SPLITS.get(name, name)


_SPLIT_NAME = re.compile(r"[\w-][\w.-]*")


def check_split(where: str, name: str) -> None:
    """Raises DataError where *name* cannot be a split's, whose files are named after it."""
    if not _SPLIT_NAME.fullmatch(name):
        raise DataError(
            f"{where} is of split {name!r:.60}: the name of a split has letters, digits, - and _ (and . behind the "
            "first)"
        )


def split_of_folder(name: str) -> str:
    """The split that a folder's whole name says, by fairseq's name; empty if it says none."""
    return _SPLITS.get(name.lower(), "")


_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|training|restval|val|dev|valid|validation|test)(?![a-z])")


def split_in_name(name: str) -> str:
    """The split in a file name, by fairseq's name; empty if there is none, or more than one.

    `captions_val2017.json` is `valid`, `Train_GCC-training.tsv` is `train`, `trainval.json` is neither.
    """
    found = {fairseq_split(word) for word in _SPLIT_IN_NAME.findall(name.lower())}
    return found.pop() if len(found) == 1 else ""
