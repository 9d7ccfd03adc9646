"""The programs make the same of captions in any format; splits and missing images on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.folders import contents
from xgpt_fairseq.captions.registry import FORMATS as CAPTION_FORMATS
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.cli import learn_bpe, prepare_captions, prepare_text
from xgpt_fairseq.data.directory import DataDirectory, TextDirectory
from xgpt_fairseq.regions.writer import RegionWriter

SPLITS = ("train", "valid", "test")
Image = tuple[str, str, list[str]]  # file name, fairseq's split, captions


@pytest.fixture(scope="session")
def tiny_images(tiny_captions: Path) -> list[Image]:
    images = json.loads(tiny_captions.read_text(encoding="utf-8"))["images"]
    return [(i["filename"], fairseq_split(i["split"]), [s["raw"] for s in i["sentences"]]) for i in images]


def split_lists(folder: Path, images: list[Image]) -> list[str]:
    """Lists of file names, and the words of --split-files that name them."""
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name, of, _ in images if of == split))
    return ["--split-files", *(f"{split}={folder / split}.txt" for split in SPLITS)]


# Each writes the images in one format to a folder, and returns the command line's words: sources and options.


def as_coco(folder: Path, images: list[Image]) -> list[Any]:
    files = []
    for split in SPLITS:
        value: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        for name, of, captions in images:
            if of == split:
                number = int(Path(name).stem)
                value["images"].append({"id": number, "file_name": name})
                value["annotations"] += [
                    {"image_id": number, "id": 100 * number + place, "caption": text}
                    for place, text in enumerate(captions)
                ]
        # in no order of images, as COCO has them
        value["annotations"].sort(key=lambda annotation: (annotation["id"] % 100, -annotation["id"]))
        files.append(folder / f"captions_{split}2014.json")
        files[-1].write_text(json.dumps(value))
    return files


def as_named_coco(folder: Path, images: list[Image]) -> list[Any]:
    """Files whose names do not tell."""
    words = []
    for number, (split, file) in enumerate(zip(("train", "val", "test"), as_coco(folder, images), strict=True)):
        words.append(f"{split}={file.rename(folder / f'{number}.json')}")
    return words


def as_token(folder: Path, images: list[Image]) -> list[Any]:
    path = folder / "results_20130124.token"
    lines = [f"{name}#{place}\t{text}\r\n" for name, _, captions in images for place, text in enumerate(captions)]
    path.write_bytes("".join(lines).encode())
    return [path, *split_lists(folder, images)]


def as_jsonl(folder: Path, images: list[Image]) -> list[Any]:
    lines: list[dict[str, Any]] = []
    for number, (name, split, captions) in enumerate(images):
        if number % 2:
            lines.append({"image": name, "captions": captions, "split": split})
        else:
            lines += [{"image": name, "caption": text, "split": split} for text in captions]
    path = folder / "captions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [path]


def as_cc(folder: Path, images: list[Image]) -> list[Any]:
    names = {"train": "Train_GCC-training.tsv", "valid": "Validation_GCC-1.1.0-Validation.tsv", "test": "test.tsv"}
    for split, file in names.items():
        lines = [f"{text}\thttp://a.com/{name}\n" for name, of, captions in images if of == split for text in captions]
        (folder / file).write_text("".join(lines))
    url_map = folder / "map.tsv"
    url_map.write_text("".join(f"http://a.com/{name}\timages/{name}\n" for name, _, _ in images))
    return [*(folder / file for file in names.values()), "--image-ids", url_map]


FORMATS = {
    "coco": as_coco,
    "coco with splits": as_named_coco,
    "flickr30k-token": as_token,
    "jsonl": as_jsonl,
    "cc-tsv": as_cc,
}


@pytest.fixture
def photo_store() -> Callable[..., Path]:
    """photo_store(path, *ids): a region store that was made from photos."""

    def make(path: Path, *ids: str) -> Path:
        with RegionWriter(path, 4, source={"format": "photos"}) as writer:
            for place, image_id in enumerate(ids):
                features, boxes = np.ones((1, 4), dtype=np.float32), np.array([[0, 0, 1, 1]], dtype=np.float32)
                writer.add(image_id, features, boxes, position=place + 1)
            writer.finish()
        return path

    return make


@pytest.fixture
def prepare(
    call_program: Callable[..., Any], tiny_vocabulary: Path, tiny_store: Path, tmp_path: Path
) -> Callable[..., Any]:
    """prepare(*words): prepare_captions.py to tmp_path/data with the tiny vocabulary and store; words come last."""
    fixed = ["--vocabulary", tiny_vocabulary, "--regions", tiny_store, "--output", tmp_path / "data"]

    def call(*words: Any) -> Any:
        options = next((place for place, word in enumerate(words) if str(word).startswith("--")), len(words))
        return call_program(prepare_captions.main, *words[:options], *fixed, *words[options:])

    return call


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_data_directory_from_every_format(
    prepare: Callable[..., Any], tiny_data: Path, tiny_images: list[Image], tmp_path: Path, name: str
) -> None:
    (tmp_path / "source").mkdir()
    words = FORMATS[name](tmp_path / "source", tiny_images)
    done = prepare(*words)
    assert done.status == 0, done.stderr
    made, expected = contents(tmp_path / "data"), contents(tiny_data)
    description, expected_description = (json.loads(files.pop("dataset.json")) for files in (made, expected))
    assert made == expected
    assert len(made) == 16
    assert description.pop("made_by")["format"] == name.split()[0]
    for value in (description, expected_description):
        value.pop("regions")
        value.pop("made_by", None)
    assert description == expected_description
    assert f": {name.split()[0]}\n" in done.stdout
    check_pairs(tmp_path / "data", tiny_images)


def check_pairs(data: Path, images: list[Image]) -> None:
    """Counted another way: each caption's tokens lie beside the row of its image."""
    directory = DataDirectory(data)
    vocabulary, store = directory.vocabulary, directory.regions
    for split in SPLITS:
        flat = [(str(int(Path(name).stem)), text) for name, of, captions in images if of == split for text in captions]
        assert [store.image_id(row) for row in directory.pairs(split).tolist()] == [image for image, _ in flat]
        for caption, (_, text) in zip(directory.captions(split), flat, strict=True):
            assert np.array_equal(caption[:-1], vocabulary.encode_ids(text))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_vocabulary_from_every_format(
    call_program: Callable[..., Any], tiny_images: list[Image], tiny_vocabulary: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "source").mkdir()
    words = [str(word) for word in FORMATS[name](tmp_path / "source", tiny_images)]
    if "--image-ids" in words:
        del words[words.index("--image-ids") :]  # the text of captions does not depend on it
    arguments = ["--input", *words, "--symbols", 60, "--output", tmp_path / "vocabulary"]
    done = call_program(learn_bpe.main, *arguments)
    assert done.status == 0, done.stderr
    assert ": caption file; the training split is used\n" in done.stderr
    assert contents(tmp_path / "vocabulary") == contents(tiny_vocabulary)


def test_text_of_captions(
    call_program: Callable[..., Any], tiny_images: list[Image], tiny_vocabulary: Path, tmp_path: Path
) -> None:
    words = as_token(tmp_path, tiny_images)
    output = ["--vocabulary", tiny_vocabulary, "--output", tmp_path / "data", "--valid-lines", 0]
    done = call_program(prepare_text.main, "--input", *words, *output)
    assert done.status == 0, done.stderr
    directory = TextDirectory(tmp_path / "data")
    expected = [text for _, split, captions in tiny_images if split == "train" for text in captions]
    sentences = directory.sentences("train")
    assert [sentences[i].tolist()[:-1] for i in range(len(sentences))] == [
        directory.vocabulary.encode_ids(text).tolist() for text in expected
    ]
    # without the lists nobody knows which captions may be learned from
    done = call_program(prepare_text.main, "--input", words[0], *output, "--overwrite")
    assert done.status == 1
    assert f"{words[0]}: of which split is image 500?" in done.error
    # text has no splits
    (tmp_path / "text.txt").write_text("A line.\n")
    done = call_program(learn_bpe.main, "--input", f"train={tmp_path / 'text.txt'}", "--output", tmp_path / "v")
    assert done.status == 1
    assert f"--input train={tmp_path / 'text.txt'}: only caption files have splits" in done.error


def test_what_is_said(
    prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several sources with named splits, in another folder."""
    monkeypatch.chdir(tmp_path)
    train, valid, test = as_coco(tmp_path, tiny_images)
    valid = valid.rename(tmp_path / "minival.json")
    done = prepare(train.name, f"val={valid.name}", test.name, "--splits", "val,train")
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines() == [
        "captions_train2014.json: coco",
        "minival.json: coco",
        "captions_test2014.json: coco",
        "captions found their photos: 12 by file name",
        "split 'test': 2 images are not used (--splits)",
        "valid: 2 images, 10 captions, 0 cut",
        "train: 8 images, 39 captions, 0 cut",
        "1 of 13 images of the region store have no captions, listed in uncaptioned-images.txt",
        f"written to {tmp_path / 'data'}",
    ]
    made_by = json.loads((tmp_path / "data" / "dataset.json").read_text())["made_by"]
    assert made_by == {
        "program": "prepare_captions.py",
        "source": "captions_train2014.json, minival.json, captions_test2014.json",
        "format": "coco",
    }


def test_help_shows_the_formats(call_program: Callable[..., Any]) -> None:
    done = call_program(prepare_captions.main, "--help")
    for word in (*CAPTION_FORMATS, "--split-files", "--image-ids", "--max-missing", "examples:"):
        assert word in done.stdout


# Images that the store or the captions lack


@pytest.mark.parametrize("share", ["0.25", "0.3", "1"])
def test_some_missing_images_are_allowed(
    prepare: Callable[..., Any], tiny_images: list[Image], write_store: Callable[..., Path], tmp_path: Path, share: str
) -> None:
    store = write_store(tmp_path / "few", images=[500, 7, 123, 99, 8, 61, 77, 1000, 15, 31, 250])  # not 42, 3
    words = [*as_jsonl(tmp_path, tiny_images), "--regions", store, "--missing-images", "skip", "--max-missing", share]
    done = prepare(*words)
    assert done.status == 0, done.stderr
    assert "train: 2 images without regions are left out, listed in train.missing-images.txt\n" in done.stdout
    assert "train: 6 images, 31 captions, 0 cut\n" in done.stdout
    assert "1 of 11 images of the region store have no captions, listed in uncaptioned-images.txt\n" in done.stdout
    assert (tmp_path / "data" / "train.missing-images.txt").read_text() == "42\n3\n"
    assert (tmp_path / "data" / "uncaptioned-images.txt").read_text() == "31\n"
    kept = [image for image in tiny_images if int(Path(image[0]).stem) not in (42, 3)]
    check_pairs(tmp_path / "data", kept)


def test_too_many_missing_images(
    prepare: Callable[..., Any], tiny_images: list[Image], write_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = write_store(tmp_path / "few", images=[500, 7, 123, 99, 8, 61, 77, 1000, 15, 31, 250])
    words = [*as_jsonl(tmp_path, tiny_images), "--regions", store, "--missing-images", "skip"]
    before = sorted(tmp_path.iterdir())
    done = prepare(*words, "--max-missing", "0.24")
    assert done.status == 1
    assert done.error == (
        f"2 of 8 images of split 'train' (25.00%) are not in {store}, more than --max-missing 0.24 allows, the first: "
        "42, 3; import them, or allow more"
    )
    assert sorted(tmp_path.iterdir()) == before
    # of other splits it does not matter how many
    assert prepare(*words, "--max-missing", "0", "--splits", "val,test").status == 0
    assert not list((tmp_path / "data").glob("*.missing-images.txt"))


def test_a_data_directory_stays_when_too_many_are_missing(
    prepare: Callable[..., Any], tiny_images: list[Image], write_store: Callable[..., Path], tmp_path: Path
) -> None:
    words = as_jsonl(tmp_path, tiny_images)
    assert prepare(*words).status == 0
    before = contents(tmp_path / "data")
    store = write_store(tmp_path / "few", images=[7, 99])
    for options in (["--missing-images", "skip", "--max-missing", "0.5"], []):
        assert prepare(*words, "--regions", store, "--overwrite", *options).status == 1
        assert contents(tmp_path / "data") == before


def test_store_and_captions_that_agree_leave_no_lists(
    prepare: Callable[..., Any], tiny_images: list[Image], write_store: Callable[..., Path], tmp_path: Path
) -> None:
    words = as_jsonl(tmp_path, tiny_images)
    assert prepare(*words).status == 0
    assert (tmp_path / "data" / "uncaptioned-images.txt").read_text() == "31\n"
    store = write_store(tmp_path / "same", images=[int(Path(name).stem) for name, _, _ in tiny_images])
    done = prepare(*words, "--regions", store, "--splits", "test", "--overwrite")
    assert done.status == 0, done.stderr
    assert "have no captions" not in done.stdout  # those of other splits have
    assert not (tmp_path / "data" / "uncaptioned-images.txt").exists()


def test_images_without_captions_need_no_regions(
    prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path
) -> None:
    [path] = as_jsonl(tmp_path, tiny_images)
    with open(path, "a") as file:
        file.write('{"image": 31, "captions": [], "split": "train"}\n')  # in the store
        file.write('{"image": 32, "captions": [], "split": "train"}\n')  # not even there
    done = prepare(path)
    assert done.status == 0, done.stderr
    assert "train: 2 images without captions are left out, the first: 31, 32\n" in done.stdout
    assert (tmp_path / "data" / "uncaptioned-images.txt").read_text() == "31\n"
    check_pairs(tmp_path / "data", tiny_images)


def test_urls_without_a_name(prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path) -> None:
    words = as_cc(tmp_path, tiny_images)
    lines = words[-1].read_text().splitlines(keepends=True)
    kept = [line for line in lines if "000000000123" not in line]
    words[-1].write_text("".join(kept))
    done = prepare(*words)
    assert done.status == 1
    assert "1 of 8 images of split 'train' are not in" in done.error
    assert "the first: http://a.com/000000000123.jpg; import them" in done.error
    done = prepare(*words, "--missing-images", "skip")
    assert done.status == 0, done.stderr
    assert (tmp_path / "data" / "train.missing-images.txt").read_text() == "http://a.com/000000000123.jpg\n"
    assert (tmp_path / "data" / "uncaptioned-images.txt").read_text() == "31\n123\n"
    check_pairs(tmp_path / "data", [image for image in tiny_images if "000000000123" not in image[0]])


def test_ids_that_count_otherwise_than_the_files(
    prepare: Callable[..., Any], photo_store: Callable[..., Path], tmp_path: Path
) -> None:
    """COCO's layout as annotation tools export it: by `id`, every photo would get another photo's captions."""
    store = photo_store(tmp_path / "store", *map(str, range(1, 9)))
    value = {
        "images": [{"id": n, "file_name": f"{9 - n}.jpg"} for n in range(1, 9)],
        "annotations": [{"image_id": n, "caption": f"Photo {9 - n}."} for n in range(1, 9)],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    done = prepare(path, "--regions", store, "--hold-out", "val=0.4")
    assert done.status == 0, done.stderr
    assert "captions found their photos: 8 by file name" in done.stdout
    directory = DataDirectory(tmp_path / "data")
    captions = {}
    for split in ("train", "valid"):
        references = json.loads((tmp_path / "data" / f"{split}.references.json").read_text())
        captions |= {each["image_id"]: each["caption"] for each in references["annotations"]}
        rows = np.load(tmp_path / "data" / f"{split}.pairs.npy")
        assert [int(directory.regions.image_id(row)) for row in rows] == [i["id"] for i in references["images"]]
    assert captions == {n: f"Photo {n}." for n in range(1, 9)}


def test_training_alone_is_refused(prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [{"image": name, "captions": captions} for name, split, captions in tiny_images if split == "train"]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = prepare(path)
    assert done.status == 1
    assert "has captions of train, and none to validate training: hold images out by --hold-out val=0.1" in done.error
    assert prepare(path, "--splits", "train").status == 0


def test_blank_captions_are_counted(prepare: Callable[..., Any], tiny_images: list[Image], tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    rows = [{"image": name, "captions": [" ", *captions, ""], "split": split} for name, split, captions in tiny_images]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = prepare(path)
    assert done.status == 0, done.stderr
    assert f"{2 * len(tiny_images)} blank captions left out" in done.stdout
    check_pairs(tmp_path / "data", tiny_images)


def test_images_named_by_lines(prepare: Callable[..., Any], write_store: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("A red cat.\thttp://a\n\nA dog.\thttp://a\nA cat.\thttp://b\n")
    store = write_store(tmp_path / "store", images=[3, 0, 2])
    done = prepare(path, "--regions", store, "--splits", "train")
    assert done.status == 0, done.stderr
    assert DataDirectory(tmp_path / "data").pairs("train").tolist() == [1, 2, 0]
