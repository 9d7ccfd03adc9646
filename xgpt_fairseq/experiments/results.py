"""What came out: a table in Markdown, and a plot, of means and standard deviations beside the paper's numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from xgpt_fairseq.experiments.rows import Row, caption_scores
from xgpt_fairseq.experiments.runs import scores_file
from xgpt_fairseq.io.atomic import atomic_write

Scores = Mapping[str, float]


def read_scores(
    rows: Sequence[Row],
    seeds: Sequence[int],
    output: Path,
    read: Callable[[Mapping[str, Any]], dict[str, float]] = caption_scores,
    without: Collection[Path] = (),
) -> dict[str, list[Scores]]:
    """Row → the scores of its finished seeds, as *read* takes them from their scores-test.json.

    Args:
        without: folders of stages whose scores are left out, with those below them.
    """
    found: dict[str, list[Scores]] = {}
    for row in rows:
        files = [scores_file(row, seed, output, without) for seed in seeds]
        found[row.name] = [read(json.loads(file.read_text(encoding="utf-8"))) for file in files if file is not None]
    return found


def _values(scores: Sequence[Scores], metric: str) -> list[float]:
    return [each[metric] for each in scores if metric in each]


def table(rows: Sequence[Row], scores: Mapping[str, Sequence[Scores]], title: str, metrics: Sequence[str]) -> str:
    """Mean ± standard deviation over the finished seeds, and the paper's number in brackets."""
    lines = [f"| {title} | seeds | " + " | ".join(metrics) + " |", "|---" * (2 + len(metrics)) + "|"]
    for row in rows:
        cells = []
        for place, metric in enumerate(metrics):
            values = _values(scores[row.name], metric)
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            measured = f"{statistics.mean(values):.1f}{spread}" if values else "–"
            cells.append(measured + (f" ({row.paper[place]})" if place < len(row.paper) else ""))
        lines.append(f"| {row.name} | {len(scores[row.name])} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(
    rows: Sequence[Row], scores: Mapping[str, Sequence[Scores]], title: str, metrics: Sequence[str], file: Path
) -> None:
    """A panel a metric: dots with bars, the mean and standard deviation; on the upper axis, the paper's number."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = [metric for metric in metrics if any(_values(each, metric) for each in scores.values())]
    if not shown:
        return
    figure, axes = plt.subplots(
        1, len(shown), sharey=True, squeeze=False, figsize=(2.2 + 2.6 * len(shown), 1.6 + 0.34 * len(rows))
    )
    places = range(len(rows))
    for axis, metric in zip(axes[0], shown, strict=True):
        upper = axis.twiny()
        for place, row in zip(places, rows, strict=True):
            values = _values(scores[row.name], metric)
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0
                axis.errorbar(statistics.mean(values), place - 0.12, xerr=spread, fmt="o", capsize=3, color="C0")
                axis.plot(values, [place - 0.12] * len(values), "|", color="C0", alpha=0.5)
            if metrics.index(metric) < len(row.paper):
                upper.plot(row.paper[metrics.index(metric)], place + 0.18, "D", mfc="none", color="C1")
        axis.set_xlabel(f"{metric}, measured", color="C0")
        upper.set_xlabel("paper", color="C1")
        axis.margins(x=0.15)
        upper.margins(x=0.15)
        axis.grid(axis="y", alpha=0.3)
    axes[0][0].set_yticks(places, [row.name for row in rows])
    axes[0][0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title)
    figure.tight_layout()
    with atomic_write(file) as aside:
        figure.savefig(aside, dpi=110, format=file.suffix[1:])
    plt.close(figure)
