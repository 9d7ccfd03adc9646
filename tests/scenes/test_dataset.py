"""The quickstart's data set: what is drawn, what is said of it, and that both agree with the facts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.folders import contents
from tests.thorough import examples
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.cli import draw_scenes
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.scenes import captions as scene_captions
from xgpt_fairseq.scenes import dataset as scenes
from xgpt_fairseq.scenes.alt_texts import STYLES, WEB_BACKGROUNDS, WEB_CLUTTER
from xgpt_fairseq.scenes.backgrounds import BACKGROUND_PAINTERS, CLUTTER_PAINTERS
from xgpt_fairseq.scenes.claims import Verdict, judge, read_claims
from xgpt_fairseq.scenes.dataset import Name, scene_of, texts_of
from xgpt_fairseq.scenes.drawing import thing_tile
from xgpt_fairseq.scenes.facts import (
    BACKGROUNDS,
    COLOURS,
    CONTAINERS,
    KINDS,
    RELATIONS,
    Thing,
    all_pairs,
    held_out_pairs,
    pixel_box,
)
from xgpt_fairseq.scenes.sets import SCENES, SPLITS, WEB
from xgpt_fairseq.scenes.shapes import HUES, PAINTERS

SEEDS = st.integers(0, 10**6)
NAMES = st.builds(
    lambda seed, key, number: Name(seed, *key, number),
    SEEDS,
    st.sampled_from(list(SPLITS)),
    st.integers(0, 10**4),
)
CLEAN_NAMES = NAMES.filter(lambda name: name.dataset == SCENES)
COUNTS = dict(zip(SPLITS, (6, 2, 5, 3, 3, 4), strict=True))
OPTIONS = [f"--{option.replace('_', '-')}={COUNTS[key]}" for key, (option, _) in SPLITS.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set. Not to be changed."""
    output = tmp_path_factory.mktemp("scenes") / "made"
    scenes.write_data_set(output, seed=1, counts=COUNTS, pixels=96, workers=1)
    return output


def images(folder: Path, dataset: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"dataset_{dataset}.json").read_text())["images"]


# The same seed, the same bytes


def test_workers_do_not_matter(made: Path, tmp_path: Path) -> None:
    scenes.write_data_set(tmp_path / "made", seed=1, counts=COUNTS, pixels=96, workers=3)
    assert contents(tmp_path / "made") == contents(made)


def test_processes_do_not_matter(made: Path, tmp_path: Path) -> None:
    """Another process orders its sets otherwise."""
    command = [
        sys.executable,
        "-m",
        draw_scenes.__name__,
        "--output",
        str(tmp_path / "made"),
        "--pixels",
        "96",
        *OPTIONS,
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "made") == contents(made)


def test_an_image_does_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    scenes.write_data_set(tmp_path / "more", seed=1, counts={k: n + 2 for k, n in COUNTS.items()}, pixels=96, workers=1)
    for dataset in (WEB, SCENES):
        more = {image["filename"]: image for image in images(tmp_path / "more", dataset)}
        for image in images(made, dataset):
            other = more[image["filename"]]
            assert [s["raw"] for s in image["sentences"]] == [s["raw"] for s in other["sentences"]]
            assert image["facts"] == other["facts"]
            name = f"images/{image['filename']}"
            assert (made / name).read_bytes() == (tmp_path / "more" / name).read_bytes()


def test_another_seed_is_another_data_set(made: Path, tmp_path: Path) -> None:
    scenes.write_data_set(tmp_path / "other", seed=2, counts=COUNTS, pixels=96, workers=1)
    first, second = contents(made), contents(tmp_path / "other")
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] == second[name]]


# What is drawn


def test_files_are_whole(made: Path) -> None:
    listed = [image for dataset in (WEB, SCENES) for image in images(made, dataset)]
    files = sorted(file.name for file in (made / "images").iterdir())
    assert files == sorted(image["filename"] for image in listed)
    for image in listed:
        with Image.open(made / "images" / image["filename"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (96, 96)
            assert picture.mode == "RGB"
            picture.load()
    assert len({hashlib.sha256((made / "images" / name).read_bytes()).digest() for name in files}) == len(files)


@given(CLEAN_NAMES)
@settings(max_examples=25)
def test_no_two_pictures_of_the_same_facts_are_alike(name: Name) -> None:
    from xgpt_fairseq.scenes.drawing import draw

    scene = scene_of(name)
    first, second = (np.asarray(draw(scene, Random(seed), 64)) for seed in (1, 2))
    assert first.shape == (64, 64, 3)
    assert (first != second).any()


def test_everything_has_a_painter() -> None:
    assert PAINTERS.keys() == KINDS.keys() == scene_captions.NOUNS.keys()
    assert set(HUES) == set(COLOURS)
    assert BACKGROUND_PAINTERS.keys() == WEB_BACKGROUNDS.keys() > BACKGROUNDS.keys()
    assert {*CLUTTER_PAINTERS, None} == WEB_CLUTTER.keys()
    assert scene_captions.BACKGROUND_PHRASES.keys() == BACKGROUNDS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_thing_fills_its_box_in_its_colour(kind: str, colour: str) -> None:
    for seed in range(4):
        thing = Thing(kind, colour, "big", (0, 0, 1, 1))
        pixels = np.asarray(thing_tile(thing, Random(seed), round(60 * KINDS[kind]), 60)).astype(int)
        solid = pixels[:, :, 3] > 40
        for edge in (solid[0], solid[-1], solid[:, 0], solid[:, -1]):
            assert edge.any()
        # The largest part of it is nearer to its own colour than to any other; the outline and what is always grey
        # or brown (wheels, coffee) are less.
        opaque = pixels[pixels[:, :, 3] > 250][:, :3]
        distances = np.stack([np.abs(opaque - np.array(hue)).sum(axis=1) for hue in HUES.values()])
        common = Counter(np.array(list(HUES))[distances.argmin(axis=0)].tolist()).most_common(1)[0][0]
        assert common == colour


@given(NAMES)
def test_things_lie_in_the_picture_and_as_their_relation_says(name: Name) -> None:
    scene = scene_of(name)
    boxes = [pixel_box(thing.box, 256) for thing in scene.things]
    assert all(0 <= x1 < x2 <= 256 and 0 <= y1 < y2 <= 256 for x1, y1, x2, y2 in boxes)
    assert len({thing.kind for thing in scene.things}) == len(scene.things) == len(boxes)
    if scene.relation != "alone":
        assert related(scene.relation, boxes)
    for thing in scene.things:
        longest = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
        assert longest <= 0.34 if thing.size == "small" else longest >= 0.36


Box = tuple[int, int, int, int]


def related(relation: str, boxes: list[Box]) -> bool:
    """Whether pixel boxes stand in *relation*: geometry alone, and so that nobody would call it anything else."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[:2]
    level = abs((ay1 + ay2) - (by1 + by2)) / 2
    upright = abs((ax1 + ax2) - (bx1 + bx2)) / 2
    if relation == "left of":
        return ax2 < bx1 and level < ((bx1 + bx2) - (ax1 + ax2)) / 2
    if relation == "above":
        return ay2 < by1 and upright < ((by1 + by2) - (ay1 + ay2)) / 2
    if relation == "on":
        middle = (ax1 + ax2) / 2
        return ay1 < by1 <= ay2 < (by1 + by2) / 2 and bx1 < middle < bx2
    if relation == "inside":
        return bx1 < ax1 < ax2 < bx2 and by1 < ay1 < ay2 < by2
    assert relation == "between"
    return related("left of", [boxes[1], boxes[0]]) and related("left of", [boxes[0], boxes[2]])


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_inside_covers_nothing_of_what_is_around_it(container: str) -> None:
    found = 0
    for number in range(400):
        scene = scene_of(Name(3, SCENES, "train", number))
        if scene.relation != "inside" or scene.things[1].kind != container:
            continue
        found += 1
        x1, y1, x2, y2 = pixel_box(scene.things[1].box, 256)
        alpha = np.asarray(thing_tile(scene.things[1], Random(1), x2 - x1, y2 - y1))[:, :, 3]
        left, top, right, bottom = pixel_box(scene.things[0].box, 256)
        assert not alpha[top - y1 : bottom - y1, left - x1 : right - x1].any()
    assert found > 5


# What is said


@examples(100, max_examples=300)
@given(CLEAN_NAMES)
def test_clean_captions_are_true_and_complete(name: Name) -> None:
    scene = scene_of(name)
    facts = scenes.facts(scene, 256)
    kinds = [thing.kind for thing in scene.things]
    texts, style = texts_of(name)
    assert style is None
    assert len(set(texts)) == len(texts) == 5
    for text in texts:
        assert re.fullmatch(r"[A-Z][a-z, ]+\.", text)
        assert not re.search(r"\ba [aeiou]|\ban |  ", text.lower())
        claims = read_claims(text)
        assert judge(claims, facts) == Verdict(kinds=True, colours=True, relation=True), text
        # By the boxes, too, whatever the facts call it; "beside" may be either way round.
        boxes = {thing.kind: pixel_box(thing.box, 256) for thing in scene.things}
        order = [boxes[claims.things[place][2]] for place in claims.related]
        if claims.relation == "beside":
            assert related("left of", order) or related("left of", order[::-1])
        elif (claims.relation, scene.relation) == ("above", "on"):
            assert related("on", order)
        else:
            assert related(str(claims.relation), order), text
        sizes = {thing.kind: thing.size for thing in scene.things}
        assert all(size in (None, sizes[kind]) for size, _, kind in claims.things)
        assert sorted(kinds) == sorted(kind for _, _, kind in claims.things)


def test_backgrounds_are_named_truly() -> None:
    words = {"striped": "stripes", "stripes": "stripes", "dotted": "dots", "polka": "dots", "meadow": "meadow",
             "grass": "meadow", "countryside": "meadow", "night": "night", "stars": "night", "sea": "sea",
             "speckled": "speckles", "shaded": "gradient", "plain": "plain"}  # fmt: skip
    named = Counter[str]()
    for number in range(600):
        name = Name(5, SCENES, "train", number)
        for text in texts_of(name)[0]:
            said = {words[word] for word in re.findall(r"[a-z]+", text.lower()) if word in words}
            assert said <= {scene_of(name).background}
            named.update(said)
    assert named.keys() == BACKGROUNDS.keys()


def test_the_common_wording_is_common_and_the_rest_is_not_rare() -> None:
    """People agree, but not wholly: of two captions of a scene, some have the same words and most have not."""
    texts = [texts_of(Name(1, SCENES, "train", number))[0] for number in range(300)]
    plain = sum(bool(re.match(r"(a|an) [a-z ]+ to the (left|right) of", text.lower())) for of in texts for text in of)
    assert 0.1 < plain / 1500 < 0.3
    relations = Counter(scene_of(Name(1, SCENES, "train", number)).relation for number in range(2000))
    for relation, share in RELATIONS.items():
        assert relations[relation] / 2000 == pytest.approx(share, abs=0.03)


def test_alt_texts_are_noisy_as_stated() -> None:
    styles = Counter[str]()
    for number in range(3000):
        name = Name(1, WEB, "train", number)
        (text,), style = texts_of(name)
        styles[str(style)] += 1
        shown = {(thing.colour, thing.kind) for thing in scene_of(name).things}
        kinds = {kind for _, kind in shown}
        said = [(colour, kind) for _, colour, kind in read_claims(text).things]
        assert said and "{" not in text, text
        if style == "wrong":
            assert not kinds & {kind for _, kind in said}, text
        else:
            assert all((colour, kind) in shown or (colour is None and kind in kinds) for colour, kind in said), text
            verdict = judge(read_claims(text), scenes.facts(scene_of(name), 256))
            assert verdict.relation is not False, text
        if style in ("sentence", "terse", "tags"):
            assert len(said) == len(shown) and all(colour for colour, _ in said)
        if style == "short":
            assert len(said) == 1
    assert styles.keys() == STYLES.keys()
    for style, share in STYLES.items():
        assert styles[style] / 3000 == pytest.approx(share, abs=0.02)


# What only `unseen` has


@given(SEEDS)
def test_held_out_pairs_are_one_of_each_kind_and_leave_every_colour_its_share(seed: int) -> None:
    held_out = held_out_pairs(seed)
    assert held_out < all_pairs()
    assert Counter(kind for _, kind in held_out) == dict.fromkeys(KINDS, 1)
    assert set(Counter(colour for colour, _ in held_out).values()) == {len(KINDS) // len(COLOURS)}


@examples(100, max_examples=300)
@given(NAMES)
def test_held_out_pairs_are_seen_and_named_in_unseen_alone(name: Name) -> None:
    held_out = held_out_pairs(name.seed)
    shown = {(thing.colour, thing.kind) for thing in scene_of(name).things}
    named = {(colour, kind) for text in texts_of(name)[0] for _, colour, kind in read_claims(text).things}
    if name.split == "unseen":
        assert len(shown & held_out) == 1
        assert named == shown
    else:
        assert not (shown | named) & held_out


# The files


def test_karpathys_format(made: Path) -> None:
    for dataset, splits in (
        (WEB, {"train": 6, "valid": 2}),
        (SCENES, {"train": 5, "valid": 3, "test": 3, "unseen": 4}),
    ):
        file = made / f"dataset_{dataset}.json"
        read = list(read_captions(file, "auto"))
        assert Counter(image.split for image in read) == splits
        assert {len(image.captions) for image in read} == {1 if dataset == WEB else 5}
        assert all(image.image_id.startswith(f"{dataset}_") for image in read)
        value = json.loads(file.read_text())
        assert (value["dataset"], value["seed"]) == (dataset, 1)
        assert {tuple(pair) for pair in value["held_out"]} == held_out_pairs(1)
        assert [image["imgid"] for image in value["images"]] == list(range(len(read)))
        sentids = [s["sentid"] for image in value["images"] for s in image["sentences"]]
        assert sentids == list(range(len(sentids)))
        for image in value["images"]:
            assert image["sentids"] == [s["sentid"] for s in image["sentences"]]
            assert {s["imgid"] for s in image["sentences"]} == {image["imgid"]}
            assert ("style" in image) == (dataset == WEB)
            _, split, number = Path(image["filename"]).stem.split("_")
            assert image["facts"] == scenes.facts(scene_of(Name(1, dataset, split, int(number))), 96)


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scenes.make_image

    def fails(name: Name, folder: Path, pixels: int) -> dict[str, Any]:
        if (name.dataset, name.number) == (SCENES, 2):
            raise OSError("disk full")
        return whole(name, folder, pixels)

    monkeypatch.setattr(scenes, "make_image", fails)
    with pytest.raises(DataError, match="cannot be written: disk full"):
        scenes.write_data_set(tmp_path / "made", seed=1, counts=COUNTS, pixels=64, workers=1)
    assert not list(tmp_path.iterdir())


def test_an_interruption_at_the_end_leaves_the_old_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the new images are flushed to the disk, which takes long."""
    counts = {(SCENES, "train"): 2}
    scenes.write_data_set(tmp_path / "made", seed=1, counts=counts, pixels=64, workers=1)
    (tmp_path / "made" / "images" / "own.txt").write_text("replaced with the whole")
    before = contents(tmp_path)

    def interrupted(path: Path) -> None:
        if path.suffix == ".jpg":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("xgpt_fairseq.io.atomic.sync_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scenes.write_data_set(tmp_path / "made", seed=2, counts=counts, pixels=64, workers=1)
    assert contents(tmp_path) == before
    scenes.write_data_set(tmp_path / "made", seed=2, counts=counts, pixels=64, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert json.loads((tmp_path / "made" / "dataset_scenes.json").read_text())["seed"] == 2
    assert not (tmp_path / "made" / "images" / "own.txt").exists()
