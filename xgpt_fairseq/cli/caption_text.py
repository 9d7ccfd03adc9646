"""Write COCO's captions as plain text, one per line, for small-scale text pre-training without a download.

The PyPI package pycocoevalcap has all captions of COCO 2014 (train and val, 616 767) inside its SPICE jar. Captions of
validation and test images must be excluded from pre-training: name these images with --exclude-ids or --exclude. COCO
2017 and Karpathy split the same images in other ways: exclude the images of every split that you evaluate on.

examples:
    xgpt-caption-text --output coco.txt --exclude dataset_coco.json --exclude-splits val,test
    xgpt-caption-text --output coco2017.txt --exclude-ids val2017_ids.txt
    xgpt-caption-text --output coco.txt --part train2014 --exclude-nothing
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.options import parse_files
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import atomic_write
from xgpt_fairseq.regions.image_ids import canonical_image_id

PARTS = ("train2014", "val2014")


@dataclass(frozen=True)
class Captions:
    """The captions of one of COCO's files, in order: image ids (`canonical_image_id`) and texts."""

    image_ids: list[str]
    texts: list[str]


def jar_path() -> Path:
    """SPICE's jar in the installed pycocoevalcap."""
    from pycocoevalcap import spice

    return Path(spice.__path__[0]) / "spice-1.0.jar"


def read_coco(jar: Path, parts: Sequence[str] = PARTS) -> Captions:
    """Read the captions of these parts of COCO 2014 from the jar; line breaks in a caption become spaces."""
    image_ids: list[str] = []
    texts: list[str] = []
    try:
        with zipfile.ZipFile(jar) as archive:
            for part in parts:
                for annotation in json.loads(archive.read(f"coco/annotations/captions_{part}.json"))["annotations"]:
                    image_ids.append(canonical_image_id(annotation["image_id"]))
                    texts.append(" ".join(annotation["caption"].split()))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"COCO's captions cannot be read from {jar} ({error}); install pycocoevalcap 1.2 again"
        ) from error
    return Captions(image_ids, texts)


def read_ids(path: Path) -> set[str]:
    """The image ids in a text file, one per line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--exclude-ids {path} cannot be read: {error}") from error
    ids = set()
    for number, line in enumerate(lines, start=1):
        image_id = canonical_image_id(line)
        if image_id and not image_id.isdecimal():
            raise DataError(f"{path}, line {number}: {line!r} is not a COCO image id, a number or COCO's file name")
        ids.add(image_id)
    return ids - {""}


def caption_file_ids(path: Path, splits: Sequence[str], split_of_file: str | None) -> set[str]:
    """The ids of the images of *splits* in a caption file. Without *splits*, of all images, which may have no split."""
    named = {path: split_of_file} if split_of_file else {}
    options = CaptionOptions(named_splits=named, unknown_split=None if splits else "unknown")
    images = list(read_captions(path, options=options))
    found = {image.split for image in images}
    for split in splits:
        if split not in found:
            raise DataError(f"{path} has no images of split {split!r} to exclude; it has: {', '.join(sorted(found))}")
    return {image.key for image in images if not splits or image.split in splits}


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: caption_text(_parser().parse_args(arguments)))


def caption_text(args: argparse.Namespace) -> None:
    """Write the captions as text."""
    if args.output.exists() and not args.overwrite:
        raise DataError(f"{args.output} exists; pass --overwrite to replace it")
    check_at_least("--limit", args.limit, 1)
    check_at_least("--seed", args.seed, 0)
    if bool(args.exclude_ids or args.exclude) == args.exclude_nothing:
        raise DataError(
            "exclude the images of validation and test with --exclude-ids or --exclude; or, if you do not evaluate on "
            "any COCO image, pass --exclude-nothing and neither of these"
        )
    if args.exclude_splits and not args.exclude:
        raise DataError("--exclude-splits is for caption files: name them with --exclude")
    splits = [fairseq_split(split) for split in args.exclude_splits.split(",") if split]
    named = {path: read_ids(path) for path in args.exclude_ids}
    caption_files, splits_of_files = parse_files(args.exclude)
    named |= {path: caption_file_ids(path, splits, splits_of_files.get(path)) for path in caption_files}

    captions = read_coco(jar_path(), [args.part] if args.part else PARTS)
    images = set(captions.image_ids)
    part = args.part or "COCO 2014"
    print(f"{part}: {len(captions.texts):,} captions of {len(images):,} images")
    excluded: set[str] = set()
    for path, ids in named.items():
        print(f"{path}: {len(ids):,} images to leave out, {len(ids & images):,} of them in {part}")
        if not ids & images:
            raise DataError(f"{path} names no image of {part}: is it the right file?")
        excluded |= ids
    kept = [index for index, image_id in enumerate(captions.image_ids) if image_id not in excluded]
    left_out = len(captions.texts) - len(kept)
    if not kept:
        raise DataError("all captions of COCO are of excluded images; narrow --exclude with --exclude-splits")
    if args.limit is not None and args.limit < len(kept):
        import numpy as np

        sample = np.random.default_rng(args.seed).choice(len(kept), args.limit, replace=False)
        kept = [kept[index] for index in np.sort(sample)]
    with atomic_write(args.output) as aside:
        aside.write_text("".join(f"{captions.texts[index]}\n" for index in kept), encoding="utf-8")
    of_images = len({captions.image_ids[index] for index in kept})
    print(f"left out: {left_out:,} captions of {len(excluded & images):,} images")
    print(f"{args.output}: {len(kept):,} captions of {of_images:,} images")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="TEXT", help="text file to write")
    files: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument(
        "--exclude-ids", **files, type=Path, metavar="FILE", help="images to leave out, one id per line"
    )
    parser.add_argument(
        "--exclude", **files, metavar="[SPLIT=]CAPTIONS", help="caption files whose images to leave out"
    )
    parser.add_argument(
        "--exclude-splits", default="", metavar="val,test", help="leave out only these splits of --exclude"
    )
    parser.add_argument(
        "--exclude-nothing",
        action="store_true",
        help="keep the captions of all images, if you evaluate on none of COCO's",
    )
    parser.add_argument("--part", choices=PARTS, help="only the captions of this part of COCO 2014 [both]")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of N captions")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument("--overwrite", action="store_true", help="replace TEXT")
    return parser


if __name__ == "__main__":
    main()
