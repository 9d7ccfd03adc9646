"""Captions as people have them: each layout is written to files, is recognised, and gives each photo its captions."""

from __future__ import annotations

import csv
import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import put
from xgpt_fairseq.captions.base import CaptionOptions, ReadingLog
from xgpt_fairseq.captions.options import read_split_files
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.captions.tables import MENDED
from xgpt_fairseq.regions.image_ids import NameIndex, canonical_image_id

# photo → its captions
DATA = {
    "1000268201_693b08cb0e.jpg": ["A child in a pink dress .", "A girl, going into a building ."],
    "17273391_55cfc7d3d4.jpg": ['A man in a "red" shirt ; on a hill .', "Someone walks ."],
    "30.jpg": ["Two dogs | of different breeds .", "A black dog."],
    "my photos/Ein Bär.png": ["A bear's photo .", "Ein Bär ."],
}
Pairs = dict[str, list[str]]
# How a layout is written: the files, and the captions of each photo.
Written = tuple[dict[str, str], Pairs]


def table(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def first_of(data: Pairs) -> Pairs:
    return {name: captions[:1] for name, captions in data.items()}


def kaggle_flickr8k() -> Written:
    rows = [[name, caption] for name, captions in DATA.items() for caption in captions]
    return {"captions.txt": table([["image", "caption"], *rows])}, DATA


def kaggle_flickr30k() -> Written:
    data = {name: [caption.replace("|", "") for caption in captions] for name, captions in DATA.items()}
    lines = [f"{name}| {n}| {text}" for name, captions in data.items() for n, text in enumerate(captions)]
    lines[3] = lines[3].replace("| 1| ", "| 1   ")
    return {"results.csv": "\n".join(["image_name| comment_number| comment", *lines])}, data


def imagefolder() -> Written:
    rows = [json.dumps({"file_name": name, "text": captions[0] + "\n"}) for name, captions in DATA.items()]
    return {"metadata.jsonl": "\n".join(rows)}, first_of(DATA)


def imagefolder_csv() -> Written:
    rows = [[name, captions[0]] for name, captions in DATA.items()]
    return {"metadata.csv": table([["file_name", "text"], *rows])}, first_of(DATA)


def own_csv() -> Written:
    rows = [[f"nature/{name}", text, "all"] for name, captions in DATA.items() for text in captions]
    content = table([["filepath", "caption", "split"], *rows[::2], *rows[1::2]])
    return {"captions.csv": "\ufeff" + content}, {f"nature/{name}": captions for name, captions in DATA.items()}


def list_of_records() -> Written:
    records = [{"image": name, "caption": captions, "image_id": n} for n, (name, captions) in enumerate(DATA.items())]
    return {"annotations.json": json.dumps(records)}, DATA


def dict_of_names() -> Written:
    return {"captions.json": json.dumps({name: captions[0] for name, captions in DATA.items()})}, first_of(DATA)


def dict_of_lists() -> Written:
    return {"lists.json": json.dumps({name.rsplit(".")[0]: captions for name, captions in DATA.items()})}, DATA


def llava() -> Written:
    asked = {"from": "human", "value": "Describe the image concisely.\n<image>"}
    turns = [
        {"id": name[:-4], "image": name, "conversations": [asked, {"from": "gpt", "value": captions[0]}]}
        for name, captions in DATA.items()
    ]
    return {"conversations.json": json.dumps(turns)}, first_of(DATA)


def coco_other_numbers() -> Written:
    """Ids that count otherwise than the files' names do."""
    names = [f"{len(DATA) - n}.jpg" for n in range(len(DATA))]
    images = [{"id": n + 1, "file_name": name} for n, name in enumerate(names)]
    texts = [(n + 1, text) for n, captions in enumerate(DATA.values()) for text in captions]
    annotations = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(texts)]
    content = json.dumps({"images": images, "annotations": annotations})
    return {"captions.json": content}, dict(zip(names, DATA.values(), strict=True))


def vizwiz() -> Written:
    """Captions that are rejected or precanned must go."""
    image = {"file_name": "VizWiz_00000000.jpg", "id": 0}
    captions = [
        {"caption": "A can.", "image_id": 0, "is_precanned": False, "is_rejected": False, "id": 0},
        {
            "caption": "Quality issues are too severe.",
            "image_id": 0,
            "is_precanned": True,
            "is_rejected": False,
            "id": 1,
        },
        {"caption": "Spam.", "image_id": 0, "is_precanned": False, "is_rejected": True, "id": 2},
    ]
    content = json.dumps({"images": [image], "annotations": captions})
    return {"annotations.json": content}, {"VizWiz_00000000.jpg": ["A can."]}


def karpathy_without_ids() -> Written:
    images = [
        {"filename": f"{n + 1}.tif", "imgid": n, "sentences": [{"raw": text} for text in captions], "split": "all"}
        for n, captions in enumerate(DATA.values())
    ]
    pairs = {f"{n + 1}.tif": captions for n, captions in enumerate(DATA.values())}
    return {"dataset.json": json.dumps({"images": images, "dataset": "UCM"})}, pairs


def cc12m() -> Written:
    lines = [f"http://example.org/{n}.jpg\t{captions[0]}" for n, captions in enumerate(DATA.values())]
    return {"cc12m.tsv": "\n".join(lines)}, {f"{n}.jpg": captions[:1] for n, captions in enumerate(DATA.values())}


def chinese() -> Written:
    data = {f"{n}_a.jpg": ["一只棕色的狗在草地上奔跑", "两个孩子在海边玩耍"] for n in range(3)}
    lines = [f"{name}#zhc#{n} {text}" for name, captions in data.items() for n, text in enumerate(captions)]
    lists = {"all.list": "".join(f"{name[:-4]}\n" for name in data)}
    return {"flickr8kzhc.caption.txt": "\n".join(lines), **lists}, data


def long_captions() -> Written:
    data = {name: ["\n\n".join([" ".join(captions) * 20] * 3)] for name, captions in DATA.items()}
    rows = [json.dumps({"image": name, "caption": captions[0], "split": "all"}) for name, captions in data.items()]
    return {"long.jsonl": "\n".join(rows)}, data


LAYOUTS = (
    kaggle_flickr8k, kaggle_flickr30k, imagefolder, imagefolder_csv, own_csv, list_of_records, dict_of_names,
    dict_of_lists, llava, coco_other_numbers, vizwiz, karpathy_without_ids, cc12m, chinese, long_captions,
)  # fmt: skip


def pairs_of(paths: list[Path], photos: list[str], log: ReadingLog | None = None) -> dict[str, Pairs]:
    """split → photo → captions, as the files have them."""
    lists = [f"{path.stem}={path}" for folder in {path.parent for path in paths} for path in folder.glob("*.list")]
    index = NameIndex((canonical_image_id(photo), photo) for photo in photos)
    options = CaptionOptions(unknown_split="all", split_lists=read_split_files(lists), log=log or ReadingLog())
    pairs: dict[str, Pairs] = {}
    for image in read_sources([open_source(path) for path in paths], options):
        (photo,) = index.find(image.file_name or image.image_id)
        texts = [" ".join(caption.text.split()) for caption in image.captions]
        assert photo not in pairs.setdefault(image.split, {})
        if texts:
            pairs[image.split][photo] = texts
    return pairs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_photo_has_its_captions(tmp_path: Path, layout: Callable[[], Written]) -> None:
    files, expected = layout()
    paths = [put(tmp_path, name, content) for name, content in files.items()]
    log = ReadingLog()
    found = pairs_of([path for path in paths if path.suffix != ".list"], list(expected), log)
    assert found == {"all": {name: [" ".join(text.split()) for text in texts] for name, texts in expected.items()}}
    assert log.counts[MENDED] == (layout is kaggle_flickr30k)


def test_ids_that_count_anew_in_each_file(tmp_path: Path) -> None:
    """As VizWiz's do: the names of files tell photos apart."""
    paths = []
    for split in ("train", "val"):
        images = [{"id": 0, "file_name": f"{split}_0.jpg"}]
        annotations = [{"id": 0, "image_id": 0, "caption": split}]
        content = json.dumps({"images": images, "annotations": annotations})
        paths.append(put(tmp_path, f"{split}.json", content))
    expected = {"train": {"train_0.jpg": ["train"]}, "valid": {"val_0.jpg": ["val"]}}
    assert pairs_of(paths, ["train_0.jpg", "val_0.jpg"]) == expected


@pytest.mark.parametrize(
    "name",
    ["kaggle_flickr8k", "kaggle_flickr30k", "imagefolder_jsonl", "imagefolder_csv", "cc12m", "vizwiz", "nocaps",
     "coco_other_numbers", "llava", "rsicd", "ucm", "dict_of_names", "dict_of_lists", "list_of_records", "own_csv",
     "long_captions", "chinese"],
)  # fmt: skip
def test_layouts_of_real_photos(tmp_path: Path, coco_mini: Path, name: str) -> None:
    script = coco_mini.parent / "layouts" / "make_layouts.py"
    if not script.exists():
        pytest.skip(f"{script} is not here")
    pytest.importorskip("PIL")
    runpy.run_path(str(script))["main"](tmp_path, [name])
    folder = tmp_path / name
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    for split in ("train", "val"):
        if (folder / f"{split}.txt").exists():
            (folder / f"{split}.txt").rename(folder / f"{split}.list")
    wanted = {{"val": "valid"}.get(split, split): pairs for split, pairs in expected["pairs"].items()}
    photos = [photo for pairs in wanted.values() for photo in pairs]
    assert pairs_of([folder / path for path in expected["captions"]], photos) == wanted
