"""Counts and checks a caption source against a region store or against photos, before anything is encoded."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from xgpt_fairseq.captions.base import CaptionedImage, SplitLists
from xgpt_fairseq.captions.pairing import Pairing
from xgpt_fairseq.captions.registry import UNLISTED
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.names import ImageNames

UNCAPTIONED = "uncaptioned-images.txt"

# Those that are written if none are named.
USUAL_SPLITS = ("train", "valid", "test")

# How many images a message names.
NAMED = 5


@dataclass
class Count:
    """Counts for one split of the source.

    Attributes:
        images: images with captions.
        kept, captions: images with captions that were found, and their captions.
        missing, first_missing: images with captions that were not found, and the first of them.
        bare, first_bare: images without captions, and the first of them.
    """

    images: int = 0
    kept: int = 0
    captions: int = 0
    missing: int = 0
    first_missing: list[str] = field(default_factory=list)
    bare: int = 0
    first_bare: list[str] = field(default_factory=list)


@dataclass
class Survey:
    """Comparison of a source with a region store, or with photos.

    Attributes:
        counts: of every split that the source has.
        uncaptioned, first_uncaptioned: how many images of the store, or photos, have no captions in the source, and the
            first of them.
        absent: the images of split lists that are not in the source.
        found: by what captions found their photos, in words.
    """

    counts: dict[str, Count]
    uncaptioned: int
    first_uncaptioned: list[str]
    absent: list[str]
    found: str


def survey(
    images: Iterable[CaptionedImage],
    splits: Sequence[str] | None,
    split_lists: SplitLists | None,
    pairing: Pairing,
    folder: Path | None,
) -> Survey:
    """Read the source once: count, and list in *folder* captioned images that were not found, and the reverse.

    Args:
        images: of the source.
        splits: those that are written; None: those of `USUAL_SPLITS` that the source has.
        split_lists: the lists of --split-files.
        pairing: finds the images.
        folder: where lists are written; None: nowhere.

    Raises:
        DataError: two images of the source are one, or no image is in any of the lists.
    """
    names = pairing.names
    counts: dict[str, Count] = defaultdict(Count)
    captioned = np.zeros(len(names), dtype=np.uint16)  # by which source, from 1 on; 0: by none
    sources: dict[Path | None, int] = {}
    with contextlib.ExitStack() as stack:
        lists: dict[str, TextIO] = {}
        for image in images:
            count = counts[image.split]
            if not image.captions:
                count.bare += 1
                _keep_first(count.first_bare, image.shown)
                continue
            count.images += 1
            index = pairing.find(image)
            if index is not None:
                path = image.origin.path if image.origin is not None else None
                number = sources.setdefault(path, len(sources) + 1)
                if captioned[index]:
                    other = list(sources)[captioned[index] - 1]
                    raise _captioned_twice(image, path, other, f"{names.image_id(index)} of {names.where}")
                captioned[index] = number
                count.kept += 1
                count.captions += len(image.captions)
                continue
            count.missing += 1
            _keep_first(count.first_missing, image.shown)
            if folder is not None and image.split in (USUAL_SPLITS if splits is None else splits):
                if image.split not in lists:
                    path = folder / f"{image.split}.missing-images.txt"
                    lists[image.split] = stack.enter_context(_open_list(path))
                lists[image.split].write(f"{image.shown}\n")
    uncaptioned = np.flatnonzero(captioned == 0).tolist()
    if uncaptioned and folder is not None:
        with _open_list(folder / UNCAPTIONED) as file:
            file.writelines(f"{names.image_id(index)}\n" for index in uncaptioned)
    absent = [] if split_lists is None else split_lists.unused
    if split_lists is not None and len(absent) == len(split_lists):
        raise DataError(
            "no image of the lists of --split-files is in the source: are they of these images, one image name or id "
            f"per line? The first: {', '.join(absent[:NAMED])}"
        )
    by = [f"{n} by {what}" for n, what in ((pairing.by_file, "file name"), (pairing.by_id, "id")) if n]
    first = [names.image_id(index) for index in uncaptioned[:NAMED]]
    return Survey(counts, len(uncaptioned), first, absent, ", ".join(by))


def _open_list(path: Path) -> TextIO:
    """A text file of names; those of files may be no Unicode."""
    return open(path, "w", encoding="utf-8", errors="backslashreplace")


def _captioned_twice(image: CaptionedImage, path: Path | None, other: Path | None, photo: str) -> DataError:
    """The error for *image* of *path*, whose photo has captions already, from *other*."""
    if path != other:
        return DataError(
            f"{image.shown} of {path} and an image of {other} are both {photo}: put all captions of a photo into one "
            "file, under one name. Photos that share a name need their folders in the store and in the captions"
        )
    return DataError(
        f"{path}: {image.shown} and another image are both {photo}: name a photo in one way. Photos that share a name "
        "need their folders in the store and in the captions"
    )


def _keep_first(ids: list[str], image_id: str) -> None:
    if len(ids) < NAMED:
        ids.append(image_id)


def usual_splits(counts: dict[str, Count], source: str) -> list[str]:
    """Those of train, valid and test that the source has.

    Raises:
        DataError: none, or training images and no validation images, without which fairseq-train stops at the end of
            the first epoch.
    """
    found = [split for split in USUAL_SPLITS if split in counts and counts[split].images]
    if not found:
        others = ", ".join(sorted(key for key, count in counts.items() if key != UNLISTED and count.images))
        raise DataError(
            f"{source} has no captions of train, val or test; it has: {others or 'none'} (choose by --splits)"
        )
    if "train" in found and "valid" not in found:
        raise DataError(
            f"{source} has captions of {' and '.join(found)}, and none to validate training: hold images out by "
            "--hold-out val=0.1 (or val=0.1,test=0.1), or pass --splits train"
        )
    return found


def check_held_out(
    counts: dict[str, Count], hold_out: Mapping[str, float], splits: Sequence[str] | None, source: str
) -> None:
    """Refuse --hold-out where it took no image for a split: of few photos, a share of the hashes may have none.

    Args:
        counts: of all splits of the source.
        hold_out: split → share.
        splits: those that are written; None: `USUAL_SPLITS`.
        source: the source's name, for messages.

    Raises:
        DataError: a split that is written has none.
    """
    total = sum(counts[split].images for split in ("train", *hold_out) if split in counts)
    for split, share in hold_out.items():
        if split not in (USUAL_SPLITS if splits is None else splits) or (split in counts and counts[split].images):
            continue
        typed = f"{'val' if split == 'valid' else split}="
        if not total:
            found = ", ".join(sorted(key for key, count in counts.items() if key != UNLISTED and count.images))
            raise DataError(f"{source} has no training images that --hold-out could take; it has: {found or 'none'}")
        larger = f", such as {typed}{2 * share:g}," if sum(hold_out.values()) + share < 1 else ""
        raise DataError(
            f"--hold-out {typed}{share:g} took none of the {total} images of {source} (it goes by a hash of their "
            f"names): take a larger share{larger} or name the images of each split by --split-files"
        )


def check(
    counts: dict[str, Count], splits: Sequence[str], names: ImageNames, source: str, missing: str, max_missing: float
) -> None:
    """Refuse a source that lacks a split, or has too many images that were not found.

    Args:
        counts: of all splits of the source.
        splits: the requested splits.
        names: where images were looked for.
        source: the source's name, for messages.
        missing: `error` or `skip`: what to do with images that were not found.
        max_missing: the largest share of a split's images that may be skipped, 0 to 1.
    """
    for split in splits:
        if split not in counts or not counts[split].images:
            found = ", ".join(sorted(key for key, count in counts.items() if key != UNLISTED)) or "none"
            raise DataError(f"{source} has no captions for split {split!r}; it has: {found} (choose by --splits)")
    of_store = names.kind == "store"
    add = "import them" if of_store else "add them"
    for split in splits:
        count = counts[split]
        which = f"{count.missing} of {count.images} images of split {split!r}"
        first = f"the first: {', '.join(count.first_missing)}"
        if count.missing and count.kept and missing == "error":
            raise DataError(f"{which} are not in {names.where}, {first}; {add}, or pass --missing-images skip")
        if not count.kept:
            others = "of the store" if of_store else "of the photos"
            doubt = "is it the store of these images?" if of_store else "are these the photos of the captions?"
            raise DataError(
                f"no image of split {split!r} is in {names.where}. The first image of the captions: "
                f"{count.first_missing[0]}, {others}: {names.image_id(0)}; {doubt}"
            )
        if count.missing > max_missing * count.images:
            raise DataError(
                f"{which} ({count.missing / count.images:.2%}) are not in {names.where}, more than --max-missing "
                f"{max_missing:g} allows, {first}; {add}, or allow more"
            )


def print_summary(found: Survey, splits: Sequence[str], names: ImageNames) -> None:
    """Tell the user by what photos were found, and what is left out."""
    counts = found.counts
    print(f"captions found their photos: {found.found}")
    for split in counts.keys() - {*splits, UNLISTED}:
        print(f"split {split!r}: {counts[split].images + counts[split].bare} images are not used (--splits)")
    if UNLISTED in counts:
        unlisted = counts[UNLISTED].images + counts[UNLISTED].bare
        print(f"{unlisted} images are in none of the lists of --split-files, and are not used")
    if found.absent:
        first = ", ".join(found.absent[:NAMED])
        print(f"{len(found.absent)} images of the lists of --split-files are in no SOURCE, the first: {first}")
    for split in splits:
        count = counts[split]
        if count.missing and names.kind == "store":
            print(f"{split}: {count.missing} images without regions are left out, listed in {split}.missing-images.txt")
        elif count.missing:
            first = ", ".join(count.first_missing)
            print(f"{split}: {count.missing} images without photos are left out, the first: {first}")
        if count.bare:
            print(
                f"{split}: {count.bare} images without captions are left out, the first: {', '.join(count.first_bare)}"
            )
