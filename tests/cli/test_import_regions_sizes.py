"""Sizes of photos for import_regions.py: by which ids they are found, and files that are none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from xgpt_fairseq.cli.import_regions import load_sizes
from xgpt_fairseq.errors import DataError


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"cocoid": 9, "imgid": 0}, {"9"}),  # an imgid is not taken for a cocoid
        ({"cocoid": 42.0, "imgid": 0}, {"42"}),  # as pandas makes numbers where some are missing
        ({"cocoid": "42.0"}, {"42"}),
        ({"cocoid": None, "filename": "COCO_val2014_000000000007.jpg", "imgid": 0}, {"7"}),
        ({"cocoid": math.nan, "id": None, "filename": "", "file_name": "a.jpg"}, {"a"}),
    ],
    ids=str,
)
def test_ids_of_sizes(tmp_path: Path, names: dict[str, object], found: set[str]) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps({"images": [{**names, "width": 1, "height": 2}]}))
    assert load_sizes([tmp_path / "sizes.json"]) == dict.fromkeys(found, (1, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("[]", 'no list "images"'),
        ('{"images": [{"cocoid": 1}]}', r"images\[0\] has no width and height.*COCO's instances_\*\.json"),
        ('{"images": [{"width": 1, "height": 2}]}', r"images\[0\] has no id"),
        ('{"images": [{"cocoid": [1], "width": 1, "height": 2}]}', r"images\[0\]: 'cocoid' must be an image's id"),
    ],
)
def test_sizes_that_are_broken(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sizes.json").write_text(text)
    with pytest.raises(DataError, match=rf"sizes\.json:? {message}"):
        load_sizes([tmp_path / "sizes.json"])
