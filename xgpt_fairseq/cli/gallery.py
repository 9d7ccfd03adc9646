"""`xgpt-gallery`: a page of a split's images with human and generated captions."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser, refuse_options
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import atomic_directory, atomic_write, check_writable, sync_file, writing
from xgpt_fairseq.metrics.segmentation import SEGMENTATIONS
from xgpt_fairseq.pages.gallery import ORDERS, choose_images, match_photos, render_gallery
from xgpt_fairseq.pages.pictures import THUMBNAIL, PhotoPlace

if TYPE_CHECKING:
    from xgpt_fairseq.data.directory import DataDirectory
    from xgpt_fairseq.regions.store import RegionStore

_EXAMPLE = """\
The page is one self-contained file, which needs no network. Images without a photo in DIR are drawn by their regions.

With --attention, the page shows where a model looks for each word: the mean of its layers' and heads' attention to the
regions, or of those that are chosen.

examples:
  xgpt-gallery --data data/coco --captions base=out/base/generate-test.txt tiny=out/tiny/generate-test.txt \\
      --photos val2014 --regions --order worst --limit 200 --output page.html
  xgpt-gallery --data data/coco --captions coco=out/generate-test.txt --attention coco=checkpoints/coco/averaged.pt \\
      --photos val2014 --output looks.html
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: gallery(_parse(arguments)))


def gallery(args: argparse.Namespace) -> None:
    """Read and score the captions, and write the page."""
    check_writable(args.output, overwrite=args.overwrite)
    check_at_least("--limit", args.limit, 1)
    check_at_least("--photo-size", args.photo_size, 16)
    if args.link_photos and args.copy_photos:
        raise DataError("--link-photos links the photos, --copy-photos copies of them: one of the two")
    if (args.link_photos or args.copy_photos) and not args.photos:
        raise DataError(f"--{'link' if args.link_photos else 'copy'}-photos needs --photos PATH")
    if args.copy_photos:
        _check_copies(args)
    from xgpt_fairseq.cli.gallery_inputs import add_attention, heads_of, models_of, read_credits, read_systems
    from xgpt_fairseq.data.directory import DataDirectory
    from xgpt_fairseq.devices import own_device, usable_device

    models, heads = models_of(args), heads_of(args)
    device = usable_device(args.device or own_device()) if models else "cpu"
    credits = None if args.credits is None else read_credits(args.credits)
    overlay = args.regions is not None
    regions = args.regions if isinstance(args.regions, Path) else None
    data = DataDirectory(args.data, regions=regions)
    references = data.references(args.split)
    metrics = [metric.strip() for metric in args.metrics.split(",")]
    systems = read_systems(args.captions, references, metrics, segmentation=args.segment)
    image_ids = choose_images(references, systems, args.order, args.limit)
    with atomic_write(args.output) as aside, _folder_of_copies(args) as place:
        photos = None
        if args.photos:
            photos = match_photos(args.photos, image_ids, place=place)
            if len(photos.files) < len(image_ids):
                missing = _images(len(image_ids) - len(photos.files))
                print(
                    f"{', '.join(map(str, args.photos))} has no photo of {missing}: regions are drawn instead",
                    file=sys.stderr,
                )
        if models:
            systems = add_attention(systems, models, data, image_ids, heads=heads, device=device, regions=regions)
        drawn = overlay or bool(models) or photos is None or len(photos.files) < len(image_ids)
        page = render_gallery(
            references,
            systems,
            image_ids,
            title=args.title or f"Captions of the {args.split} images",
            photos=photos,
            regions=data.regions if drawn else _labelled(data),
            overlay=overlay,
            credits=credits,
            note=args.note,
        )
        # On the disk before the copies' folder has its name: a folder without a page would be somebody's photos.
        with writing(args.output, aside):
            # "replace": a lone surrogate, which JSON can contain, has no UTF-8.
            aside.write_text(page, encoding="utf-8", errors="replace")
            sync_file(aside)
    print(f"{args.output}: {_images(len(image_ids))}, {args.output.stat().st_size / 1e6:.1f} MB")


def _labelled(data: DataDirectory) -> RegionStore | None:
    """The region store where it has labels, which say what captions miss; None where not, or where there is none."""
    if not data.regions_path.exists():
        return None
    return data.regions if "labels" in data.regions.manifest.arrays else None


def _copies(page: Path) -> Path:
    """The folder of --copy-photos."""
    return page.with_name(f"{page.stem}.photos")


def _check_copies(args: argparse.Namespace) -> None:
    """Refuse a folder whose photos are not the copies of a page, since those in it are replaced.

    Raises:
        DataError: it is there without --overwrite, or without the page, or --photos are in it.
    """
    folder = _copies(args.output)
    if not folder.exists():
        return
    if not args.overwrite:
        raise DataError(f"{folder} exists; give the page another name or --overwrite")
    inside = [path for path in args.photos if path.resolve().is_relative_to(folder.resolve())]
    if inside or not args.output.exists():
        why = f"--photos {inside[0]} is in it" if inside else f"there is no page {args.output} that it belongs to"
        raise DataError(f"{folder} is not replaced by copies: {why}; give the page another name")


@contextlib.contextmanager
def _folder_of_copies(args: argparse.Namespace) -> Iterator[PhotoPlace]:
    """Where the page's photos are; with --copy-photos, their folder is moved beside the page when all are there."""
    if not args.copy_photos:
        yield PhotoPlace(args.photo_size, link_from=args.output.parent if args.link_photos else None)
        return
    folder = _copies(args.output)
    with atomic_directory(folder, last="none", files=["*.jpg"]) as aside:  # no file identifies it
        yield PhotoPlace(args.photo_size, copy_to=aside, called=folder.name)


def _images(number: int) -> str:
    return f"{number} image{'s' if number != 1 else ''}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.photos:
        refuse_options(parser, args, ("photo_size",), "without --photos")
    if not args.attention:
        refuse_options(parser, args, ("device",), "without --attention")
    return args


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
        action="extend",
        required=True,
        metavar="NAME=FILE",
        help="fairseq-generate's output (generate-test.txt) or COCO results (JSON), with a name for the page",
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help="folders, tars or tables of photos, named by COCO's long names or the bare ids",
    )
    parser.add_argument("--link-photos", action="store_true", help="link the photos instead of embedding copies")
    parser.add_argument(
        "--copy-photos",
        action="store_true",
        help="put the copies into a folder beside the page, page.photos of page.html, instead of into it",
    )
    parser.add_argument(
        "--photo-size",
        type=int,
        default=THUMBNAIL,
        metavar="PIXELS",
        help="longer side of the copies (default: %(default)s)",
    )
    parser.add_argument(
        "--credits",
        type=Path,
        metavar="JSON",
        help='what stands below photos: {image id: {"text": …, "url": …, "licence": …, "licence_url": …}}',
    )
    parser.add_argument(
        "--attention",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=MODEL",
        help="show where models look for each word: a bundle or a checkpoint, with a name of --captions",
    )
    parser.add_argument("--attention-layers", metavar="LIST", help="their layers, such as 5,6 [the mean of all]")
    parser.add_argument("--attention-heads", metavar="LIST", help="their heads, such as 1 [the mean of all]")
    parser.add_argument("--device", help="of these models: cpu, cuda … [a GPU if there is one]")
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
    parser.add_argument(
        "--segment",
        choices=SEGMENTATIONS,
        help="words of languages without spaces, as xgpt-evaluate has them: char, each letter; jieba, Chinese words "
        "[char where captions have no spaces between words, otherwise none]",
    )
    parser.add_argument("--title", help="heading of the page (default: Captions of the <split> images)")
    parser.add_argument("--note", default="", metavar="TEXT", help="a line below the heading")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page (HTML)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return parser


if __name__ == "__main__":
    main()
