"""Phrases that generated captions must contain, for fairseq-generate's `--constraints`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import BaseWrapperDataset
from fairseq.token_generation_constraints import pack_constraints

from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.text.vocabulary import Vocabulary


class ConstrainedDataset(BaseWrapperDataset):
    """A caption dataset whose batches have constraints, packed for fairseq's constrained search.

    Args:
        dataset: one item per image.
        constraints: by image index, the phrases as token ids (T,).
    """

    def __init__(self, dataset: CaptionDataset, constraints: dict[int, list[torch.Tensor]]) -> None:
        super().__init__(dataset)
        self.constraints = constraints

    def collater(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The dataset's batch with `constraints` (items, longest)."""
        batch = self.dataset.collater(samples)
        rows = self.dataset.item_rows[batch["id"].numpy()].tolist()
        return {**batch, "constraints": pack_constraints([self.constraints.get(row, []) for row in rows])}


def read_constraints(path: Path, dataset: CaptionDataset, vocabulary: Vocabulary) -> ConstrainedDataset:
    """Read lines `image id<TAB>phrase[<TAB>phrase…]` and attach them to *dataset*.

    Raises:
        DataError: the file is missing, or a line has no phrase, an image outside the split, or an unknown word.
    """
    if not path.is_file():
        raise DataError(f"--constraints-file {path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    rows = set(dataset.item_rows.tolist())
    constraints: dict[int, list[torch.Tensor]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *phrases = line.split("\t")
        image_id = canonical_image_id(name)
        if not phrases:
            raise DataError(f"{path}, line {number}: {line!r} has no phrase after the image id (separate by tabs)")
        if not dataset.store.has(image_id) or dataset.store.image_index(image_id) not in rows:
            raise DataError(f"{path}, line {number}: image {image_id} is not in split {dataset.split!r}")
        for phrase in phrases:
            tokens = torch.from_numpy(vocabulary.encode_ids(phrase))
            if not len(tokens) or (tokens == vocabulary.dictionary.unk()).any():
                raise DataError(f"{path}, line {number}: {phrase!r} has a part that the vocabulary cannot spell")
            constraints.setdefault(dataset.store.image_index(image_id), []).append(tokens)
    return ConstrainedDataset(dataset, constraints)
