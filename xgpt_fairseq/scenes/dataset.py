"""A data set of drawn scenes, made up by rules: which scene an image shows, its picture, its captions, the files.

OUTPUT/images/*.jpg        the pictures of both sets
OUTPUT/dataset_web.json    noisy, one alt text per image, for out-of-domain pre-training; splits train, val
OUTPUT/dataset_scenes.json clean, five captions per image; splits train, val, test, and `unseen`: each of its images
                           shows a pair of colour and kind that nothing else in the two sets shows or names

Both files are in Karpathy's format, with the `facts` of every image beside its captions. An image depends on the seed,
its split and its number alone: not on how many there are, nor on the number of workers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from xgpt_fairseq.io.atomic import atomic_directory, atomic_write, write_json
from xgpt_fairseq.io.workers import map_ordered
from xgpt_fairseq.scenes.alt_texts import WEB_BACKGROUNDS, WEB_CLUTTER, WEB_RELATIONS, alt_text
from xgpt_fairseq.scenes.captions import captions
from xgpt_fairseq.scenes.facts import Scene, all_pairs, held_out_pairs, pixel_box, random_scene
from xgpt_fairseq.scenes.sets import SCENES, WEB

if TYPE_CHECKING:
    from PIL import Image

VERSION = 1  # of the two files

_QUALITY = 92
_WEB_QUALITY = (60, 92)
_SHEET, _SAME_BACKGROUND, _SAME_RELATION = 12, 2, 3  # scenes on a contact sheet, and how many at most are alike
_CHUNK = 16


@dataclass(frozen=True)
class Name:
    """Which image: all that its scene, its picture and its captions depend on."""

    seed: int
    dataset: str
    split: str
    number: int

    @property
    def filename(self) -> str:
        return f"{self.dataset}_{self.split}_{self.number:05d}.jpg"

    def random(self, purpose: str) -> Random:
        """A generator of its own for each purpose: a change in one leaves the others as they are."""
        return Random(f"{self.seed} {self.dataset} {self.split} {self.number} {purpose}")


def scene_of(name: Name) -> Scene:
    """The scene that the image *name* shows."""
    held_out = held_out_pairs(name.seed)
    return _scene(name, name.random("facts"), one_of=held_out if name.split == "unseen" else ())


def _scene(name: Name, random: Random, **options: Any) -> Scene:
    pairs = all_pairs() - held_out_pairs(name.seed)
    if name.dataset == WEB:
        options |= {"relations": WEB_RELATIONS, "backgrounds": WEB_BACKGROUNDS, "clutter": WEB_CLUTTER}
    return random_scene(random, pairs, **options)


def picture_of(name: Name, pixels: int) -> Image.Image:
    """The picture of the image *name*."""
    from xgpt_fairseq.scenes.drawing import draw

    return draw(scene_of(name), name.random("picture"), pixels)


def texts_of(name: Name) -> tuple[list[str], str | None]:
    """The captions of the image *name*, and of an alt text also its style."""
    scene, random = scene_of(name), name.random("text")
    if name.dataset == SCENES:
        return captions(scene, random), None
    kinds = {thing.kind for thing in scene.things}
    other = _scene(name, random)
    while kinds & {thing.kind for thing in other.things}:
        other = _scene(name, random)
    text = alt_text(scene, other, random)
    return [text.text], text.style


def facts(scene: Scene, pixels: int) -> dict[str, Any]:
    """*scene* for JSON; boxes are x1, y1, x2, y2 in pixels."""
    return {
        "things": [
            {"kind": thing.kind, "colour": thing.colour, "size": thing.size, "box": list(pixel_box(thing.box, pixels))}
            for thing in scene.things
        ],
        "relation": scene.relation,
        "background": scene.background,
        "clutter": scene.clutter,
    }


def make_image(name: Name, folder: Path, pixels: int) -> dict[str, Any]:
    """Draw the image *name* into *folder*; return its record but for the numbers that count images and captions."""
    scene = scene_of(name)
    quality = _QUALITY if name.dataset == SCENES else name.random("quality").randint(*_WEB_QUALITY)
    picture_of(name, pixels).save(folder / name.filename, quality=quality, subsampling=0)
    texts, style = texts_of(name)
    record = {
        "filename": name.filename,
        "split": name.split,
        "width": pixels,
        "height": pixels,
        "sentences": [{"raw": text} for text in texts],
        "facts": facts(scene, pixels),
    }
    return record if style is None else {**record, "style": style}


def _numbered(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """With Karpathy's `imgid`, `sentids` and `sentid`."""
    images, sentid = [], 0
    for imgid, record in enumerate(records):
        sentences = [
            {"raw": sentence["raw"], "imgid": imgid, "sentid": sentid + i}
            for i, sentence in enumerate(record["sentences"])
        ]
        sentid += len(sentences)
        images.append({**record, "imgid": imgid, "sentids": [s["sentid"] for s in sentences], "sentences": sentences})
    return images


def _made(names: Sequence[Name], folder: Path, pixels: int, workers: int) -> Iterator[dict[str, Any]]:
    """The records of *names* in their order, while *workers* processes draw (0 or 1: this one)."""
    return map_ordered(partial(make_image, folder=folder, pixels=pixels), names, workers, chunk=_CHUNK)


def write_data_set(output: Path, *, seed: int, counts: dict[tuple[str, str], int], pixels: int, workers: int) -> None:
    """Write the sets under *output*, those that have images, whole or not at all; what is there already is replaced.

    Args:
        counts: (data set, split) → number of images.
    """
    names = [Name(seed, *key, number) for key, count in counts.items() for number in range(count)]
    held_out = sorted(map(list, held_out_pairs(seed)))
    with atomic_directory(output, last="dataset_scenes.json", files=None) as aside:
        (aside / "images").mkdir()
        made = _made(names, aside / "images", pixels, workers)
        records = list(tqdm(made, desc="drawing", total=len(names), unit=" images"))
        for dataset in sorted({name.dataset for name in names}):
            images = _numbered([r for name, r in zip(names, records, strict=True) if name.dataset == dataset])
            value = {"dataset": dataset, "version": VERSION, "seed": seed, "held_out": held_out, "images": images}
            write_json(aside / f"dataset_{dataset}.json", value)


def write_sheet(file: Path, *, seed: int, pixels: int) -> None:
    """Write a picture of `_SHEET` test scenes and a caption of each: the first ones that make a varied dozen."""
    from xgpt_fairseq.scenes.sheet import contact_sheet

    names: list[Name] = []
    shown: Counter[str] = Counter()
    for name in (Name(seed, SCENES, "test", number) for number in itertools.count()):
        scene = scene_of(name)
        if shown[scene.background] < _SAME_BACKGROUND and shown[scene.relation] < _SAME_RELATION:
            names.append(name)
            shown.update([scene.background, scene.relation])
        if len(names) == _SHEET:
            break
    sheet = contact_sheet(
        [picture_of(name, pixels) for name in names], [texts_of(name)[0][0] for name in names], columns=4
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as aside:
        sheet.save(aside, format="PNG" if file.suffix.lower() == ".png" else "JPEG")
