"""The file of phrases that captions must hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.token_generation_constraints import unpack_constraints

from xgpt_fairseq.data.caption_dataset import CaptionDataset
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.objectives import build_objectives
from xgpt_fairseq.search.constraints import read_constraints


@pytest.fixture(scope="module")
def directory(tiny_data: Path) -> DataDirectory:
    return DataDirectory(tiny_data)


@pytest.fixture(scope="module")
def dataset(directory: DataDirectory) -> CaptionDataset:
    """The training images 500, 123, 42, 8, 61, 3, 1000, 250, one item each."""
    dictionary = directory.vocabulary.dictionary
    return CaptionDataset(
        directory.captions("train"), directory.pairs("train"), directory.regions,
        build_objectives(["ic"], dictionary), split="train", pad=dictionary.pad(),
        first_caption_only=True, shuffle=False,
    )  # fmt: skip


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_batches_carry_the_phrases_of_their_images(
    directory: DataDirectory, dataset: CaptionDataset, tmp_path: Path
) -> None:
    text = "\ufeff42\ta red\tan old man\n\nCOCO_train2014_000000000500.jpg\tHorse\n42\ttable\n"
    constrained = read_constraints(write(tmp_path / "file", text), dataset, directory.vocabulary)
    assert len(constrained) == 8
    expected = {"42": ["a red", "an old man", "table"], "500": ["horse"]}
    # in any order, and in batches where nobody has any
    for indices in [[0, 1, 2, 3], [3, 2, 0], [1, 3], range(8)]:
        batch = constrained.collater([constrained[i] for i in indices])
        plain = dataset.collater([dataset[i] for i in indices])
        assert torch.equal(batch["target"], plain["target"])
        assert batch["image_ids"] == plain["image_ids"]
        found = [unpack_constraints(row) for row in batch["constraints"]]
        decode = directory.vocabulary.dictionary.string
        texts = [[directory.vocabulary.decode(decode(tokens)) for tokens in phrases] for phrases in found]
        assert texts == [expected.get(image, []) for image in batch["image_ids"]]


def test_it_is_still_a_caption_dataset(directory: DataDirectory, dataset: CaptionDataset, tmp_path: Path) -> None:
    constrained = read_constraints(write(tmp_path / "file", "42\ta red\n"), dataset, directory.vocabulary)
    indices = constrained.ordered_indices()
    assert indices.tolist() == list(range(8))
    assert np.array_equal(constrained.sizes, dataset.sizes)
    batches = constrained.batch_by_size(indices, max_sentences=5, required_batch_size_multiple=4)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(8))
    assert constrained.can_reuse_epoch_itr_across_epochs is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("42\ta\n500\n", r"line 2: '500' has no phrase after the image id \(separate by tabs\)"),
        ("42 a red\n", "line 1: .* has no phrase"),
        ("42\t\n", "line 1: '' has a part that the vocabulary cannot spell"),
        ("\n99\ta\n", "line 2: image 99 is not in split 'train'"),  # of the test split
        ("31\ta\n", "line 1: image 31 is not in split 'train'"),  # of the store, without captions
        ("4711\ta\n", "line 1: image 4711 is not in split 'train'"),
        ("42\ta red\tein Übel\n", "line 1: 'ein Übel' has a part that the vocabulary cannot spell"),
        ("42\t<mask>\n", "line 1: '<mask>' has a part"),
        (b"42\t\xff\n", "is not UTF-8 text"),
    ],
)
def test_refused(
    directory: DataDirectory, dataset: CaptionDataset, tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = tmp_path / "phrases.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_constraints(path, dataset, directory.vocabulary)
    assert str(path) in str(caught.value)


def test_no_such_file(directory: DataDirectory, dataset: CaptionDataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--constraints-file .* does not exist"):
        read_constraints(tmp_path / "none", dataset, directory.vocabulary)
