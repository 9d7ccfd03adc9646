#!/usr/bin/env python
"""How good can captions of the scenes be, and which facts do a model's captions get right?

The ceiling is the CIDEr of a true caption against the other four of its image (each of the five in turn, the mean).

example:
    xgpt-score-scenes scenes/dataset_scenes.json --split test --captions generate-test.txt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser


def main() -> None:
    run(lambda: score_scenes(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, metavar="JSON", help="dataset_scenes.json")
    parser.add_argument("--split", default="test")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="fairseq-generate's output, or COCO results")
    return parser


def score_scenes(args: argparse.Namespace) -> None:
    """Print the best possible score, and what the captions get right."""
    from xgpt_fairseq.captions.generated import read_captions
    from xgpt_fairseq.metrics.scores import score_captions
    from xgpt_fairseq.scenes.scores import ceiling, read_images, references, shares

    images = read_images(args.scenes, args.split)
    human = references(args.scenes, images)
    best = ceiling(human)
    print(f"ceiling: CIDEr {100 * best:.1f} of a true caption against the others, {len(images)} images")
    if args.captions is None:
        return
    captions = read_captions(args.captions, human)
    cider = score_captions(captions, human, ["cider"]).corpus["CIDEr"]
    print(f"these captions: CIDEr {100 * cider:.1f}, {cider / best:.2f} of the ceiling; right:")
    for name, share in shares(captions, images).items():
        print(f"{100 * share:5.1f} %  {name}")


if __name__ == "__main__":
    main()
