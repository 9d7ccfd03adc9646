"""Is one row better than another? Differences of a score that each image has, with their interval."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xgpt_fairseq.experiments.rows import Row
from xgpt_fairseq.experiments.runs import scores_file

METRIC = "CIDEr"  # of a corpus it is the mean of its images', so that differences can be taken image by image


@dataclass(frozen=True)
class Difference:
    """A mean difference between two rows.

    Attributes:
        low, high: its 95 % interval.
        by_seed: of each seed alone.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]


def paired_difference(a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, seed: int = 1) -> Difference:
    """The mean of *a* less that of *b*, with an interval for other images and other seeds.

    Both vary: a row that is better on these images, or by these seeds, need not be better by others. So images and
    seeds are drawn with replacement, each by itself (the pigeonhole bootstrap, Owen 2007), the same ones for both rows.
    Of many images and many seeds it is rather too wide than too narrow. Of few seeds it may be too narrow: their means,
    drawn anew, stay between the least and the largest of `by_seed`. Where seeds differ and images hardly do, the true
    mean lies there 1 - 2 / 2^S of the time (differences above and below it being as likely): 75 % for three seeds. Read
    it with `by_seed`.

    Args:
        a, b: (S, N) score of image n after training with seed s; the same images and seeds in both.
    """
    difference = a - b
    seeds, images = difference.shape
    rng = np.random.default_rng(seed)
    of_images = rng.multinomial(images, np.full(images, 1 / images), size=resamples)  # (R, N) times each is drawn
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # (R, S)
    means = ((difference @ of_images.T).T * of_seeds).sum(axis=1) / difference.size  # (R,)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high), tuple(difference.mean(axis=1).tolist()))


def read_images(
    row: Row, seeds: Sequence[int], output: Path, without: Collection[Path] = ()
) -> dict[int, dict[str, float] | None]:
    """Seed → image id → 100 × `METRIC`, of the seeds that are finished; None where `METRIC` was not computed.

    Args:
        without: folders of stages whose scores are left out, with those below them.
    """
    found: dict[int, dict[str, float] | None] = {}
    for seed in seeds:
        file = scores_file(row, seed, output, without)
        if file is not None:
            images = json.loads(file.read_text(encoding="utf-8"))["per_image"]
            known = all(METRIC in scores for scores in images.values())
            found[seed] = {image_id: 100 * scores[METRIC] for image_id, scores in images.items()} if known else None
    return found


def comparisons(rows: Sequence[Row], seeds: Sequence[int], output: Path, without: Collection[Path] = ()) -> str:
    """A table in Markdown: each row less those that it is compared with, over the seeds that both have finished.

    Below it stands which rows are not compared since their scores lack `METRIC` (METRICS of the recipe chooses others),
    or are of different images. Empty where there is nothing to compare. *without*: see `read_images`.
    """
    known = {row.name: row for row in rows}
    pairs = [(row, known[name]) for row in rows for name in row.against if name in known]
    scores = {row.name: read_images(row, seeds, output, without) for pair in pairs for row in pair}
    lines, different = [], []
    for row, other in pairs:
        a, b = ({s: images for s, images in scores[each.name].items() if images is not None} for each in (row, other))
        both = [seed for seed in seeds if seed in a and seed in b]
        if not both:
            continue
        images = list(a[both[0]])
        if any(of[seed].keys() != set(images) for of in (a, b) for seed in both):
            different.append(f"{row.name} and {other.name}")
            continue
        found = paired_difference(*(np.array([[of[s][i] for i in images] for s in both]) for of in (a, b)))
        by_seed = ", ".join(f"{value:+.1f}" for value in found.by_seed)
        interval = f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        lines.append(f"| {row.name} less {other.name} | {len(images)} | {interval} | {by_seed} |")
    parts = []
    if lines:
        title = f"| {METRIC} | images | difference, 95 % interval | by seed |"
        parts.append("\n".join([title, "|---" * 4 + "|", *lines]) + "\n")
    unscored = {name: [str(seed) for seed, images in found.items() if images is None] for name, found in scores.items()}
    if lacking := [f"{name} (seed{'s' * (len(of) > 1)} {', '.join(of)})" for name, of in unscored.items() if of]:
        parts.append(f"Not compared, since their scores have no {METRIC}: {', '.join(lacking)}.\n")
    if different:
        parts.append(f"Not compared, since their scores are of different images: {', '.join(different)}.\n")
    return "\n".join(parts)
