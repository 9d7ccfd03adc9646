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


def table(files: dict[str, list[Path]]) -> str:
    """A row for each file, in Markdown."""
    lines = ["| photos | number | CIDEr, 95 % interval | BLEU@4 | METEOR | words | repeats |", "|---" * 7 + "|"]
    for name, file in ((name, file) for name, of_seeds in files.items() for file in of_seeds):
        found = json.loads(file.read_text(encoding="utf-8"))
        scores = found["scores"]
        cells = [f"{scores[metric]:.3f}" if metric in scores else "–" for metric in METRICS]
        if "CIDEr" in scores:
            low, high = interval(np.array([of_photo["CIDEr"] for of_photo in found["per_image"].values()]))
            cells[0] += f" [{low:.3f}, {high:.3f}]"
        # files of earlier versions have no lengths
        cells += [f"{found['words']:.1f}" if "words" in found else "–"]
        cells += [f"{found['degenerate']['repeats']:.1%}" if "degenerate" in found else "–"]
        lines.append(f"| {name}, {file.stem.removeprefix('scores-')} | {found['images']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(files: dict[str, list[Path]], others: dict[str, list[Path]]) -> str:
    """CIDEr of *files* less that of *others*, paired over the photos of each data set, and over seeds.

    Of *others*, a data set has as many files, in the order of the same seeds, or one, with which all are compared.

    Raises:
        DataError: a data set has no file among *others*, another number of them, or one of other photos; or a file has
            no CIDEr.
    """
    lines = []
    for name, of_seeds in files.items():
        against = others.get(name, [])
        if len(against) not in (1, len(of_seeds)):
            raise DataError(f"--against has {len(against) or 'no'} scores of {name}, --scores {len(of_seeds)}")
        photos = list(_by_photo(of_seeds[0]))
        one, other = (_scores(each, photos) for each in (of_seeds, against))  # (S, N), (S or 1, N)
        found = paired_difference(one, np.broadcast_to(other, one.shape))
        line = f"{name}: CIDEr {found.mean:+.3f} [{found.low:.3f}, {found.high:.3f}] against {against[0]}"
        if len(of_seeds) > 1:
            line += "; by seed " + ", ".join(f"{each:+.3f}" for each in found.by_seed)
        lines.append(line)
    return "\n".join(lines)


def _by_photo(file: Path) -> dict[str, float]:
    found = json.loads(file.read_text("utf-8"))["per_image"]
    if not all("CIDEr" in scores for scores in found.values()):
        raise DataError(f"{file} has no CIDEr, by which captioners are compared: score with cider among METRICS")
    return {image: scores["CIDEr"] for image, scores in found.items()}


def seeds(files: dict[str, list[Path]]) -> str:
    """How many seeds the scores are of: as many as a data set has files."""
    numbers = {name: len(of_seeds) for name, of_seeds in files.items()}
    if len(set(numbers.values())) == 1:
        return _counted(*set(numbers.values()))
    return "; ".join(f"{name}: {_counted(number)}" for name, number in numbers.items())


def _counted(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"


def _scores(files: list[Path], photos: list[str]) -> np.ndarray:
    """(number of files, N) CIDEr of *photos*."""
    rows = []
    for file in files:
        found = _by_photo(file)
        if found.keys() != set(photos):
            raise DataError(f"{file} has scores of other photos")
        rows.append([found[photo] for photo in photos])
    return np.array(rows)


def named(option: str, words: list[str]) -> dict[str, list[Path]]:
    """The files of words NAME=FILE, those of one name in their order."""
    files: dict[str, list[Path]] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not equals:
            raise DataError(f"{option} {word}: NAME=FILE is needed")
        files.setdefault(name, []).append(Path(file))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scores",
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME=FILE",
        help="scores of xgpt-evaluate; of several seeds: a NAME several times",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        action="extend",
        metavar="NAME=FILE",
        help="scores of another captioner on the same photos, one or as many",
    )
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown for the card: data, terms, limits")
    parser.add_argument("--card", type=Path, metavar="FILE", help="where to write the model card")
    args = parser.parse_args()
    files = named("--scores", args.scores)
    scores = table(files)
    print(f"\n{scores}")
    if args.against:
        others = named("--against", args.against)
        print(f"\nagainst\n\n{table(others)}\n\n{differences(files, others)}")
    if args.card is None:
        return
    notes = args.notes.read_text(encoding="utf-8") if args.notes else "# An image captioner\n"
    with atomic_write(args.card) as aside:
        aside.write_text(f"{notes.strip()}\n\n## Scores\n\nBeam 2, {seeds(files)}.\n\n{scores}\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
