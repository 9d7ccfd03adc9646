"""Folders of photos with captions, to a captioner: examples/real_photos, and the quickstart on photos."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.end_to_end.layouts import LAYOUTS, make
from tests.end_to_end.programs import path
from tests.scripts import example
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.cli import caption
from xgpt_fairseq.regions.store import RegionStore

report = example("real_photos/report.py")
find_captions = example("real_photos/find_captions.py")
held_out_of_coco = example("real_photos/held_out_of_coco.py")
EXAMPLES = Path(report.__file__).parent.parent
RUN = EXAMPLES / "real_photos" / "run.sh"

TINY = {
    "ARCH": "xgpt_demo", "BATCH": "8", "WORKERS": "0", "TEXT_LINES": "300", "SYMBOLS": "120", "TEXT_ITERATIONS": "3",
    "WEB_ITERATIONS": "2", "IN_DOMAIN_ITERATIONS": "2", "FINETUNE_ITERATIONS": "6", "SCST_ITERATIONS": "3",
    "VALIDATIONS": "2", "FINETUNE_VALIDATIONS": "2", "IMAGES": "4",
    "VALID_LINES": "20", "GRID": "2", "IMAGE_SIZE": "96", "CUDA_VISIBLE_DEVICES": "", "METRICS": "bleu,rouge,cider",
    "TRAINING": "--layers 1 --hidden-size 32 --ffn-size 64 --attention-heads 2", "OMP_NUM_THREADS": "1",
}  # fmt: skip

ODD = '-it\'s my "$photos" = `a|b`\n& {c} %d \\ *?'
NAME = re.sub(r"[=:|$\n]", "_", ODD)


def layout(name: str, folder: Path) -> Path:
    return make(next(each for each in LAYOUTS if each.__name__ == name), folder).folder


def bash(
    script: Path, *folders: Path, programs: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run *script*, for which those of *programs* come first."""
    places = [str(programs), path()] if programs else [path()]
    return subprocess.run(
        ["bash", str(script), *map(str, folders)],
        env={**os.environ, **TINY, **environment, "PATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )


def with_text(work: Path) -> Path:
    """A folder of results that has its text already: choosing that of all captions of COCO takes seconds."""
    work.mkdir()
    lines = (f"a {one} dog sits left of a {other} chair.\n" for one in "abcdefgh" for other in "ijklmnop")
    (work / "text.txt").write_text("".join(lines))
    return work


def test_the_quickstart_on_a_folder_ends_in_a_bundle_that_captions_photos(
    call_program: Callable[..., Any], tmp_path: Path
) -> None:
    photos = layout("kaggle_flickr8k", tmp_path / ODD)
    work = photos / 'what\'s come "out"\n$it'  # a second run does not take it for captions
    of_real_photos = {"VIEWS": "1", "REGION_DROPOUT": "0.4", "WORD_DROPOUT": "0.15"}  # as its own defaults are
    done = bash(EXAMPLES / "quickstart" / "run.sh", photos, WORK=str(work), **of_real_photos)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for stage in ("in_domain", "finetune", "scst"):
        trained_on = load_checkpoint(work / "checkpoints" / "captions" / stage / "checkpoint_last.pt")["cfg"]["task"]
        assert trained_on["views"] == f"{work}/view-1"
        left_out = (0.0, 0.0) if stage == "scst" else (0.4, 0.15)
        assert (trained_on["region_dropout"], trained_on["ic_word_dropout"]) == left_out
    assert f"captions of {photos}: {photos / 'captions.txt'} --hold-out val=0.1" in done.stdout
    images = json.loads((work / "captions" / "dataset.json").read_text())["splits"]["valid"]["images"]
    assert f"| {NAME}, valid | {images} | " in done.stdout
    assert (work / f"{NAME}.html").read_text().count("data:image/jpeg") == images
    assert (work / "curves.png").read_bytes().startswith(b"\x89PNG")
    said = call_program(caption.main, photos / "Images", "--path", work / "bundle")
    assert said.status == 0 and said.stdout.count("\n") == 12
    about = call_program(caption.main, "--about", "--path", work / "bundle")
    assert "photos      efficientnet-lite0 at 96 pixels, a grid of 2 x 2" in about.stdout
    assert f"| {NAME}, valid | {images} | " in about.stdout
    assert re.search(r"reward\W+[\d.]+", (work / "logs" / "scst.log").read_text())
    captioner = next(work.glob("results/*/captioner"))
    assert captioner.read_text() == "checkpoints/captions/scst/averaged.pt\nMETRICS: bleu,rouge,cider\n"
    again = bash(EXAMPLES / "quickstart" / "run.sh", photos, WORK=str(work), **of_real_photos, PREPARE_ONLY="1")
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    assert f"captions of {photos}: {photos / 'captions.txt'} --hold-out val=0.1" in again.stdout


def test_several_folders_one_of_them_also_out_of_domain(tmp_path: Path) -> None:
    one, other = layout("vizwiz", tmp_path / "vizwiz"), layout("rsicd", tmp_path / "rsicd")
    work = with_text(tmp_path / "work")
    done = bash(RUN, one, other, WORK=str(work), WEB=str(other), PREPARE_ONLY="1")
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = {}
    for file in work.rglob("dataset.json"):
        splits = json.loads(file.read_text())["splits"]
        if file.parent.name != "text":
            sizes[str(file.parent.relative_to(work))] = {split: each["images"] for split, each in splits.items()}
    together = {
        split: sizes["each/vizwiz"].get(split, 0) + sizes["each/rsicd"].get(split, 0) for split in sizes["captions"]
    }
    assert sizes["captions"] == together and sizes["web"] == sizes["each/rsicd"]
    assert len(RegionStore(work / "regions")) == 24  # each photo once
    refused = bash(RUN, one, WORK=str(work), WEB=str(other), PREPARE_ONLY="1", GRID="3")
    assert refused.returncode == 1 and f"error: {work} was made with other settings" in refused.stderr
    assert "< GRID: 2\n" in refused.stderr and "> GRID: 3\n" in refused.stderr


def test_captions_that_are_not_found_are_named(tmp_path: Path) -> None:
    photos, work = layout("own_csv", tmp_path / "own"), with_text(tmp_path / "work")
    named = "captions.csv --columns image=picture,caption=description,split=part"
    done = bash(RUN, photos, WORK=str(work), CAPTIONS=named, PREPARE_ONLY="1")
    assert done.returncode == 0, done.stderr[-2000:]
    splits = json.loads((work / "captions" / "dataset.json").read_text())["splits"]
    assert {split: each["images"] for split, each in splits.items()} == {"train": 8, "valid": 4}
    both = bash(RUN, photos, layout("vizwiz", tmp_path / "vizwiz"), CAPTIONS=named)
    assert both.returncode == 1 and both.stderr.startswith("error: CAPTIONS names those of one folder")


def test_only_files_are_sought_in_the_folder(tmp_path: Path) -> None:
    for name in ("text", "first", "coco", "captions.csv", "val.txt"):
        (tmp_path / name).mkdir()
    words = "--columns caption=text --columns=caption=text --answers first --format coco --hold-out val=text"
    assert find_captions.named_below(tmp_path, f"captions.csv {words}") == [f"{tmp_path}/captions.csv", *words.split()]
    assert find_captions.named_below(tmp_path, "train=captions.csv --split-files val=val.txt other.txt") == [
        f"train={tmp_path}/captions.csv", "--split-files", f"val={tmp_path}/val.txt", "other.txt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "usage: [WEB=FOLDER] bash examples/real_photos/run.sh FOLDER [FOLDER …]"),
        (["nothing"], "error: nothing is not a folder"),
        (["vizwiz", "a/vizwiz"], "error: two folders are called vizwiz; rename one of them"),
        (["vizwiz", "kaggle_flickr8k"], "error: some of the folders have validation images, others have none"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_at_once(folders: list[str], message: str, tmp_path: Path) -> None:
    paths = [Path(name) if name == "nothing" else layout(name.removeprefix("a/"), tmp_path / name) for name in folders]
    done = bash(RUN, *paths, WORK=str(tmp_path / "work"))
    assert done.returncode != 0 and done.stderr.splitlines()[-1].startswith(message)
    assert not (tmp_path / "work" / "regions").exists()


def test_what_does_not_fit_is_said_before_regions_are_extracted(tmp_path: Path) -> None:
    one, other, work = layout("vizwiz", tmp_path / "one"), layout("vizwiz", tmp_path / "other"), tmp_path / "work"

    def error(script: Path, *folders: Path, **environment: str) -> str:
        done = bash(script, *folders, WORK=str(work), **environment)
        assert done.returncode == 1 and {path.name for path in work.iterdir()} == {"logs"}
        *_, said = done.stderr.splitlines()
        shutil.rmtree(work)
        return said

    lost = one / "train" / "VizWiz_train_00000000.jpg"
    both = f"image {lost.name} may be one/train/{lost.stem} or other/train/{lost.stem} of {one} … {other}: captions of "
    assert error(RUN, one, other).startswith(f"error: {both}")
    lost.unlink()
    gone = "1 of 8 images of split 'train' are not in {}, the first: VizWiz_train_00000000"
    assert error(RUN, one).startswith(f"error: {gone.format(one)}")
    assert error(EXAMPLES / "quickstart" / "run.sh", one).startswith(f"error: {gone.format(one)}")
    assert error(RUN, one, MISSING="0.1").endswith(f"allows, the first: {lost.name}; add them, or allow more")
    rsicd = layout("rsicd", tmp_path / "rsicd")
    assert error(RUN, rsicd, WEB=str(one)).startswith(f"error: {gone.format(f'{rsicd} … {one}')}")


def test_lists_of_several_folders_are_joined(tmp_path: Path) -> None:
    """Each has validation images, by its own lists; but what file names say is not looked at where there are lists."""
    one, other = layout("token_file", tmp_path / "one"), layout("flickr8k_cn", tmp_path / "other")
    (tmp_path / "programs").mkdir()
    stop = tmp_path / "programs" / "xgpt-extract-regions"
    stop.write_text("#!/bin/sh\nexit 3\n")
    stop.chmod(0o755)
    done = bash(RUN, one, other, programs=stop.parent, WORK=str(tmp_path / "work"))
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("captions and photos fit") == 3  # of each folder, and of both
    done = bash(RUN, one, layout("vizwiz", tmp_path / "vizwiz"), programs=stop.parent, WORK=str(tmp_path / "third"))
    *_, said = done.stderr.splitlines()
    assert said.startswith("error: some of the folders have lists of the photos of each split, others have none; give")


def test_options_that_not_all_programs_have_are_refused_and_can_be_corrected(tmp_path: Path) -> None:
    photos, work = layout("vizwiz", tmp_path / "vizwiz"), tmp_path / "work"
    named = "train=annotations/train.json val=annotations/val.json"
    for option in ("--pair-by id", "--splits=train,val", "--missing-images skip"):
        done = bash(RUN, photos, WORK=str(work), CAPTIONS=f"{named} {option}")
        *_, said = done.stderr.splitlines()
        name = re.split("[ =]", option)[0]
        assert done.returncode == 1 and said.startswith(f"error: CAPTIONS: {name} is not for all programs"), said
        assert ("MISSING says how many" in said) == (name == "--missing-images")
        assert [path.name for path in work.iterdir()] == ["logs"]  # no settings, with which the next would disagree


def test_captions_of_held_out_photos_of_coco(call_program: Callable[..., Any], tmp_path: Path) -> None:
    photos = [
        ("000000000009.jpg", "train"), ("000000000030.jpg", "val"), ("COCO_train2014_000000000072.jpg", "test"),
        ("25.jpg", "val"), ("000000581929.jpg", "val"),
    ]  # fmt: skip  # not named as COCO names photos; of val2014
    images = [
        {"filename": name, "split": split, "cocoid": place, "sentences": [{"raw": "a cat"}]}
        for place, (name, split) in enumerate(photos)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    done = call_program(held_out_of_coco.main, tmp_path / "dataset.json", "--part", "train2014")
    assert done.status == 0 and done.stdout == "30\n72\n"


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=1000)
    low, high = report.interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_the_card(call_program: Callable[..., Any], tmp_path: Path) -> None:
    scores = {"CIDEr": 0.5, "BLEU@4": 0.2}
    file = tmp_path / "scores-valid.json"
    file.write_text(
        json.dumps(
            {
                "images": 2,
                "words": 9.04,
                "degenerate": {"repeats": 0.5, "bad_ends": 0.0},
                "scores": scores,
                "per_image": {"1": {"CIDEr": 0.4}, "2": {"CIDEr": 0.6}},
            }
        )
    )
    (tmp_path / "notes.md").write_text("# Mine\n\nKnows dogs.\n")
    card = tmp_path / "card.md"
    done = call_program(report.main, "--scores", f"dogs={file}", "--notes", tmp_path / "notes.md", "--card", card)
    row = "| dogs, valid | 2 | 0.500 [0.400, 0.600] | 0.200 | – | 9.0 | 50.0% |\n"
    assert done.status == 0 and row in done.stdout
    assert card.read_text().startswith("# Mine\n\nKnows dogs.\n\n## Scores\n") and card.read_text().endswith(row)
    assert "\nBeam 2, one seed.\n" in card.read_text()
    assert call_program(report.main, "--scores", "dogs", "--card", card).error == "--scores dogs: NAME=FILE is needed"
    call_program(report.main, "--scores", f"dogs={file}", f"dogs={file}", "--card", card)
    assert "\nBeam 2, 2 seeds.\n" in card.read_text()
    call_program(report.main, "--scores", f"dogs={file}", f"dogs={file}", f"cats={file}", "--card", card)
    assert "\nBeam 2, dogs: 2 seeds; cats: one seed.\n" in card.read_text()


def test_scores_without_cider(call_program: Callable[..., Any], tmp_path: Path) -> None:
    """As METRICS=bleu leaves them: the card says what there is, but captioners are compared by CIDEr."""
    file, card = tmp_path / "scores-valid.json", tmp_path / "card.md"
    found = {"images": 1, "words": 9.0, "scores": {"BLEU@4": 0.2}, "per_image": {"1": {"BLEU@4": 0.2}}}
    file.write_text(json.dumps(found))
    assert call_program(report.main, "--scores", f"dogs={file}", "--card", card).status == 0
    assert card.read_text().endswith("| dogs, valid | 1 | – | 0.200 | – | 9.0 | – |\n")
    refused = call_program(report.main, "--scores", f"dogs={file}", "--against", f"dogs={file}")
    assert refused.error == f"{file} has no CIDEr, by which captioners are compared: score with cider among METRICS"


def test_a_captioner_against_another(call_program: Callable[..., Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    before = random.gamma(2.0, size=100)
    after = before + random.normal(0.05, 0.1, 100)  # photos differ far more than the two captioners do
    files = []
    for name, values in (("before", before), ("after", after), ("fewer", after[:-1])):
        per_image = {str(image): {"CIDEr": value} for image, value in enumerate(values)}
        files.append(tmp_path / f"{name}-valid.json")
        files[-1].write_text(json.dumps({"images": len(values), "scores": {"CIDEr": 1.0}, "per_image": per_image}))
    done = call_program(report.main, "--scores", f"dogs={files[1]}", "--against", f"dogs={files[0]}")
    half = 1.96 * (after - before).std() / 10
    mean, low, high = map(float, re.findall(r"[+-]?\d\.\d{3}", done.stdout.splitlines()[-1]))
    assert mean == pytest.approx((after - before).mean(), abs=6e-4)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=2e-3) and low > 0
    for other, message in ((f"cats={files[0]}", "has no scores of dogs"), (f"dogs={files[2]}", "of other photos")):
        assert message in call_program(report.main, "--scores", f"dogs={files[1]}", "--against", other).error
    seeds = [f"dogs={files[1]}", f"dogs={files[0]}"]  # of two seeds, one has changed nothing
    done = call_program(report.main, "--scores", *seeds, "--against", f"dogs={files[0]}")
    mean, *_, one, other = map(float, re.findall(r"[+-]\d\.\d{3}", done.stdout.splitlines()[-1]))
    assert (mean, other) == (pytest.approx(one / 2, abs=6e-4), 0)
    apart = call_program(
        report.main, "--scores", seeds[0], "--scores", seeds[1], "--against", f"dogs={files[0]}"
    )  # fmt: skip
    assert apart.stdout == done.stdout
    done = call_program(report.main, "--scores", *seeds, "--against", *seeds, f"dogs={files[0]}")
    assert "--against has 3 scores of dogs, --scores 2" in done.error
