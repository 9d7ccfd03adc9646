#!/usr/bin/env python
"""Draw the quickstart's data set: pictures of simple scenes with captions, made up by rules, without any download.

OUTPUT/images/*.jpg        the pictures of both sets
OUTPUT/dataset_web.json    noisy, one alt text per image: what out-of-domain pre-training reads; splits train, val
                           (left out by --web-train 0 --web-val 0)
OUTPUT/dataset_scenes.json clean, five captions per image; splits train, val, test, and `unseen`: each of its images
                           shows a pair of colour and kind that nothing else in the two sets shows or names

Both files are in Karpathy's format, with the `facts` of every image beside its captions. An image depends on the seed,
its split and its number alone: not on how many there are, nor on --workers.

examples:
    xgpt-draw-scenes --output scenes
    xgpt-draw-scenes --sheet scenes.png      # only look at some
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.scenes.sets import SCENES, SPLITS, WEB


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write, images and captions")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also, or only, a contact sheet (.png or .jpg)")
    parser.add_argument("--seed", type=int, default=1)
    for (dataset, split), (option, count) in SPLITS.items():
        flag = f"--{option.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=count, metavar="N", help=f"images of {dataset}, {split} ({count})")
    parser.add_argument("--pixels", type=int, default=256, help="width and height of the images (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    args = parser.parse_args()
    args.counts = {key: getattr(args, option) for key, (option, _) in SPLITS.items()}
    return args


def _check(args: argparse.Namespace) -> None:
    if args.output is None and args.sheet is None:
        raise DataError("nothing to do: name --output DIR, --sheet FILE or both")
    for ((dataset, _), count), (option, _) in zip(args.counts.items(), SPLITS.values(), strict=True):
        check_at_least(f"--{option.replace('_', '-')}", count, 0 if dataset == WEB else 1)
    web = [count for (dataset, _), count in args.counts.items() if dataset == WEB]
    if any(web) and not all(web):
        raise DataError("--web-train and --web-val: images for both, or for neither (0 leaves the set out)")
    check_at_least("--pixels", args.pixels, 64, "for things to be seen")
    if args.sheet is not None and args.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"--sheet {args.sheet} must end in .png or .jpg")
    for path in (args.output, args.sheet):
        if path is not None and path.exists() and not args.overwrite:
            raise DataError(f"{path} exists; pass --overwrite to replace it")
    if args.output is not None and args.output.exists():
        _check_replaceable(args.output)
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError:
        raise DataError('drawing needs Pillow: pip install "xgpt-fairseq[photos]"') from None


def _check_replaceable(output: Path) -> None:
    """Refuse what is no folder of scenes, or holds other things beside them: they would be gone."""
    if not (output / "dataset_scenes.json").is_file():
        raise DataError(f"{output} does not hold scenes (it has no dataset_scenes.json): it is not replaced")
    others = sorted(
        {file.name for file in output.iterdir()} - {"images", *(f"dataset_{d}.json" for d in (WEB, SCENES))}
    )
    if others:
        raise DataError(f"{output} also holds {', '.join(others[:5])}: move that away first, it would be deleted")


def main() -> None:
    run(lambda: draw_scenes(parse_arguments()))


def draw_scenes(args: argparse.Namespace) -> None:
    """Draw and write what was asked for."""
    _check(args)
    from xgpt_fairseq.scenes.dataset import write_data_set, write_sheet

    if args.output is not None:
        write_data_set(args.output, seed=args.seed, counts=args.counts, pixels=args.pixels, workers=args.workers)
        for (dataset, split), count in args.counts.items():
            if count:
                print(f"dataset_{dataset}.json  {split:<6}  {count:>5} images")
        print(f"written to {args.output}")
    if args.sheet is not None:
        write_sheet(args.sheet, seed=args.seed, pixels=args.pixels)
        print(f"written to {args.sheet}")


if __name__ == "__main__":
    main()
