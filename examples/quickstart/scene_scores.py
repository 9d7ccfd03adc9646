#!/usr/bin/env python
"""How good can captions of the scenes be, and which facts do a model's captions get right?

The ceiling is the CIDEr of a true caption against the other four of its image (each of the five in turn, the mean).

example:
    python examples/quickstart/scene_scores.py scenes/dataset_scenes.json --split test --captions generate-test.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scene_claims import judge, read_claims

from xgpt_fairseq.captions.references import References, read_captions
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import read_description
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.regions.image_ids import canonical_image_id

Images = Mapping[str, Mapping[str, Any]]


def read_images(file: Path, split: str) -> dict[str, dict[str, Any]]:
    """Image id → record, of the images of *split* in a file that scenes.py wrote.

    Raises:
        DataError: no such file, no facts in it, or no image of that split.
    """
    value = read_description(file, what="a folder of scenes", made_by="examples/quickstart/scenes.py", newest=1)
    images = {canonical_image_id(image["filename"]): image for image in value["images"] if image["split"] == split}
    if not images:
        splits = sorted({image["split"] for image in value["images"]})
        raise DataError(f"{file} has no split {split!r}; it has: {', '.join(splits)}")
    return images


def references(file: Path, images: Images) -> References:
    """The captions of *images* as the metrics read them."""
    return References(file, {name: [s["raw"] for s in image["sentences"]] for name, image in images.items()})


def ceiling(human: References) -> float:
    """CIDEr of one of an image's captions against its others, each in turn, on pycocoevalcap's scale (1 is 100)."""
    count = min(map(len, human.captions.values()))
    if count < 2:
        raise DataError(f"{human.path}: an image has one caption only, there is no other to compare it with")
    total = 0.0
    for place in range(count):
        held_back = {name: texts[place] for name, texts in human.captions.items()}
        others = {name: texts[:place] + texts[place + 1 :] for name, texts in human.captions.items()}
        total += score_captions(held_back, References(human.path, others), ["cider"]).corpus["CIDEr"]
    return total / count


def shares(captions: Mapping[str, str], images: Images) -> dict[str, float]:
    """The share of *captions* with the right kinds, with right kinds and colours, with a true relation, with all."""
    verdicts = [judge(read_claims(text), images[name]["facts"]) for name, text in captions.items()]
    right: dict[str, Sequence[bool]] = {
        "kinds": [verdict.kinds for verdict in verdicts],
        "kinds and colours": [verdict.colours for verdict in verdicts],
        "relation": [verdict.relation is True for verdict in verdicts],
        "all of it": [verdict.colours and verdict.relation is True for verdict in verdicts],
    }
    return {name: sum(values) / len(values) for name, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, metavar="JSON", help="dataset_scenes.json")
    parser.add_argument("--split", default="test")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="fairseq-generate's output, or COCO results")
    args = parser.parse_args()
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
    run(main)
