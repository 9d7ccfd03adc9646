#!/usr/bin/env python
"""The scores of a captioner on each data set, with intervals over photos; and its model card.

examples:
    python examples/real_photos/report.py --scores flickr8k=results/flickr8k/scores-valid.json --card card.md
    python examples/real_photos/report.py --scores coco=new/scores-valid.json --against coco=old/scores-valid.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments.comparison import paired_difference
from xgpt_fairseq.io.atomic import atomic_write

METRICS = ("CIDEr", "BLEU@4", "METEOR")
RESAMPLES = 10_000


def interval(values: np.ndarray, seed: int = 1) -> tuple[float, float]:
    """The 95 % interval of the mean of *values* (N,), by the bootstrap: for other photos, not for other seeds."""
    draws = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    low, high = np.quantile(draws @ values / len(values), [0.025, 0.975])
    return float(low), float(high)


def table(files: dict[str, Path]) -> str:
    """A row for each data set, in Markdown."""
    lines = ["| photos | number | CIDEr, 95 % interval | BLEU@4 | METEOR |", "|---" * 5 + "|"]
    for name, file in files.items():
        found = json.loads(file.read_text(encoding="utf-8"))
        low, high = interval(np.array([scores["CIDEr"] for scores in found["per_image"].values()]))
        scores = found["scores"]
        cells = [f"{scores['CIDEr']:.3f} [{low:.3f}, {high:.3f}]"]
        cells += [f"{scores[metric]:.3f}" if metric in scores else "–" for metric in METRICS[1:]]
        lines.append(f"| {name}, {file.stem.removeprefix('scores-')} | {found['images']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(files: dict[str, Path], others: dict[str, Path]) -> str:
    """CIDEr of *files* less that of *others*, paired over the photos of each data set.

    Raises:
        DataError: a data set has no file among *others*, or one of other photos.
    """
    lines = []
    for name, file in files.items():
        if name not in others:
            raise DataError(f"--against has no scores of {name}")
        one, other = (
            {image: scores["CIDEr"] for image, scores in json.loads(each.read_text("utf-8"))["per_image"].items()}
            for each in (file, others[name])
        )
        if one.keys() != other.keys():
            raise DataError(f"{file} and {others[name]} are of different photos")
        of_one, of_other = (np.array([[scores[image] for image in one]]) for scores in (one, other))  # (1 seed, N)
        found = paired_difference(of_one, of_other)
        lines.append(f"{name}: CIDEr {found.mean:+.3f} [{found.low:.3f}, {found.high:.3f}] against {others[name]}")
    return "\n".join(lines)


def named(option: str, words: list[str]) -> dict[str, Path]:
    """The files of words NAME=FILE."""
    files = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals:
            raise DataError(f"{option} {word}: NAME=FILE is needed")
        files[name] = Path(file)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", nargs="+", required=True, metavar="NAME=FILE", help="scores of xgpt-evaluate")
    parser.add_argument(
        "--against", nargs="+", metavar="NAME=FILE", help="scores of another captioner on the same photos"
    )
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: data, terms, limits")
    parser.add_argument("--card", type=Path, metavar="FILE", help="where to write the model card")
    args = parser.parse_args()
    files = named("--scores", args.scores)
    scores = table(files)
    print(f"\n{scores}")
    if args.against:
        print(differences(files, named("--against", args.against)))
    if args.card is None:
        return
    notes = args.notes.read_text(encoding="utf-8") if args.notes else "# An image captioner\n"
    with atomic_write(args.card) as aside:
        aside.write_text(f"{notes.strip()}\n\n## Scores\n\nBeam 2, one seed.\n\n{scores}\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
