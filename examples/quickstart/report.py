#!/usr/bin/env python
"""The quickstart's table: scores of each stage, beside what a person's caption scores.

example:
    python examples/quickstart/report.py --results output/results --data output/captions --subsets test,unseen
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from xgpt_fairseq.captions.generated import read_captions
from xgpt_fairseq.captions.references import References, read_references
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.ptb import PtbTokenizer
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.scenes.scores import read_images, shares

METRICS = ("CIDEr", "BLEU@4", "ROUGE-L")  # METEOR of every held-back caption would take a minute
STAGES = {"out_of_domain": "out-of-domain", "in_domain": "in-domain", "finetune": "fine-tuned"}


def held_back(references: References) -> Iterator[tuple[dict[str, str], References]]:
    """Each in turn of an image's captions as if it were generated, and the others as references.

    As many turns as the image with the fewest captions has; images keep their other captions as references.
    """
    turns = min(len(captions) for captions in references.captions.values())
    if turns < 2:
        raise DataError(f"{references.path}: an image has one caption, so that none can be held back")
    for turn in range(turns):
        spoken = {image: captions[turn] for image, captions in references.captions.items()}
        others = {
            image: [caption for i, caption in enumerate(captions) if i != turn]
            for image, captions in references.captions.items()
        }
        yield spoken, References(references.path, others)


def human_scores(references: References) -> dict[str, float]:
    """What a held-back human caption scores against the image's other captions: the mean over `held_back`."""
    names, tokenize = ("cider", "bleu", "rouge"), PtbTokenizer()
    scores = [
        score_captions(spoken, others, names, tokenize=tokenize).corpus for spoken, others in held_back(references)
    ]
    return {name: statistics.mean(score[name] for score in scores) for name in METRICS}


def rows(results: Path, references: References, subset: str) -> Iterator[tuple[str, dict[str, float]]]:
    """The stages that were scored on *subset*, in their order, and a person."""
    for folder, name in STAGES.items():
        file = results / folder / f"scores-{subset}.json"
        if file.is_file():
            yield name, json.loads(file.read_text(encoding="utf-8"))["scores"]
    yield "a held-back human caption", human_scores(references)


def cell(score: float | None) -> str:
    """A score of the table; None: METRICS left it out."""
    return f"{'–':>9}" if score is None else f"{100 * score:9.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder with a folder of scores for each stage")
    parser.add_argument("--data", type=Path, required=True, help="data directory that was captioned")
    parser.add_argument("--subsets", default="test")
    parser.add_argument(
        "--scenes", type=Path, metavar="JSON", help="dataset_scenes.json: which facts of the scenes are right"
    )
    args = parser.parse_args()
    for subset in args.subsets.split(","):
        references = read_references(args.data / f"{subset}.references.json")
        table = list(rows(args.results, references, subset))
        print(f"\n{subset}: {len(references.captions)} images, scores × 100")
        print(f"{'':26}" + "".join(f"{name:>9}" for name in METRICS))
        for name, scores in table:
            print(f"{name:26}" + "".join(cell(scores.get(metric)) for metric in METRICS))
        *_, (last, captioner), (_, person) = table
        if "CIDEr" in captioner:
            print(f"CIDEr {last} / human: {captioner['CIDEr'] / person['CIDEr']:.2f}")
        if args.scenes is not None:
            captions = read_captions(args.results / "finetune" / f"generate-{subset}.txt", references)
            right = shares(captions, read_images(args.scenes, subset))
            print("right: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in right.items()))


if __name__ == "__main__":
    run(main)
