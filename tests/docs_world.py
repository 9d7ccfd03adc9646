"""A tiny world in which the commands of the documentation run: the names that its pages use exist here.

Everything is made by the real programs, of a dozen drawn scenes. A page's test works on a copy.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.end_to_end.programs import PLUGIN, ROOT, SMALL, run
from tests.tars import write_tar
from xgpt_fairseq.regions.store import RegionStore

# COCO's names for the photos: of COCO's val2014, so that lists of ids name photos of COCO. A dozen of which
# `--hold-out val=0.1,test=0.1` takes some for each split (294, 520)
IDS = (42, 73, 74, 133, 136, 164, 192, 196, 208, 241, 294, 520)
SPLITS = ("test", "val", "test", "val", *("train",) * 8)


def name(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def photos_and_captions(world: Path) -> list[dict[str, Any]]:
    """Photos, and their captions in all the files that pages name."""
    run("xgpt-draw-scenes", "--output", "drawn", "--train", "12", "--val", "1", "--test", "1", "--unseen", "1",
        "--web-train", "1", "--web-val", "1", "--workers", "1", "--pixels", "96", cwd=world)  # fmt: skip
    scenes = json.loads((world / "drawn" / "dataset_scenes.json").read_text())["images"][: len(IDS)]
    photos = world / "photos"
    photos.mkdir()
    images = []
    for number, split, scene in zip(IDS, SPLITS, scenes, strict=True):
        shutil.copy(world / "drawn" / "images" / scene["filename"], photos / name(number))
        texts = [sentence["raw"] for sentence in scene["sentences"]]
        sentences = [{"raw": text, "sentid": 10 * number + place} for place, text in enumerate(texts)]
        images.append({"cocoid": number, "filename": name(number), "split": split, "sentences": sentences})
    (world / "dataset_coco.json").write_text(json.dumps({"images": images}))
    shutil.copy(world / "dataset_coco.json", world / "captions.json")
    with (world / "captions.csv").open("w", newline="") as table:
        rows = [(image["filename"], sentence["raw"]) for image in images for sentence in image["sentences"]]
        csv.writer(table).writerows([("image", "caption"), *rows])
    first = photos / name(IDS[0])
    for copy in ("photo.jpg", "other.jpg", "photos/a/1.jpg", "photos/b.jpg", "holiday/1.jpg", "holiday/2.jpg"):
        (world / copy).parent.mkdir(exist_ok=True)
        shutil.copy(first, world / copy)
    shutil.copytree(world / "holiday", world / "new_photos")
    shutil.copytree(photos, world / "val2014")
    boxes = [
        {"image_id": image, "bbox": [8, 8, 40, 60], "category_id": 3, "score": 0.9} for image in ("1.jpg", "b.jpg")
    ]
    (world / "results.json").write_text(json.dumps(boxes))

    pairs = world / "photos_and_texts"
    pairs.mkdir()
    members: dict[str, bytes | str] = {}
    for image in images:
        stem = Path(image["filename"]).stem
        shutil.copy(photos / image["filename"], pairs)
        (pairs / f"{stem}.txt").write_text(image["sentences"][0]["raw"])
        members |= {f"{stem}.jpg": (pairs / f"{stem}.jpg").read_bytes(), f"{stem}.txt": image["sentences"][0]["raw"]}
    write_tar(world / "shards" / "00000.tar", members)
    rows = [(n.removesuffix(".jpg"), text) for n, text in members.items() if isinstance(text, str)]
    _parquet(world / "parquet" / "train-00000-of-00001.parquet", pairs, rows)

    text = "".join(f"{s['raw']}\n" for image in images for s in image["sentences"])
    (world / "wiki.en.txt").write_text(text)
    (world / "news.1.gz").write_bytes(gzip.compress(text.encode()))
    return images


def _parquet(path: Path, photos: Path, rows: list[tuple[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir()
    images = [{"bytes": (photos / f"{Path(n).stem}.jpg").read_bytes(), "path": f"{Path(n).stem}.jpg"} for n, _ in rows]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "caption": [text for _, text in rows]}), path)


def archives(world: Path, images: list[dict[str, Any]]) -> None:
    """Published features of the photos: `cocobu`'s folders with COCO's annotations, and a TSV."""
    store = RegionStore(world / "data" / "regions")
    lines = []
    for folder in ("cocobu_att", "cocobu_box", "annotations", "trainval_36"):
        (world / folder).mkdir()
    for number in IDS:
        index = store.image_index(str(number))
        features, boxes = store.features(index).astype(np.float32), (store.boxes(index) * 96).astype(np.float32)
        np.savez(world / "cocobu_att" / f"{number}.npz", feat=features)
        np.save(world / "cocobu_box" / f"{number}.npy", boxes)
        arrays = [base64.b64encode(array.tobytes()).decode() for array in (boxes, features)]
        lines.append("\t".join([str(number), "96", "96", str(len(boxes)), *arrays]) + "\n")
    (world / "trainval_36" / "part.tsv").write_text("".join(lines))
    half = len(images) // 2
    for part, those in (("train", images[:half]), ("val", images[half:])):
        sizes = [{"id": i["cocoid"], "file_name": i["filename"], "width": 96, "height": 96} for i in those]
        (world / "annotations" / f"instances_{part}2014.json").write_text(json.dumps({"images": sizes}))


def train(world: Path, task: str, save_dir: str, *more: object) -> str:
    """What a short training logs."""
    return run(
        "fairseq-train", "data/coco", "--user-dir", PLUGIN, "--task", task, "--arch", "xgpt_demo", *SMALL,
        "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3", "--batch-size", "16", "--cpu",
        "--num-workers", "0", "--log-format", "simple", "--log-interval", "1", "--save-dir", save_dir, *more, cwd=world,
    ).stdout  # fmt: skip


def data_and_models(world: Path) -> None:
    """Regions, vocabulary, data directories, checkpoints, captions, a bundle, logs."""
    run("xgpt-extract-regions", "photos", "--output", "data/regions", "--image-size", "96", "--workers", "0",
        "--grid", "2", cwd=world)  # fmt: skip
    run("xgpt-learn-bpe", "--input", "wiki.en.txt", "--output", "vocabulary", "--symbols", "60", cwd=world)
    run("xgpt-prepare-captions", "dataset_coco.json", "--vocabulary", "vocabulary", "--regions", "data/regions",
        "--output", "data/coco", cwd=world)  # fmt: skip
    run("xgpt-prepare-text", "--input", "wiki.en.txt", "--vocabulary", "vocabulary", "--output", "data/text",
        "--valid-lines", "8", "--workers", "1", cwd=world)  # fmt: skip
    logs = {
        "cc": train(world, "xgpt_pretrain", "checkpoints/cc", "--max-update", "4", "--no-epoch-checkpoints"),
        "coco": train(world, "xgpt_caption", "checkpoints/coco", "--max-epoch", "4", "--eval-captions",
                      "--best-checkpoint-metric", "cider", "--maximize-best-checkpoint-metric",
                      "--keep-best-checkpoints", "4", "--keep-last-epochs", "2"),
    }  # fmt: skip
    logs["coco-pretrain"] = logs["cc"]
    for log, text in logs.items():
        (world / f"{log}.log").write_text(text)
    average = world / "checkpoints" / "coco" / "averaged.pt"
    run("xgpt-average-checkpoints", "--checkpoints", "checkpoints/coco", "--last-epochs", "2", "--output", average,
        cwd=world)  # fmt: skip
    run("fairseq-generate", "data/coco", "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", average, "--cpu",
        "--gen-subset", "test", "--results-path", "out", cwd=world)  # fmt: skip
    run("xgpt-export", average, "--output", "bundle", cwd=world)

    # what pages have of other data and stages: the same again
    for other in ("base", "tiny"):
        (world / "out" / other).mkdir()
        shutil.copy(world / "out" / "generate-test.txt", world / "out" / other)
    for other in ("cc", "flickr30k"):
        shutil.copytree(world / "data" / "coco", world / "data" / other)
    for other in ("text", "coco-pretrain", "flickr30k"):
        (world / "checkpoints" / other).mkdir()
        shutil.copy(average, world / "checkpoints" / other)
    shutil.copy(world / "checkpoints" / "cc" / "checkpoint_last.pt", world / "checkpoints" / "cc" / "averaged.pt")
    for other in ("coco.regions", "data/photos.regions"):
        shutil.copytree(world / "data" / "regions", world / other)
    shutil.copytree(world / "vocabulary", world / "data" / "vocabulary")


def make(world: Path) -> None:
    """The world, in a new folder."""
    world.mkdir()
    images = photos_and_captions(world)
    data_and_models(world)
    archives(world, images)
    shutil.copytree(ROOT / "examples", world / "examples", ignore=shutil.ignore_patterns("output"))
    scenes = world / "examples" / "quickstart" / "output" / "scenes" / "captions"
    shutil.copytree(world / "data" / "coco", scenes)
    for link, target in (("xgpt_fairseq", PLUGIN), ("preprocess", ROOT / "preprocess"), (".venv", world / "venv")):
        (world / link).symlink_to(target)
    (scenes / "regions").symlink_to(world / "data" / "regions")
    (world / "venv" / "bin").mkdir(parents=True)
    (world / "venv" / "bin" / "activate").write_text("# the programs are in PATH\n")
