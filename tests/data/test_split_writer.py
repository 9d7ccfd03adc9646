"""The files of a split of captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fairseq.data.indexed_dataset import MMapIndexedDataset

from xgpt_fairseq.data.manifest import CaptionSplit
from xgpt_fairseq.data.split_writer import SPLIT_FILES, SplitWriter

# (row, image id, caption, token ids, cut to the most tokens)
CAPTIONS = [
    (4, "42", "A cat.", [5, 6, 2], False),
    (4, "42", "Größe 3 …", [7, 2], True),
    (0, "a.jpg", 'says "no"', [8, 9, 9, 2], False),
    (7, "43", "", [2], True),
]


@pytest.mark.parametrize(("store_images", "dtype"), [(8, np.int32), (2**31 - 1, np.int32), (2**31, np.int64)])
def test_what_was_added_is_read(tmp_path: Path, store_images: int, dtype: type) -> None:
    writer = SplitWriter(tmp_path, "train", vocabulary_size=100)
    for row, image_id, text, ids, truncated in CAPTIONS:
        writer.add(row, image_id, text, np.array(ids), truncated)
    split = writer.finish(store_images=store_images)
    writer.close()
    names = [name.replace("*", "train") for name in SPLIT_FILES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    sizes = {kind: (tmp_path / f"train.captions.{kind}").stat().st_size for kind in ("bin", "idx")}
    assert split == CaptionSplit(3, 4, cut_to_max_tokens=2, bin_bytes=sizes["bin"], idx_bytes=sizes["idx"])
    rows = np.load(tmp_path / "train.pairs.npy")
    assert rows.dtype == dtype and rows.tolist() == [4, 4, 0, 7]
    tokens = MMapIndexedDataset(str(tmp_path / "train.captions"))
    assert [tokens[i].tolist() for i in range(len(tokens))] == [ids for _, _, _, ids, _ in CAPTIONS]
    text = (tmp_path / "train.references.json").read_text(encoding="utf-8")
    assert "Größe 3 …" in text and text.endswith("]}\n")
    assert json.loads(text) == {
        "images": [{"id": 42}, {"id": "a.jpg"}, {"id": 43}],
        "annotations": [
            {"id": 0, "image_id": 42, "caption": "A cat."},
            {"id": 1, "image_id": 42, "caption": "Größe 3 …"},
            {"id": 2, "image_id": "a.jpg", "caption": 'says "no"'},
            {"id": 3, "image_id": 43, "caption": ""},
        ],
    }


def test_a_split_without_captions(tmp_path: Path) -> None:
    writer = SplitWriter(tmp_path, "valid", vocabulary_size=100)
    split = writer.finish(store_images=1)
    assert (split.images, split.captions, split.cut_to_max_tokens, split.bin_bytes) == (0, 0, 0, 0)
    assert np.load(tmp_path / "valid.pairs.npy").shape == (0,)
    assert json.loads((tmp_path / "valid.references.json").read_text()) == {"images": [], "annotations": []}
