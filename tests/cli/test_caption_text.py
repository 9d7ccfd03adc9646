"""The program caption_text.py: COCO's captions as text, without those of images that are to be tested on."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.preloaded import python
from xgpt_fairseq.cli import caption_text

TINY = {
    "train": [(318556, "A very clean bathroom"), (42, "Red motor \nscooter."), (318556, "Another bathroom")],
    "val": [(203564, "A bicycle. "), (42, "Ein Roller"), (9, "A bicycle.")],
}


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jar as SPICE's, with `TINY` in it."""
    path = tmp_path / "spice.jar"
    with zipfile.ZipFile(path, "w") as archive:
        for split, captions in TINY.items():
            annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(captions)]
            archive.writestr(f"coco/annotations/captions_{split}2014.json", json.dumps({"annotations": annotations}))
    monkeypatch.setattr(caption_text, "jar_path", lambda: path)
    return path


@pytest.fixture
def write(call_program: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """write(*options): run the program with tmp_path/text.txt as output."""
    return lambda *options: call_program(caption_text.main, "--output", tmp_path / "text.txt", *options)


def ids_file(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def captions_file(path: Path, **splits: list[int]) -> Path:
    images = [
        {"cocoid": image, "split": split, "sentences": [{"raw": "A caption."}]}
        for split, images in splits.items()
        for image in images
    ]
    path.write_text(json.dumps({"images": images}))
    return path


def test_nothing_left_out(jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    done = write("--exclude-nothing")
    assert done.status == 0, done.stderr
    assert (tmp_path / "text.txt").read_text(encoding="utf-8").splitlines() == [
        "A very clean bathroom", "Red motor scooter.", "Another bathroom", "A bicycle.", "Ein Roller", "A bicycle.",
    ]  # fmt: skip
    assert done.stdout.splitlines() == [
        "COCO 2014: 6 captions of 4 images",
        "left out: 0 captions of 0 images",
        f"{tmp_path / 'text.txt'}: 6 captions of 4 images",
    ]


@pytest.mark.parametrize(("part", "images"), [("train2014", 2), ("val2014", 3)])
def test_a_part(part: str, images: int, jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    done = write("--exclude-nothing", "--part", part)
    expected = [" ".join(text.split()) for _, text in TINY[part.removesuffix("2014")]]
    assert (tmp_path / "text.txt").read_text(encoding="utf-8").splitlines() == expected
    assert done.stdout.startswith(f"{part}: 3 captions of {images} images\n")


def test_images_left_out(jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    ids = ids_file(tmp_path / "ids.txt", "000000000042", "", "COCO_val2014_000000000009.jpg", "77777")
    captions = captions_file(tmp_path / "dataset.json", train=[203564], val=[5], test=[318556])
    done = write("--exclude-ids", ids, "--exclude", captions, "--exclude-splits", "val,test")
    assert done.status == 0, done.stderr
    assert (tmp_path / "text.txt").read_text() == "A bicycle.\n"
    assert done.stdout.splitlines() == [
        "COCO 2014: 6 captions of 4 images",
        f"{ids}: 3 images to leave out, 2 of them in COCO 2014",
        f"{captions}: 2 images to leave out, 1 of them in COCO 2014",
        "left out: 5 captions of 3 images",
        f"{tmp_path / 'text.txt'}: 1 captions of 1 images",
    ]
    # an option that is given again adds to what it named before
    one, other = ids_file(tmp_path / "1.txt", "\ufeff42"), ids_file(tmp_path / "2.txt", "318556")
    assert write("--exclude-ids", one, "--exclude-ids", other, "--overwrite").status == 0
    assert (tmp_path / "text.txt").read_text() == "A bicycle.\nA bicycle.\n"
    # all splits of a caption file, unless some are named
    assert write("--exclude", captions, "--overwrite").status == 0
    assert (tmp_path / "text.txt").read_text().splitlines() == ["Red motor scooter.", "Ein Roller", "A bicycle."]


def test_caption_files_of_other_formats(jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    coco = {"images": [{"id": 42}, {"id": 9}], "annotations": [{"image_id": 9, "id": 1, "caption": "A."}]}
    captions = tmp_path / "captions_val2014.json"
    captions.write_text(json.dumps(coco))
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"image": "COCO_train2014_000000318556.jpg", "caption": "A."}\n')
    kept = "A bicycle.\n"
    assert write("--exclude", captions, lines).status == 0  # of which split they are does not matter
    assert (tmp_path / "text.txt").read_text() == kept
    done = write("--exclude", captions, f"test={lines}", "--exclude-splits", "val,test", "--overwrite")
    assert done.status == 1
    assert f"{captions} has no images of split 'test' to exclude; it has: valid" in done.error
    assert write("--exclude", captions, f"val={lines}", "--exclude-splits", "val", "--overwrite").status == 0
    assert (tmp_path / "text.txt").read_text() == kept
    done = write("--exclude", lines, "--exclude-splits", "val", "--overwrite")
    assert done.status == 1
    assert f"{lines}: of which split is image 318556?" in done.error


def test_a_sample(jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    everything = [" ".join(text.split()) for captions in TINY.values() for _, text in captions]
    samples = []
    for seed in (*range(1, 20), 1):
        assert write("--exclude-nothing", "--limit", 3, "--seed", seed, "--overwrite").status == 0
        samples.append((tmp_path / "text.txt").read_text().splitlines())
    assert samples[0] == samples[-1]
    assert len(set(map(tuple, samples))) > 5
    for sample in samples:
        rest = iter(everything)
        assert len(sample) == 3
        assert all(text in rest for text in sample)  # in their order
    assert {text for sample in samples for text in sample} == set(everything)
    assert write("--exclude-nothing", "--limit", 100, "--overwrite").status == 0
    assert (tmp_path / "text.txt").read_text().splitlines() == everything


def test_overwrite(jar: Path, write: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("mine")
    done = write("--exclude-nothing")
    assert done.status == 1
    assert done.error == f"{tmp_path / 'text.txt'} exists; pass --overwrite to replace it"
    assert (tmp_path / "text.txt").read_text() == "mine"
    assert write("--exclude-nothing", "--overwrite").status == 0
    assert len((tmp_path / "text.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"exclude the images of validation and test with --exclude-ids"),
        (["--exclude-nothing", "--exclude-ids", "ids.txt"], r"pass --exclude-nothing and neither of these"),
        (["--exclude-ids", "none.txt"], r"--exclude-ids none\.txt cannot be read"),
        (["--exclude-ids", "words.txt"], r"words\.txt, line 2: 'forty-two' is not a COCO image id"),
        (["--exclude-ids", "far.txt", "ids.txt"], r"far\.txt names no image of COCO 2014"),
        (["--exclude-ids", "empty.txt"], r"empty\.txt names no image of COCO 2014: is it the right file\?"),
        (["--exclude", "none.json"], r"none\.json does not exist"),
        (["--exclude", "ids.txt"], r"ids\.txt: not a caption file of a known format"),
        (
            ["--exclude", "data.json", "--exclude-splits", "extra"],
            r"data\.json has no images of split 'extra'.*train, valid",
        ),
        (["--exclude-ids", "ids.txt", "--exclude-splits", "val"], r"--exclude-splits is for caption files"),
        (["--exclude", "all.json"], r"all captions of COCO are of excluded images"),
        (["--exclude-nothing", "--limit", "0"], r"--limit must be at least 1, got 0"),
    ],
)
def test_errors_leave_nothing_behind(
    jar: Path,
    write: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ids_file(tmp_path / "ids.txt", "42")
    ids_file(tmp_path / "words.txt", "42", "forty-two")
    ids_file(tmp_path / "far.txt", "77777")
    ids_file(tmp_path / "empty.txt")
    captions_file(tmp_path / "data.json", train=[42], val=[9])
    captions_file(tmp_path / "all.json", train=[318556, 42, 203564], val=[9])
    before = sorted(tmp_path.iterdir())
    done = write(*options)
    assert done.status == 1
    assert re.search(message, done.error), done.error
    assert sorted(tmp_path.iterdir()) == before


def test_a_jar_without_captions(jar: Path, write: Callable[..., Any]) -> None:
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "")
    assert "cannot be read from" in write("--exclude-nothing").error
    jar.write_bytes(b"no jar")
    assert f"cannot be read from {jar}" in write("--exclude-nothing").error
    jar.unlink()
    assert "install pycocoevalcap 1.2 again" in write("--exclude-nothing").error


def test_no_caption_of_an_excluded_image_is_in_the_text(coco_mini: Path, tmp_path: Path) -> None:
    """The real captions of val2014, where these images are, counted another way: those of all others, nothing else."""
    output = tmp_path / "coco.txt"
    command = [python(), caption_text.__file__, "--output", str(output)]
    command += ["--part", "val2014", "--exclude-ids", str(coco_mini / "val2017_ids.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    excluded = {int(line) for line in (coco_mini / "val2017_ids.txt").read_text().split()}
    assert len(excluded) == 5000
    kept: Counter[str] = Counter()
    left_out = 0
    with zipfile.ZipFile(caption_text.jar_path()) as archive:
        annotations = json.loads(archive.read("coco/annotations/captions_val2014.json"))["annotations"]
    for annotation in annotations:
        if annotation["image_id"] in excluded:
            left_out += 1
        else:
            kept[re.sub(r"\s+", " ", annotation["caption"]).strip()] += 1
    assert left_out > 25_000
    assert kept.total() + left_out == 202_654
    assert Counter(output.read_text(encoding="utf-8").splitlines()) == kept
    assert f"left out: {left_out:,} captions of 5,000 images" in done.stdout
    # the photos that coco_mini validates and tests on are among them
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text(encoding="utf-8"))["images"]
    assert {image["cocoid"] for image in images if image["split"] in ("val", "test")} <= excluded
