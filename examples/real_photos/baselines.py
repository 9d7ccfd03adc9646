#!/usr/bin/env python
"""What a captioner's CIDEr can be compared with: the caption of the nearest training photo, and one of a person.

The nearest training photo is that whose mean region feature has the largest cosine with the photo's; its first caption
is scored against all captions of the photo, as a captioner's is. A person's caption is scored against the others of its
photo: each in turn, and the mean of these scores.

example:
    python examples/real_photos/baselines.py real_photos/one+two/each/* --train real_photos/one+two/captions
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.cli import run
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.hard_images import mean_features
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.scenes.scores import ceiling

BLOCK = 256  # photos whose similarities to all training photos are in memory at once


def photos_of(data: DataDirectory, split: str) -> tuple[References, np.ndarray]:
    """The captions of the photos of *split*, and their mean region features, of length 1, (I, D) in the same order.

    Raises:
        DataError: *data* has no such split, or its region store is not there or another's.
    """
    references = data.references(split)
    rows = {data.regions.image_id(row): row for row in np.unique(data.pairs(split)).tolist()}
    means = mean_features(data.regions, np.array([rows[image_id] for image_id in references.image_ids]))
    return references, means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def nearest(features: np.ndarray, training: np.ndarray) -> list[int]:
    """The place in *training* (J, D) of the photo that is nearest to each of *features* (I, D); of two, the first."""
    blocks = [features[start : start + BLOCK] @ training.T for start in range(0, len(features), BLOCK)]
    return [place for block in blocks for place in block.argmax(axis=1).tolist()]


def checked(path: Path, split: str, train: DataDirectory | None) -> tuple[DataDirectory, DataDirectory]:
    """The data directories of the photos that are scored and of the training photos, before anything large is read.

    Raises:
        DataError: one is no data directory, or lacks its split, or their features are of different widths.
    """
    data = DataDirectory(path)
    train = train or data
    data.references_path(split), train.references_path("train")
    if data.regions.feature_dim != train.regions.feature_dim:
        raise DataError(
            f"{train.regions_path} has features of width {train.regions.feature_dim}, {data.regions_path} of width "
            f"{data.regions.feature_dim}: photos are compared by features of one network"
        )
    return data, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="data directory of the photos that are scored")
    parser.add_argument(
        "--train", type=Path, metavar="DATA", help="data directory of the training photos [each its own]"
    )
    parser.add_argument("--split", default="valid", help="of the photos that are scored [valid]")
    args = parser.parse_args()
    common = DataDirectory(args.train) if args.train else None
    pairs = [checked(path, args.split, common) for path in args.data]
    training = None
    lines = [
        "| photos | number | CIDEr of the nearest training photo's caption | of one person's caption |",
        "|---" * 4 + "|",
    ]
    for data, train in pairs:
        if training is None or common is None:
            training = photos_of(train, "train")
        first = [captions[0] for captions in training[0].captions.values()]
        references, features = photos_of(data, args.split)
        borrowed = [first[place] for place in nearest(features, training[1])]
        machine = score_captions(dict(zip(references.captions, borrowed, strict=True)), references, ["cider"])
        # of photos with one caption, people can't be compared
        several = min(map(len, references.captions.values())) > 1
        person = f"{ceiling(references):.3f}" if several else "–"
        cells = (f"{data.path.name}, {args.split}", str(len(features)), f"{machine.corpus['CIDEr']:.3f}", person)
        lines.append(f"| {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
