"""Captions against a region store, before anything is encoded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.captions.test_formats import put
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.hold_out import hash_split
from xgpt_fairseq.captions.pairing import Pairing
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.captions.survey import UNCAPTIONED, Count, Survey, check_held_out, survey
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter


def surveyed(folder: Path, *sources: Path) -> Survey:
    """*sources*, against a store of the photos 1, 2 and 3."""
    if not (folder / "store").exists():
        with RegionWriter(folder / "store", 2, source={"format": "photos"}) as writer:
            for number in (1, 2, 3):
                features, boxes = np.ones((1, 2), dtype=np.float32), np.array([[0, 0, 1, 1]], dtype=np.float32)
                writer.add(number, features, boxes, position=number)
            writer.finish()
    images = read_sources([open_source(path) for path in sources], CaptionOptions())
    return survey(images, None, None, Pairing(RegionStore(folder / "store").names), folder)


def test_counts(tmp_path: Path) -> None:
    train = put(tmp_path, "train.csv", "image,caption\n1.jpg,a\n1.jpg,b\n4.jpg,c\n")
    found = surveyed(tmp_path, train, put(tmp_path, "val.csv", "image,caption\n3.jpg,d\n"))
    assert {split: (count.kept, count.captions, count.missing) for split, count in found.counts.items()} == {
        "train": (1, 2, 1),
        "valid": (1, 1, 0),
    }
    assert (found.uncaptioned, found.found) == (1, "2 by file name")
    assert (tmp_path / UNCAPTIONED).read_text() == "2\n"


def test_a_photo_has_its_captions_in_one_place(tmp_path: Path) -> None:
    human = put(tmp_path, "human_train.csv", "image,caption\n1.jpg,a\n2.jpg,b\n")
    machine = put(tmp_path, "machine_train.csv", "image,caption\n2.jpg,c\n")
    with pytest.raises(DataError, match=r"2 of .*machine_train.csv and an image of .*human_train.csv are both 2 of .*"
                                        r"store: put all captions of a photo into one file"):  # fmt: skip
        surveyed(tmp_path, human, machine)
    twice = put(tmp_path, "train.csv", "image,caption\n1.jpg,a\nimages/1.jpg,b\n")
    with pytest.raises(
        DataError, match=r"train.csv: images/1.jpg and another image are both 1 of .*: name a photo in one way"
    ):
        surveyed(tmp_path, twice)


def test_a_share_that_takes_no_image_is_refused() -> None:
    """By the hash of IMG_0001 to IMG_0012, a tenth is none; an empty split would be missing without a word."""

    def check(splits: list[str] | None = None, **shares: float) -> None:
        counts = {split: Count(images=n) for split, n in Counter(hash_split(n, shares) for n in names).items()}
        check_held_out(counts, shares, splits, "c.csv")

    names = [f"IMG_{number:04d}" for number in range(1, 13)]
    message = r"^--hold-out val=0\.1 took none of the 12 images of c\.csv \(it goes by a hash of their names\): "
    with pytest.raises(DataError, match=message + r"take a larger share, such as val=0\.2, or name the images"):
        check(valid=0.1)
    with pytest.raises(DataError, match=r"--hold-out test=0\.1 took none of the 12"):
        check(valid=0.2, test=0.1)
    check(["train"], valid=0.1)
    check(valid=0.2)
    check(extra=0.1)
    with pytest.raises(DataError, match=r"^c\.csv has no training images that --hold-out could take; it has: extra"):
        check_held_out({"extra": Count(images=3)}, {"valid": 0.1}, None, "c.csv")
