"""`xgpt-export`: write a checkpoint as a bundle, a folder with everything that captioning needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    from xgpt_fairseq.bundle import Bundle
    from xgpt_fairseq.vision.packing import Packed

DTYPES = ("float32", "float16")  # of the parameters in a bundle

_EXAMPLE = """\
example:
  xgpt-export checkpoints/coco/averaged.pt --output bundle
  xgpt-caption holiday/*.jpg --path bundle
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: export(_parser().parse_args(arguments)))


def export(args: argparse.Namespace) -> None:
    """Write the bundle, and print what it can caption."""
    from xgpt_fairseq.bundle import DESCRIPTION
    from xgpt_fairseq.regions.novelty import FEWEST_IMAGES
    from xgpt_fairseq.vision.rebuilding import needs_boxes

    output: Path = args.output
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; a bundle is a folder")
    if output.is_dir() and any(output.iterdir()) and not args.overwrite:
        raise DataError(f"{output} exists and is not empty; --overwrite replaces a bundle in it")
    if output.is_dir() and any(output.iterdir()) and not (output / DESCRIPTION).exists():
        raise DataError(f"{output} is not a bundle (it has no {DESCRIPTION}), and is not replaced")
    bundle = _read(args)
    if args.card is not None:
        bundle.card = _read_card(args.card)
    if args.with_backbone:
        bundle.backbone = _packed(bundle, args)
    bundle.write(output, dtype=args.dtype)
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


def _read(args: argparse.Namespace) -> Bundle:
    from xgpt_fairseq.bundle import Bundle

    if not args.checkpoint.is_dir():
        return Bundle.of_checkpoint(args.checkpoint, args.data)
    if args.data is not None:
        raise DataError(f"{args.checkpoint} is a bundle, which needs no data directory; only checkpoints do")
    return Bundle.read(args.checkpoint)


def _packed(bundle: Bundle, args: argparse.Namespace) -> Packed | None:
    """The weights of the network that sees photos, and a line about their licence."""
    from xgpt_fairseq.vision.rebuilding import rebuild

    if bundle.extractor_settings is None:
        raise DataError(f"--with-backbone: the model was trained on {bundle.trained_on}, which no network here makes")
    packed = rebuild(
        bundle.extractor_settings, weights=args.backbone_weights or _own(bundle), offline=args.offline, device="cpu"
    ).packed
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-export", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, preferably an average; or a bundle")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--data", type=Path, help="its data directory, with vocabulary and regions [the one it was trained on]"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the stored parameters (%(default)s); float16 is half as large",
    )
    parser.add_argument("--card", type=Path, metavar="FILE", help="the model card, Markdown: README.md of the bundle")
    parser.add_argument(
        "--with-backbone",
        action="store_true",
        help="also pack the weights of the network that sees photos, so that the bundle needs no others",
    )
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="where those weights are, a folder for transformers [the published ones, or in the bundle]",
    )
    parser.add_argument("--offline", action="store_true", help="never fetch those weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


if __name__ == "__main__":
    main()
