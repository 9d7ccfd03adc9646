"""`xgpt-export`: write a checkpoint as a bundle, a folder with everything that captioning needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface

_EXAMPLE = """\
example:
  xgpt-export checkpoints/coco/averaged.pt --output bundle
  xgpt-caption holiday/*.jpg --path bundle
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: export(_parser().parse_args(arguments)))


def export(args: argparse.Namespace) -> None:
    """Write the bundle, and print what it can caption."""
    output: Path = args.output
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; a bundle is a folder")
    if output.is_dir() and any(output.iterdir()) and not args.overwrite:
        raise DataError(f"{output} exists and is not empty; --overwrite replaces a bundle in it")
    captioner = XGPTHubInterface.from_path(args.checkpoint, data=args.data)
    captioner.save(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{output}: {sum(p.numel() for p in captioner.parameters()):,} parameters, {size / 1e6:.1f} MB")
    if captioner.extractor_settings is None:
        print(f"captions only region stores: the model was trained on {captioner.trained_on}")
    elif captioner.extractor_settings["grid"] is None:
        print("captions region stores, and photos with --detections: it was trained on boxes of a detector")
    else:
        print("captions photos and region stores")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xgpt-export", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, preferably an average")
    parser.add_argument("--output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--data", type=Path, help="its data directory, with vocabulary and regions [the one it was trained on]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    return parser


if __name__ == "__main__":
    main()
