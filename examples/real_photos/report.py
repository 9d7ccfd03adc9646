#!/usr/bin/env python
"""The scores of a captioner on each data set, with intervals over photos; and its model card.

example:
    python examples/real_photos/report.py --scores flickr8k=results/flickr8k/scores-valid.json --card card.md
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", nargs="+", required=True, metavar="NAME=FILE", help="scores of xgpt-evaluate")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: data, terms, limits")
    parser.add_argument("--card", type=Path, required=True, metavar="FILE", help="where to write the model card")
    args = parser.parse_args()
    files = {}
    for word in args.scores:
        name, equals, file = word.partition("=")
        if not equals:
            raise DataError(f"--scores {word}: NAME=FILE is needed")
        files[name] = Path(file)
    scores = table(files)
    print(f"\n{scores}")
    notes = args.notes.read_text(encoding="utf-8") if args.notes else "# An image captioner\n"
    with atomic_write(args.card) as aside:
        aside.write_text(f"{notes.strip()}\n\n## Scores\n\nBeam 2, one seed.\n\n{scores}\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
