"""Images as the archives of other projects have them, written as those projects' own programs write them."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import lmdb
import numpy as np

CLASSES = 11  # of a detector, the first of them background


class Image(NamedTuple):
    """features (n, D) float32; boxes (n, 4) float32 x1 y1 x2 y2 in pixels; size width, height; classes (n,) from 1."""

    name: str
    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int]
    classes: np.ndarray
    scores: np.ndarray


def made_up(number: int, *, count: int | None = None, width: int = 16, size: tuple[int, int] = (640, 480)) -> Image:
    """An image of *count* (1 to 7 by its number) regions with random values; float16 changes all of them."""
    random = np.random.default_rng(number)
    count = 1 + number % 7 if count is None else count
    corners = np.sort(random.random((count, 2, 2), dtype=np.float32), axis=1) * np.array(size, dtype=np.float32)
    return Image(
        f"COCO_val2014_{number:012d}",
        random.standard_normal((count, width), dtype=np.float32),
        corners.reshape(count, 4),
        size,
        random.integers(1, CLASSES, count),
        random.permutation(np.linspace(0.2, 0.9, count, dtype=np.float32)),
    )


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def probabilities(image: Image) -> np.ndarray:
    """(n, CLASSES) float32: the score at the class, and most of the rest at the background, class 0."""
    rows = np.zeros((len(image.scores), CLASSES), dtype=np.float32)
    rows[:, 0] = 1 - image.scores
    rows[np.arange(len(rows)), image.classes] = image.scores
    return rows


def write_sizes(path: Path, images: Iterable[Image]) -> Path:
    """Sizes of the photos as COCO's annotations have them."""
    entries = [
        {"id": number, "file_name": f"{image.name}.jpg", "width": image.size[0], "height": image.size[1]}
        for number, image in enumerate(images, 10**6)
    ]
    path.write_text(json.dumps({"images": entries}))
    return path


# Oscar and VinVL: TSV


def with_box_values(image: Image) -> np.ndarray:
    """(n, D + 6) float32."""
    boxes = image.boxes / np.tile(np.array(image.size, dtype=np.float32), 2)
    return np.hstack([image.features, boxes, boxes[:, 2:] - boxes[:, :2]]).astype(np.float32)


def vinvl_line(image: Image) -> str:
    return "\t".join([image.name, str(len(image.boxes)), encoded(with_box_values(image))]) + "\n"


def vinvl_json_line(image: Image) -> str:
    value = {"num_boxes": len(image.boxes), "features": encoded(with_box_values(image))}
    return f"{image.name}\t{json.dumps(value)}\n"


def prediction_line(image: Image) -> str:
    objects = [
        {"rect": box, "class": f"thing {number}", "conf": score}
        for box, number, score in zip(image.boxes.tolist(), image.classes.tolist(), image.scores.tolist(), strict=True)
    ]
    value = {"image_h": image.size[1], "image_w": image.size[0], "num_boxes": len(objects), "objects": objects}
    return f"{image.name}\t{json.dumps(value)}\n"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A TSV file and its `.lineidx`."""
    offsets = []
    with open(path, "w", newline="\n") as file:
        for line in lines:
            offsets.append(f"{file.tell()}\n")
            file.write(line)
    path.with_suffix(".lineidx").write_text("".join(offsets))


def write_vinvl(folder: Path, images: Sequence[Image], *, predictions: bool = True) -> Path:
    """What VinVL's downloads hold."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "features.tsv", map(vinvl_line, images))
    (folder / "imageid2idx.json").write_text(json.dumps({image.name: row for row, image in enumerate(images)}))
    if predictions:
        write_lines(folder / "predictions.tsv", map(prediction_line, images))
    return folder


def write_oscar(folder: Path, images: Sequence[Image]) -> Path:
    """What Oscar's captioning data holds. Its objects are of another detector, and of another number."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "test.feature.tsv", map(vinvl_json_line, images))
    labels = ({"class": "cat", "conf": 0.9, "rect": [0, 0, 9, 9]},)
    write_lines(folder / "test.label.tsv", (f"{image.name}\t{json.dumps(labels)}\n" for image in images))
    (folder / "test.yaml").write_text("feature: test.feature.tsv\nlabel: test.label.tsv\n")
    return folder


# Unified VLP: HDF5 by the last digits


def write_vlp(folder: Path, images: Sequence[Image], *, merged: bool = True, dtype: str = "float32") -> Path:
    """Features and class probabilities by the last three digits of the name; boxes merged, or as they came."""
    prefix = "coco_detection_vg_100dets_vlp_checkpoint_trainval"
    for name in ("feat_cls_1000", "raw_bbox"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image in images:
        digits = image.name[-3:]
        rows = np.column_stack([image.boxes, image.classes.astype(np.float32), image.scores]).astype(dtype)
        for file, array in (
            (f"feat_cls_1000/{prefix}_feat{digits}.h5", image.features.squeeze()),
            (f"feat_cls_1000/{prefix}_cls{digits}.h5", probabilities(image)),
            (f"{prefix}_bbox.h5" if merged else f"raw_bbox/{prefix}_bbox{digits}.h5", rows),
        ):
            with h5py.File(folder / file, "a") as h5:
                h5.create_dataset(image.name, data=array.astype(dtype))
    return folder


# Meshed-Memory Transformer: one HDF5


def write_m2(file: Path, images: Sequence[Image], *, scores: bool = True, size: bool = False) -> Path:
    with h5py.File(file, "w") as h5:
        for image in images:
            name = str(int(image.name.split("_")[-1]))
            h5.create_dataset(f"{name}_boxes", data=image.boxes)
            h5.create_dataset(f"{name}_features", data=image.features)
            if scores:
                h5.create_dataset(f"{name}_cls_prob", data=probabilities(image))
            if size:
                h5.create_dataset(f"{name}_size", data=np.array([image.size[::-1]]))
    return file


# ViLBERT, 12-in-1, MMF: LMDB


def write_lmdb(path: Path, items: dict[bytes, Any], *, protocol: int = 4, subdir: bool = True) -> Path:
    """Pickled values, and the list of keys."""
    environment = lmdb.open(str(path), map_size=1 << 30, subdir=subdir)
    with environment.begin(write=True) as transaction:
        for key, value in items.items():
            transaction.put(key, pickle.dumps(value, protocol))
        transaction.put(b"keys", pickle.dumps(list(items), protocol))
    environment.close()
    return path


def vilbert_item(image: Image) -> dict[str, Any]:
    """As 12-in-1 has it: arrays, and a number of boxes that counts those above a threshold."""
    width, height = image.size
    return {
        "image_id": image.name,
        "image_h": height,
        "image_w": width,
        "num_boxes": int((image.scores > 0.5).sum()),
        "boxes": image.boxes,
        "features": image.features,
    }


def vilbert_text_item(image: Image) -> dict[str, Any]:
    """As ViLBERT had it first: base64."""
    item = vilbert_item(image) | {"num_boxes": len(image.boxes)}
    return item | {key: encoded(item[key]).encode() for key in ("boxes", "features")}


def mmf_item(image: Image) -> dict[str, Any]:
    return {"feature_path": f"val2014/{image.name}", "features": image.features} | mmf_info(image)


def write_vilbert(
    path: Path, images: Sequence[Image], item: Callable[[Image], dict[str, Any]] = vilbert_item, **options: Any
) -> Path:
    return write_lmdb(path, {image.name.encode(): item(image) for image in images}, **options)


# MMF and Pythia: two files an image


def mmf_info(image: Image) -> dict[str, Any]:
    return {
        "bbox": image.boxes,
        "num_boxes": len(image.boxes),
        "objects": image.classes,
        "cls_prob": probabilities(image)[:, 1:],
        "image_width": image.size[0],
        "image_height": image.size[1],
    }


def write_mmf(folder: Path, images: Sequence[Image]) -> Path:
    (folder / "val2014").mkdir(parents=True, exist_ok=True)
    for image in images:
        np.save(folder / "val2014" / f"{image.name}.npy", image.features)
        np.save(folder / "val2014" / f"{image.name}_info.npy", mmf_info(image))
    return folder


# The two that were there before


def write_npz_dir(folder: Path, images: Sequence[Image]) -> Path:
    for name in ("att", "box"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for image in images:
        np.savez(folder / "att" / f"{image.name}.npz", feat=image.features)
        np.save(folder / "box" / f"{image.name}.npy", image.boxes)
    return folder


def write_butd(file: Path, images: Sequence[Image]) -> Path:
    with open(file, "w") as lines:
        for image in images:
            columns = [image.name, *map(str, image.size), str(len(image.boxes))]
            lines.write("\t".join([*columns, encoded(image.boxes), encoded(image.features)]) + "\n")
    return file


class Layout(NamedTuple):
    """write(path, images) gives the archive's path; whether scores, labels and sizes come with it."""

    write: Callable[[Path, Sequence[Image]], Path]
    format: str
    scores: bool = False
    labels: bool = False
    sizes: bool = False


def _vlp_not_merged(path: Path, images: Sequence[Image]) -> Path:
    return write_vlp(path, images, merged=False)


def _m2(path: Path, images: Sequence[Image]) -> Path:
    return write_m2(path.with_suffix(".hdf5"), images)


def _m2_with_sizes(path: Path, images: Sequence[Image]) -> Path:
    return write_m2(path.with_suffix(".h5"), images, scores=False, size=True)


def _vilbert_in_base64(path: Path, images: Sequence[Image]) -> Path:
    return write_vilbert(path, images, vilbert_text_item, subdir=False)


def _vilbert_of_mmf(path: Path, images: Sequence[Image]) -> Path:
    return write_lmdb(path, {f"val2014/{image.name}".encode(): mmf_item(image) for image in images})


def _butd(path: Path, images: Sequence[Image]) -> Path:
    return write_butd(path.with_suffix(".tsv"), images)


LAYOUTS = {
    "vinvl-tsv": Layout(write_vinvl, "vinvl-tsv", scores=True, labels=True, sizes=True),
    "vinvl-tsv of Oscar": Layout(write_oscar, "vinvl-tsv"),
    "vlp-h5": Layout(write_vlp, "vlp-h5", scores=True, labels=True),
    "vlp-h5 not merged": Layout(_vlp_not_merged, "vlp-h5", scores=True, labels=True),
    "m2-h5": Layout(_m2, "m2-h5", scores=True),
    "m2-h5 with sizes": Layout(_m2_with_sizes, "m2-h5", sizes=True),
    "vilbert-lmdb": Layout(write_vilbert, "vilbert-lmdb", sizes=True),
    "vilbert-lmdb in base64": Layout(_vilbert_in_base64, "vilbert-lmdb", sizes=True),
    "vilbert-lmdb of MMF": Layout(_vilbert_of_mmf, "vilbert-lmdb", labels=True, sizes=True),
    "mmf-npy": Layout(write_mmf, "mmf-npy", labels=True, sizes=True),
    "npz-dir": Layout(write_npz_dir, "npz-dir"),
    "butd-tsv": Layout(_butd, "butd-tsv", sizes=True),
}
