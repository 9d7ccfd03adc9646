"""Data directories: what is read from where, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.data.directory import DataDirectory, TextDirectory, check_replaceable, file_crc32
from xgpt_fairseq.data.indexed_writer import IndexedWriter
from xgpt_fairseq.data.manifest import TextManifest, TextSplit
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.text.vocabulary import Vocabulary


@pytest.fixture
def copy(tiny_data: Path, tiny_store: Path, tmp_path: Path) -> Path:
    """The tiny data directory and its store, side by side as they were, to be changed."""
    shutil.copytree(tiny_store, tmp_path / tiny_store.name)
    shutil.copytree(tiny_data, tmp_path / "data")
    return tmp_path / "data"


def test_reads_what_was_prepared(tiny_data: Path, tiny_captions: Path, tiny_store: Path) -> None:
    directory = DataDirectory(tiny_data)
    store, vocabulary = RegionStore(tiny_store), Vocabulary(tiny_data)
    assert directory.regions.path == tiny_store
    assert directory.vocabulary.dictionary.symbols == vocabulary.dictionary.symbols
    images = json.loads(tiny_captions.read_text())["images"]
    for split, names in {"train": ("train", "restval"), "valid": ("val",), "test": ("test",)}.items():
        assert directory.has_split(split)
        expected = [(i["cocoid"], s["raw"]) for i in images if i["split"] in names for s in i["sentences"]]
        captions, pairs = directory.captions(split), directory.pairs(split)
        assert len(captions) == len(pairs) == len(expected)
        assert [store.image_id(row) for row in pairs.tolist()] == [str(image) for image, _ in expected]
        for caption, (_, text) in zip(captions, expected, strict=True):
            assert caption.tolist() == [*vocabulary.encode_ids(text).tolist(), vocabulary.dictionary.eos()]
        references = json.loads(directory.references_path(split).read_text())
        assert [(a["image_id"], a["caption"]) for a in references["annotations"]] == expected
    assert not directory.has_split("val")


def _describe(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "dataset.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is not a data directory: it has no dataset.json"),
        (_remove("dataset.json"), "is not a data directory"),
        (lambda folder: (folder / "dataset.json").write_text("{"), "dataset.json is not JSON"),
        (lambda folder: (folder / "dataset.json").write_text("[]"), "holds no JSON object"),
        (_describe(version=2), "has format version 2, this xgpt_fairseq reads versions up to 1: upgrade"),
        (_remove("train.captions.bin"), r"train\.captions\.bin is missing; prepare .* again"),
        (_remove("train.captions.idx"), r"train\.captions\.idx is missing"),
        (_remove("train.pairs.npy"), r"train\.pairs\.npy is missing"),
        (_remove("vocabulary.json"), "is not a vocabulary folder"),
        (lambda folder: shutil.rmtree(folder.parent / "tiny.regions"), r"tiny\.regions: .*name it by --regions STORE"),
    ],
)
def test_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    def use() -> None:
        directory = DataDirectory(copy)
        directory.captions("train")
        directory.pairs("train")
        _ = directory.vocabulary
        _ = directory.regions

    use()  # whole as yet
    damage(copy)
    with pytest.raises(DataError, match=message) as caught:
        use()
    assert str(copy.parent) in str(caught.value)


@pytest.mark.parametrize("method", ["captions", "pairs", "references_path"])
def test_unknown_split(tiny_data: Path, method: str) -> None:
    with pytest.raises(DataError, match="no captions for split 'val'; it has: train, valid, test"):
        getattr(DataDirectory(tiny_data), method)("val")


@pytest.mark.parametrize("images", [[1, 2, 3], [500, 7, 123, 42, 99, 8, 61, 3, 77, 1000, 15, 250, 31]])
def test_a_store_of_other_images_or_another_order(
    tiny_data: Path, tmp_path: Path, write_store: Callable[..., Path], images: list[int]
) -> None:
    other = write_store(tmp_path / "other", images=images)
    with pytest.raises(DataError, match="does not hold the images, in the order") as caught:
        _ = DataDirectory(tiny_data, regions=other).regions
    assert str(other) in str(caught.value)


def test_other_features_of_the_same_images(tiny_data: Path, tmp_path: Path, write_store: Callable[..., Path]) -> None:
    other = write_store(tmp_path / "other", feature_dim=3)
    store = DataDirectory(tiny_data, regions=other).regions
    assert store.path == other
    assert store.feature_dim == 3


def test_a_store_in_the_directory_is_preferred(copy: Path, write_store: Callable[..., Path]) -> None:
    write_store(copy / "regions", feature_dim=5)
    assert DataDirectory(copy).regions.path == copy / "regions"
    assert DataDirectory(copy).regions.feature_dim == 5
    # but not to one that is named
    named = copy.parent / "tiny.regions"
    assert DataDirectory(copy, regions=named).regions.path == named


def test_a_link_in_the_directory_will_do(copy: Path) -> None:
    (copy.parent / "tiny.regions").rename(copy.parent / "elsewhere")
    (copy / "regions").symlink_to(copy.parent / "elsewhere")
    assert len(DataDirectory(copy).regions) == 13


def test_the_directory_and_its_store_move_together(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for name in ("data", "tiny.regions"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    directory = DataDirectory(tmp_path / "new" / "data")
    assert directory.regions.path == tmp_path / "new" / "tiny.regions"
    assert np.array_equal(directory.pairs("test"), np.load(tmp_path / "new/data/test.pairs.npy"))


@pytest.fixture
def copied(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data directory, to be damaged."""
    path = tmp_path / "data"
    shutil.copytree(tiny_data, path)
    (path / "regions").symlink_to(DataDirectory(tiny_data).regions_path)
    return path


def test_pairs_of_another_split(copied: Path) -> None:
    shutil.copyfile(copied / "valid.pairs.npy", copied / "train.pairs.npy")
    with pytest.raises(DataError, match=r"train\.pairs\.npy holds .*the captions of split 'train', expected"):
        DataDirectory(copied).pairs("train")


def test_pairs_with_rows_behind_the_last_image(copied: Path) -> None:
    rows = np.load(copied / "test.pairs.npy")
    images = len(DataDirectory(copied).regions)
    for row, right in ((images - 1, True), (images, False)):
        rows[3] = row
        np.save(copied / "test.pairs.npy", rows)
        if right:
            assert DataDirectory(copied).pairs("test").tolist() == rows.tolist()
            continue
        with pytest.raises(DataError, match=rf"test\.pairs\.npy pairs .* rows 0 to {images}; .* {images} images"):
            DataDirectory(copied).pairs("test")


def test_references_of_another_split(copied: Path) -> None:
    shutil.copyfile(copied / "train.references.json", copied / "valid.references.json")
    with pytest.raises(DataError, match=r"valid\.references\.json has \d+ images, split 'valid' has \d+"):
        DataDirectory(copied).references("valid")


def test_a_dictionary_that_was_changed(copied: Path) -> None:
    lines = (copied / "dict.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (copied / "dict.txt").write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    with pytest.raises(DataError, match=r"dict\.txt was changed since the captions were encoded"):
        _ = DataDirectory(copied).vocabulary


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_captions_cut_short(copied: Path, kind: str) -> None:
    file = copied / f"train.captions.{kind}"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match=rf"train\.captions\.{kind} has \d+ bytes instead of \d+"):
        DataDirectory(copied).captions("train")


# Text


SENTENCES = {"train": [[5, 6, 2], [7, 2], [5, 5, 5, 2]], "valid": [[6, 2]]}


@pytest.fixture
def text(tiny_vocabulary: Path, tmp_path: Path) -> Path:
    """A text directory with `SENTENCES`."""
    path = tmp_path / "text"
    path.mkdir()
    vocabulary = Vocabulary(tiny_vocabulary)
    vocabulary.copy_to(path)
    splits = {}
    for split, sentences in SENTENCES.items():
        with IndexedWriter(path / f"{split}.text", vocabulary_size=len(vocabulary.dictionary)) as writer:
            for ids in sentences:
                writer.add(ids, [len(ids)])
            splits[split] = TextSplit(writer.sentences, writer.tokens, **writer.finish())
    TextManifest(splits, max_tokens=60, dictionary_crc32=file_crc32(path / "dict.txt"), made_by={}).write(path)
    return path


def test_text(text: Path, tiny_vocabulary: Path) -> None:
    directory = TextDirectory(text)
    assert directory.vocabulary.dictionary.symbols == Vocabulary(tiny_vocabulary).dictionary.symbols
    for split, expected in SENTENCES.items():
        assert directory.has_split(split)
        sentences = directory.sentences(split)
        assert [sentences[index].tolist() for index in range(len(sentences))] == expected
        assert str(sentences[0].dtype) == "torch.int64"
    assert not directory.has_split("test")
    with pytest.raises(DataError, match=r"has no sentences for split 'test'; it has: train, valid"):
        directory.sentences("test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"is not a data directory: it has no dataset\.json \(see xgpt-prepare-text\)"),
        (_describe(version=2), "has format version 2"),
        (_remove("train.text.bin"), r"train\.text\.bin is missing; prepare .* again"),
        (_remove("train.text.idx"), r"train\.text\.idx is missing"),
        (lambda folder: (folder / "train.text.idx").write_bytes(b"x"), r"train\.text\.idx has 1 bytes instead of \d+"),
        (lambda folder: (folder / "dict.txt").write_text("a 1\n"), "was changed since the sentences were encoded"),
        (_remove("vocabulary.json"), "is not a vocabulary folder"),
    ],
)
def test_text_refused(text: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(text)
    with pytest.raises(DataError, match=message) as caught:
        _ = TextDirectory(text).sentences("train"), TextDirectory(text).vocabulary
    assert str(text) in str(caught.value)


def test_the_wrong_kind_says_which_task_and_which_program(text: Path, tiny_data: Path) -> None:
    with pytest.raises(DataError) as caught:
        DataDirectory(text)
    assert str(caught.value) == (
        f"{text} holds sentences, for the task xgpt_text_pretrain; captions, for the tasks xgpt_caption and "
        "xgpt_pretrain, are needed here: prepare them with xgpt-prepare-captions"
    )
    with pytest.raises(DataError) as caught:
        TextDirectory(tiny_data)
    assert str(caught.value) == (
        f"{tiny_data} holds captions, for the tasks xgpt_caption and xgpt_pretrain; sentences, for the task "
        "xgpt_text_pretrain, are needed here: prepare them with xgpt-prepare-text"
    )


@pytest.mark.parametrize("kind", [DataDirectory, TextDirectory])
def test_an_unknown_kind(text: Path, kind: type) -> None:
    _describe(kind="video")(text)
    with pytest.raises(DataError, match="holds data of the unknown kind 'video'"):
        kind(text)


def test_captions_may_name_their_kind(copied: Path) -> None:
    assert "kind" not in json.loads((copied / "dataset.json").read_text())
    _describe(kind="captions")(copied)
    assert len(DataDirectory(copied).captions("test")) == 10


def test_what_may_be_replaced(text: Path, tiny_data: Path, tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new", "text", overwrite=False)
    check_replaceable(text, "text", overwrite=True)
    check_replaceable(tiny_data, "captions", overwrite=True)
    for path, kind, overwrite, message in [
        (text, "text", False, "exists; pass --overwrite to replace it"),
        (text, "captions", True, "is a data directory of kind 'text', not 'captions': it is not replaced"),
        (tiny_data, "text", True, "is a data directory of kind 'captions', not 'text': it is not replaced"),
        (tmp_path, "text", True, "it is not replaced"),
    ]:
        with pytest.raises(DataError, match=message):
            check_replaceable(path, kind, overwrite=overwrite)
