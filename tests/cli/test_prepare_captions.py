"""The program prepare_captions.py as users run it."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.folders import contents
from tests.preloaded import python
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.text.vocabulary import Vocabulary, learn_vocabulary

SPLITS = {"train": ("train", "restval"), "valid": ("val",), "test": ("test",)}


def source_images(source: Path, split: str) -> list[dict[str, Any]]:
    images = json.loads(source.read_text(encoding="utf-8"))["images"]
    return [image for image in images if image["split"] in SPLITS[split]]


def check_split(data: Path, split: str, images: list[dict[str, Any]], max_tokens: int = 60) -> None:
    """The files of a split say what *images* of the source say, in their order."""
    directory = DataDirectory(data)
    store, vocabulary = directory.regions, directory.vocabulary
    flat = [(image["cocoid"], sentence["raw"]) for image in images for sentence in image["sentences"]]
    captions, pairs = directory.captions(split), directory.pairs(split)
    assert len(captions) == len(flat)
    assert pairs.dtype == np.int32
    assert [store.image_id(row) for row in pairs.tolist()] == [str(image) for image, _ in flat]
    for caption, (_, text) in zip(captions, flat, strict=True):
        ids = vocabulary.encode_ids(text).tolist()[: max_tokens - 1]
        assert caption.tolist() == [*ids, vocabulary.dictionary.eos()]
    references = json.loads(directory.references_path(split).read_text(encoding="utf-8"))
    assert references["images"] == [{"id": image["cocoid"]} for image in images if image["sentences"]]
    assert references["annotations"] == [
        {"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(flat)
    ]
    assert directory.manifest.splits[split].images == len(references["images"])
    assert directory.manifest.splits[split].captions == len(flat)


def token_counts(data: Path, split: str) -> np.ndarray:
    captions = DataDirectory(data).captions(split)
    return captions.sizes.copy()  # they lie in the memory map, which closes with *captions*


def change_images(source: Path, path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    value = json.loads(source.read_text(encoding="utf-8"))
    change(value["images"])
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# What is written


def test_as_a_command(tmp_path: Path, tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path) -> None:
    command = [python(), prepare_captions.__file__, tiny_captions, "--vocabulary", tiny_vocabulary]
    command += ["--regions", tiny_store, "--output", "new/data", "--workers", "2"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tiny_captions}: karpathy",
        "captions found their photos: 12 by file name",
        "train: 8 images, 39 captions, 0 cut",
        "valid: 2 images, 10 captions, 0 cut",
        "test: 2 images, 10 captions, 0 cut",
        "1 of 13 images of the region store have no captions, listed in uncaptioned-images.txt",
        "written to new/data",
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data"]
    for split in SPLITS:
        check_split(tmp_path / "new" / "data", split, source_images(tiny_captions, split))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_writes_the_same(
    prepare: Callable[..., Any], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.workers.ITEMS_PER_CHUNK", 3)
    assert prepare("--workers", workers).status == 0
    again, before = contents(tmp_path / "data"), contents(tiny_data)
    assert again.pop("dataset.json") != before.pop("dataset.json")  # it says where the store is from there
    assert again == before


def test_description(tiny_data: Path, tiny_store: Path) -> None:
    description = json.loads((tiny_data / "dataset.json").read_text())
    for split, counts in description["splits"].items():
        for kind in ("bin", "idx"):
            assert counts.pop(f"{kind}_bytes") == (tiny_data / f"{split}.captions.{kind}").stat().st_size
    assert description.pop("dictionary_crc32") == f"{zlib.crc32((tiny_data / 'dict.txt').read_bytes()):08x}"
    assert description == {
        "version": 1,
        "splits": {
            "train": {"images": 8, "captions": 39, "cut_to_max_tokens": 0},
            "valid": {"images": 2, "captions": 10, "cut_to_max_tokens": 0},
            "test": {"images": 2, "captions": 10, "cut_to_max_tokens": 0},
        },
        "max_tokens": 60,
        "feature_dim": 16,
        "regions": "../tiny.regions",
        "regions_ids_crc32": RegionStore(tiny_store).ids_crc32,
        "made_by": {"program": "prepare_captions.py", "source": "dataset_tiny.json", "format": "karpathy"},
    }


@pytest.mark.parametrize(
    ("splits", "expected"), [("val", ["valid"]), ("valid,val", ["valid"]), ("test,train", ["test", "train"])]
)
def test_splits(
    prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path, splits: str, expected: list[str]
) -> None:
    assert prepare("--splits", splits).status == 0
    assert list(DataDirectory(tmp_path / "data").manifest.splits) == expected
    for split in expected:
        check_split(tmp_path / "data", split, source_images(tiny_captions, split))


def test_long_captions_are_cut(prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path) -> None:
    vocabulary_words = "cat " * 200

    def lengthen(images: list[dict[str, Any]]) -> None:
        images[0]["sentences"][1]["raw"] = vocabulary_words
        images[2]["sentences"][0]["raw"] = vocabulary_words
        images[1]["sentences"][0]["raw"] = vocabulary_words

    source = change_images(tiny_captions, tmp_path / "long.json", lengthen)
    done = prepare(source=source)
    assert done.status == 0, done.stderr
    assert "train: 8 images, 39 captions, 2 cut" in done.stdout.splitlines()
    assert "valid: 2 images, 10 captions, 1 cut" in done.stdout.splitlines()
    check_split(tmp_path / "data", "train", source_images(source, "train"))
    cut = 3 * (len(DataDirectory(tmp_path / "data").vocabulary.encode_ids(vocabulary_words)) - 59)
    kept = sum(int(token_counts(tmp_path / "data", split).sum()) for split in ("train", "valid", "test"))
    longest = cut // 3 + 60
    assert (
        f"3 of 59 captions are longer than --max-tokens 60 and were cut: {cut} of {kept + cut} tokens "
        f"({100 * cut / (kept + cut):.1f}%) are lost. --max-tokens {longest} keeps all of them; then train with "
        f"--max-target-positions {longest}, too"
    ) in done.stdout.splitlines()
    assert "are longer than" not in prepare("--max-tokens", longest, "--overwrite", source=source).stdout
    assert sum(int(token_counts(tmp_path / "data", split).sum()) for split in ("train", "valid", "test")) == kept + cut
    assert prepare("--overwrite", source=source).status == 0
    lengths = token_counts(tmp_path / "data", "train")
    assert (lengths == 60).sum() == 2
    assert lengths.max() == 60


def test_a_caption_that_just_fits_is_not_cut(prepare: Callable[..., Any], tiny_data: Path, tmp_path: Path) -> None:
    lengths = token_counts(tiny_data, "test")
    longest = int(lengths.max())
    assert "0 cut" in prepare("--splits", "test", "--max-tokens", longest).stdout
    done = prepare("--splits", "test", "--max-tokens", longest - 1, "--overwrite")
    assert f"{(lengths == longest).sum()} cut" in done.stdout
    assert token_counts(tmp_path / "data", "test").max() == longest - 1


def test_images_without_captions_are_left_out(prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path) -> None:
    source = change_images(tiny_captions, tmp_path / "few.json", lambda images: images[0].update(sentences=[]))
    assert prepare(source=source).status == 0
    check_split(tmp_path / "data", "train", source_images(source, "train"))
    assert DataDirectory(tmp_path / "data").manifest.splits["train"].images == 7


def test_names_that_are_no_numbers(
    prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    def rename(images: list[dict[str, Any]]) -> None:
        del images[0]["cocoid"]
        images[0]["filename"] = "2258277193_586949ec62.jpg"

    source = change_images(tiny_captions, tmp_path / "names.json", rename)
    ids = [json_image.get("cocoid", "2258277193_586949ec62") for json_image in json.loads(source.read_text())["images"]]
    store = write_store(tmp_path / "store", images=ids)
    assert prepare("--regions", store, source=source).status == 0
    references = json.loads(DataDirectory(tmp_path / "data").references_path("train").read_text())
    assert references["images"][0] == {"id": "2258277193_586949ec62"}
    assert references["images"][1] == {"id": 123}


def test_sentencepiece(prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path) -> None:
    texts = [s["raw"] for image in source_images(tiny_captions, "train") for s in image["sentences"]]
    learn_vocabulary(texts, tmp_path / "spm", bpe="sentencepiece", symbols=60)
    assert prepare("--vocabulary", tmp_path / "spm").status == 0
    directory = DataDirectory(tmp_path / "data")
    assert directory.vocabulary.bpe == "sentencepiece"
    check_split(tmp_path / "data", "train", source_images(tiny_captions, "train"))
    ids = directory.captions("train")[0]
    assert directory.vocabulary.decode(directory.vocabulary.dictionary.string(ids)) == texts[0].lower()


def test_data_directories_share_a_vocabulary(
    prepare: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path
) -> None:
    assert prepare("--splits", "train").status == 0
    assert prepare("--splits", "test", "--output", tmp_path / "other").status == 0
    # a data directory is a vocabulary folder too
    assert prepare("--vocabulary", tmp_path / "other", "--output", tmp_path / "third").status == 0
    for name in ("data", "other", "third"):
        for file in ("dict.txt", "bpe.codes", "vocabulary.json"):
            assert (tmp_path / name / file).read_bytes() == (tiny_vocabulary / file).read_bytes()
        assert Vocabulary(tmp_path / name).dictionary.symbols == Vocabulary(tiny_vocabulary).dictionary.symbols


# Missing images


def test_missing_images_are_an_error(
    prepare: Callable[..., Any], tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    store = write_store(tmp_path / "few", images=[500, 7, 123, 99, 8, 61, 77, 1000, 15])
    done = prepare("--regions", store)
    assert done.status == 1
    assert done.error == (
        f"3 of 8 images of split 'train' are not in {store}, the first: 42, 3, 250; import them, or pass "
        "--missing-images skip"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_missing_images_are_skipped_counted_and_listed(
    prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    store = write_store(tmp_path / "few", images=[500, 7, 123, 99, 8, 61, 77, 1000, 15])
    done = prepare("--regions", store, "--missing-images", "skip")
    assert done.status == 0, done.stderr
    assert "train: 3 images without regions are left out, listed in train.missing-images.txt" in done.stdout
    assert "train: 5 images, 26 captions, 0 cut" in done.stdout
    assert (tmp_path / "data" / "train.missing-images.txt").read_text() == "42\n3\n250\n"
    assert not (tmp_path / "data" / "test.missing-images.txt").exists()
    kept = [image for image in source_images(tiny_captions, "train") if image["cocoid"] not in (42, 3, 250)]
    check_split(tmp_path / "data", "train", kept)
    # with the whole store again, no list of missing images stays
    assert prepare("--overwrite").status == 0
    assert not (tmp_path / "data" / "train.missing-images.txt").exists()


def test_a_store_of_other_images(prepare: Callable[..., Any], tmp_path: Path, write_store: Callable[..., Path]) -> None:
    store = write_store(tmp_path / "other", images=[1, 2])
    done = prepare("--regions", store, "--missing-images", "skip")
    assert done.status == 1
    assert (
        f"no image of split 'train' is in {store}. The first image of the captions: 500, of the store: 1; is it the "
        "store of these images?"
    ) in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--splits", "train,extra"],
            "has no captions for split 'extra'; it has: test, train, valid (choose by --splits)",
        ),
        (["--splits", ""], "has no captions for split ''"),
        (["--max-tokens", "1"], "--max-tokens must be at least 2"),
        (["--vocabulary", "none"], "none is not a vocabulary folder"),
        (["--regions", "none"], "none"),
    ],
)
def test_errors_leave_nothing_behind(
    prepare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = prepare(*options)
    assert done.status == 1
    assert message in done.error
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_captions(prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path) -> None:
    def clear(images: list[dict[str, Any]]) -> None:
        for image in images:
            if image["split"] == "test":
                image["sentences"] = []

    few = change_images(tiny_captions, tmp_path / "few.json", clear)
    done = prepare("--splits", "train,val,test", source=few)
    assert done.status == 1
    assert "has no captions for split 'test'" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["few.json"]
    done = prepare(source=few)  # the splits that there are
    assert done.status == 0
    assert "split 'test': 2 images are not used (--splits)" in done.stdout
    assert not (tmp_path / "data" / "test.pairs.npy").exists()


def test_a_caption_of_nothing_that_can_be_read(
    prepare: Callable[..., Any], tiny_captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "no token"
    encode_ids = Vocabulary.encode_ids
    monkeypatch.setattr(
        Vocabulary, "encode_ids", lambda self, said: encode_ids(self, said)[: 0 if said == text else 99]
    )

    def blank(images: list[dict[str, Any]]) -> None:
        images[-1]["sentences"][0]["raw"] = text

    done = prepare(source=change_images(tiny_captions, tmp_path / "blank.json", blank))
    assert done.status == 1
    images = [str(image["cocoid"]) for image in json.loads((tmp_path / "blank.json").read_text())["images"]]
    message = f", image {images[-1]}: nothing is left of the caption {text!r} after tokenization; remove it"
    assert message in done.error
    # the failure came late, when files were already being written
    assert [path.name for path in tmp_path.iterdir()] == ["blank.json"]


def test_an_error_of_the_command_is_one_line(
    tmp_path: Path, tiny_captions: Path, tiny_vocabulary: Path, tiny_store: Path
) -> None:
    command = [python(), prepare_captions.__file__, tmp_path / "none.json", "--vocabulary", tiny_vocabulary]
    command += ["--regions", tiny_store, "--output", tmp_path / "data"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'none.json'} does not exist\n"
    assert list(tmp_path.iterdir()) == []


# Real data


def test_real_captions(coco_mini: Path, tmp_path: Path, call_program: Callable[..., Any]) -> None:
    source = coco_mini / "dataset_coco_mini.json"
    sizes = {image["cocoid"]: (image["width"], image["height"]) for image in json.loads(source.read_text())["images"]}
    with RegionWriter(tmp_path / "regions", 8) as writer:
        for number, path in enumerate(sorted((coco_mini / "box").glob("*.npy"), key=lambda path: int(path.stem))):
            boxes = np.load(path)
            features = np.zeros((len(boxes), 8), dtype=np.float16)
            writer.add(path.stem, features, boxes, size=sizes[int(path.stem)], pixel=True, position=number + 1)
        writer.finish()
    texts = [s["raw"] for image in source_images(source, "train") for s in image["sentences"]]
    learn_vocabulary(texts, tmp_path / "vocabulary", bpe="subword_nmt", symbols=500)
    arguments = ["--vocabulary", tmp_path / "vocabulary", "--regions", tmp_path / "regions"]
    done = call_program(prepare_captions.main, source, *arguments, "--output", tmp_path / "data")
    assert done.status == 0, done.stderr
    for split in SPLITS:
        check_split(tmp_path / "data", split, source_images(source, split))
    # nearly every caption comes back as it was written, and nothing is unknown where it was learned from
    directory = DataDirectory(tmp_path / "data")
    dictionary = directory.vocabulary.dictionary
    captions = directory.captions("train")
    assert not any((captions[i] == dictionary.unk()).any() for i in range(len(captions)))
    decoded = [directory.vocabulary.decode(dictionary.string(captions[i])) for i in range(len(captions))]
    same = [text == " ".join(raw.lower().split()) for text, raw in zip(decoded, texts, strict=True)]
    assert sum(same) / len(same) > 0.97
