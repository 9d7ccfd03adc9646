"""The report of an augmentation: counts, diversity and examples, as JSON and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from xgpt_fairseq.augmentation.diversity import ORDERS, diversity, new_ngrams, sample, self_bleu
from xgpt_fairseq.augmentation.filters import REASONS
from xgpt_fairseq.augmentation.generate import AugmentationTarget, Generated

SELF_BLEU_SAMPLE = 5000  # captions; the more, the higher it is
EXAMPLES = 5
_COLUMNS = {
    "original": "original",
    "original_sample": "original, as many",
    "generated": "generated",
    "together": "together",
}


def make_report(images: Sequence[AugmentationTarget], generated: Sequence[Generated], *, seed: int) -> dict[str, Any]:
    """Compute counts, diversity and examples.

    Returns:
        dict: `counts`; `dropped`, the number of captions by reason (`REASONS`); `diversity` by set of captions, where
        `original_sample` has as many captions as `generated`; `self_bleu_sample`; `new_ngrams`; `examples`.
    """
    own = [text for image in images for text in image.own]
    new = [text for each in generated for text in each.captions]
    counts = {
        "images": len(images),
        "original": len(own),
        "generated": len(new),
        "per_image": len(new) / len(images) if images else 0.0,
        "drawn": sum(each.drawn for each in generated),
        "surplus": sum(each.surplus for each in generated),
        "missing": sum(each.missing for each in generated),
        "images_short": sum(each.missing > 0 for each in generated),
    }
    dropped: Counter[str] = Counter()
    for each in generated:
        dropped.update(each.dropped)
    bleu_sample = min(SELF_BLEU_SAMPLE, len(own), len(new))
    sets = {"original": own, "original_sample": sample(own, len(new), seed), "generated": new, "together": own + new}
    measured = {
        name: diversity(captions) | {"self_bleu": self_bleu(sample(captions, bleu_sample, seed))}
        for name, captions in sets.items()
    }
    chosen = np.random.default_rng([seed, len(images)]).permutation(len(images))[:EXAMPLES]
    return {
        "counts": counts,
        "dropped": {reason: dropped[reason] for reason in REASONS},
        "diversity": measured,
        "self_bleu_sample": bleu_sample,
        "new_ngrams": new_ngrams(new, own),
        "examples": [
            {
                "split": images[index].split,
                "image_id": images[index].image_id,
                "original": images[index].own,
                "generated": generated[index].captions,
            }
            for index in sorted(chosen.tolist())
        ],
    }


def to_markdown(report: dict[str, Any], title: str) -> str:
    """Format the report as Markdown."""
    counts, measured = report["counts"], report["diversity"]
    dropped = report["dropped"]
    lines = [
        f"# {title}",
        "",
        f"{counts['generated']:,} captions were generated for {counts['images']:,} images "
        f"({counts['per_image']:.2f} each), beside {counts['original']:,} original ones.",
        "",
        f"{counts['drawn']:,} were drawn, of which {counts['surplus']:,} were good but not needed, and "
        f"{sum(dropped.values()):,} dropped:",
        "",
        "| dropped | captions |",
        "|---|---:|",
        *(f"| {REASONS[reason]} | {number:,} |" for reason, number in dropped.items()),
        "",
        f"{counts['missing']:,} captions are missing, of {counts['images_short']:,} images."
        if counts["missing"]
        else "Every image has all its captions.",
        "",
        "## Diversity",
        "",
        "| | " + " | ".join(_COLUMNS.values()) + " |",
        "|---|" + "---:|" * len(_COLUMNS),
        *(_row(label, name, decimals, measured) for label, name, decimals in _rows(report)),
        "",
        'Compare "generated" with "original, as many", a random part of as many captions: most of these numbers depend '
        "on the size of the set. self-BLEU is BLEU@4 of each caption against the others: lower is more varied.",
        "",
        "New n-grams, in no original caption: "
        + ", ".join(f"{100 * share:.1f} % of {n}-grams" for n, share in report["new_ngrams"].items())
        + ".",
        "",
        "## Examples",
        "",
    ]
    for example in report["examples"]:
        lines += [f"Image {example['image_id']} ({example['split']})", ""]
        lines += [f"- original: {_plain(text)}" for text in example["original"]]
        lines += [f"- **generated**: {_plain(text)}" for text in example["generated"]]
        lines.append("")
    return "\n".join(lines)


def _rows(report: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(label, name in the report, decimals)."""
    return [
        ("captions", "captions", 0),
        ("words per caption", "mean_length", 2),
        ("different words", "vocabulary", 0),
        *((f"distinct-{n}", f"distinct_{n}", 4) for n in ORDERS),
        (f"self-BLEU (of {report['self_bleu_sample']:,})", "self_bleu", 4),
    ]


def _row(label: str, name: str, decimals: int, measured: dict[str, dict[str, float]]) -> str:
    return f"| {label} | " + " | ".join(f"{measured[column][name]:,.{decimals}f}" for column in _COLUMNS) + " |"


def _plain(text: str) -> str:
    """The caption on one line."""
    return " ".join(text.split())
