"""Splits by a hash of the image: the same for ever, and whatever source names the image."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from xgpt_fairseq.captions.split_names import check_split, fairseq_split
from xgpt_fairseq.errors import DataError


def parse_hold_out(text: str) -> dict[str, float]:
    """`val=0.1,test=0.1` → split (in fairseq's name) → share.

    Raises:
        DataError: not such a list, a split twice or `train`, a share that is none, shares that leave nothing to train.
    """
    shares: dict[str, float] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, value = word.partition("=")
        split = fairseq_split(name.strip())
        try:
            share = float(value)
        except ValueError:
            raise DataError(f"--hold-out {word}: expected SPLIT=SHARE, such as val=0.1") from None
        if not name.strip() or split == "train" or split in shares:
            raise DataError(f"--hold-out {text}: name splits other than train, each once")
        check_split(f"--hold-out {word}", split)
        if not 0 < share < 1:
            raise DataError(f"--hold-out {word}: a share is between 0 and 1")
        shares[split] = share
    if sum(shares.values()) >= 1:
        raise DataError(f"--hold-out {text}: the shares are 1 or more together, and nothing is left to train")
    return shares


def hash_split(key: str, shares: Mapping[str, float]) -> str:
    """The split of an image: one of *shares*, else `train`.

    SHA-256 of the image's name (`CaptionedImage.key`) as a number from 0 to 1; the splits in alphabetical order take
    their shares from 0 on, so that the order in which they are named does not matter.
    """
    place = int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
    for split in sorted(shares):
        if place < shares[split]:
            return split
        place -= shares[split]
    return "train"
