"""`xgpt-gallery`: a page of a split's images with human and generated captions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import atomic_write, check_writable
from xgpt_fairseq.pages.gallery import ORDERS, System, choose_images, match_photos, render_gallery

if TYPE_CHECKING:
    from xgpt_fairseq.captions.references import References

_EXAMPLE = """\
The page is one self-contained file, readable without network and scripts; scripts only sort and search. Images without
a photo in DIR are drawn by their regions.

example:
  xgpt-gallery --data data/coco --captions base=out/base/generate-test.txt tiny=out/tiny/generate-test.txt \\
      --photos val2014 --regions --order worst --limit 200 --output page.html
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: gallery(_parser().parse_args(arguments)))


def gallery(args: argparse.Namespace) -> None:
    """Read and score the captions, and write the page."""
    check_writable(args.output, overwrite=args.overwrite)
    check_at_least("--limit", args.limit, 1)
    from xgpt_fairseq.data.directory import DataDirectory

    overlay = args.regions is not None
    data = DataDirectory(args.data, regions=args.regions if isinstance(args.regions, Path) else None)
    references = data.references(args.split)
    systems = read_systems(args.captions, references, [metric.strip() for metric in args.metrics.split(",")])
    image_ids = choose_images(references, systems, args.order, args.limit)
    photos = None
    if args.photos:
        photos = match_photos(args.photos, image_ids, link_from=args.output.parent if args.link_photos else None)
        if len(photos.files) < len(image_ids):
            missing = _images(len(image_ids) - len(photos.files))
            print(
                f"{', '.join(map(str, args.photos))} has no photo of {missing}: regions are drawn instead",
                file=sys.stderr,
            )
    drawn = overlay or photos is None or len(photos.files) < len(image_ids)
    page = render_gallery(
        references,
        systems,
        image_ids,
        title=args.title or f"Captions of the {args.split} images",
        photos=photos,
        regions=data.regions if drawn else None,
        overlay=overlay,
    )
    with atomic_write(args.output) as aside:
        # "replace": a lone surrogate, which JSON can contain, has no UTF-8.
        aside.write_text(page, encoding="utf-8", errors="replace")
    print(f"{args.output}: {_images(len(image_ids))}, {args.output.stat().st_size / 1e6:.1f} MB")


def read_systems(arguments: Sequence[str], references: References, metrics: Sequence[str]) -> list[System]:
    """The captions of each of *arguments*, `NAME=FILE`, with their scores.

    Raises:
        DataError: an argument is not NAME=FILE, or a name is used twice; also see `read_captions`, `score_systems`.
    """
    from xgpt_fairseq.captions.generated import read_captions
    from xgpt_fairseq.metrics.scores import score_systems

    files: dict[str, Path] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not (name and equals and file):
            raise DataError(f"--captions {argument!r} is not NAME=FILE, such as base=out/generate-test.txt")
        if name in files:
            raise DataError(f"--captions: {files[name]} and {file} are both called {name!r}; names must differ")
        files[name] = Path(file)
    captions = {name: read_captions(file, references) for name, file in files.items()}  # all, before the slow part
    systems = []
    for name, scores in zip(captions, score_systems(list(captions.values()), references, metrics), strict=True):
        for metric, reason in scores.left_out.items():
            print(f"{name}: {metric} left out: {reason}", file=sys.stderr)
        if not scores.corpus:
            raise DataError(f"--metrics {','.join(metrics)}: none could be computed")
        systems.append(System(name, captions[name], scores))
    return systems


def _images(number: int) -> str:
    return f"{number} image{'s' if number != 1 else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-gallery",
        description="Write one HTML page with each image of a split, its human captions, those of models, and the "
        "scores of the corpus and of each image.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="the data directory")
    parser.add_argument("--split", default="test", help="the split whose images to show (default: %(default)s)")
    parser.add_argument(
        "--captions",
        nargs="+",
        required=True,
        metavar="NAME=FILE",
        help="fairseq-generate's output (generate-test.txt) or COCO results (JSON), with a name for the page",
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders, tars or tables of photos, named by COCO's long names or the bare ids",
    )
    parser.add_argument("--link-photos", action="store_true", help="link the photos instead of embedding copies")
    parser.add_argument(
        "--regions",
        nargs="?",
        type=Path,
        const=True,
        metavar="STORE",
        help="also draw regions over the photos, with a switch; from STORE instead of the region store of DATA",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="split",
        help="order of the images: the split's, by id, or by CIDEr of the first captions (default: %(default)s)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of this order")
    parser.add_argument(
        "--metrics", default="bleu,meteor,rouge,cider", metavar="LIST", help="what to compute (default: %(default)s)"
    )
    parser.add_argument("--title", help="heading of the page (default: Captions of the <split> images)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page (HTML)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


if __name__ == "__main__":
    main()
