"""Captioned photos in the layouts of docs/layouts.md, drawn and written here, with what must come out of each."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

COUNT = 12
SAVED: dict[str, dict[str, Any]] = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}
SPLITS = ["train"] * 8 + ["val"] * 4


def drawn(number: int) -> Image.Image:
    """Photo *number* of `COUNT`: colours, stripes and a disc of its own, so that its features tell it."""
    image = Image.new("RGB", (96, 96), (20 * number, 255 - 20 * number, (67 * number) % 256))
    draw = ImageDraw.Draw(image)
    for place in range(0, 96, 16 + 4 * (number % 4)):
        box = (place, 0, place + 7, 95) if number % 2 else (0, place, 95, place + 7)
        draw.rectangle(box, fill=((90 * number) % 256, 40, (31 * number) % 256))
    left, top = 8 * (number % 6), 40 * (number % 3 == 0)
    draw.ellipse((left, top, left + 50, top + 50), fill=(255, 255, (140 * number) % 256))
    return image


def captions(number: int, count: int) -> list[str]:
    """What is said of photo *number*: it can be told from every other."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    said = ["photo {} shows stripes", "the {} stripes, and a disc", "a disc on stripes: number {}"]
    return [said[place].format(words[number]) for place in range(count)]


@dataclass
class Layout:
    """A folder in the making.

    Attributes:
        expected: split ("all" where the layout knows none) → photo → its captions.
    """

    folder: Path
    expected: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def photo(self, number: int, name: str, *, split: str = "all", count: int = 1) -> list[str]:
        """Save photo *number* as *name*; it has *count* captions, which are returned."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(number).save(path, **SAVED.get(path.suffix, {}))
        return self.says(number, split, captions(number, count))

    def says(self, number: int, split: str, texts: list[str]) -> list[str]:
        if texts:
            self.expected.setdefault(split, {})[number] = texts
        return texts

    def write(self, name: str, content: str | Any) -> None:
        """Text, or a value as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", newline="")

    def table(self, name: str, rows: list[list[Any]], **style: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n", **style).writerows(rows)
        self.write(name, text.getvalue())


def kaggle_flickr8k(out: Layout) -> None:
    rows = [[f"{n}_a.jpg", text] for n in range(COUNT) for text in out.photo(n, f"Images/{n}_a.jpg", count=3)]
    out.table("captions.txt", [["image", "caption"], *rows])


def kaggle_flickr30k(out: Layout) -> None:
    lines = ["image_name| comment_number| comment"]
    for n in range(COUNT):
        for k, text in enumerate(out.photo(n, f"flickr30k_images/{n}7.jpg", count=3)):
            lines.append(f"{n}7.jpg| {k}   {text}" if (n, k) == (4, 2) else f"{n}7.jpg| {k}| {text}")
    out.write("results.csv", "\n".join(lines) + "\n")


def imagefolder_jsonl(out: Layout) -> None:
    for split, folder in (("train", "train"), ("val", "validation")):
        rows = [
            {"file_name": f"{n}.jpg", "text": out.photo(n, f"{folder}/{n}.jpg", split=split)[0] + "\n"}
            for n in range(COUNT)
            if SPLITS[n] == split
        ]
        out.write(f"{folder}/metadata.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def imagefolder_csv(out: Layout) -> None:
    names = [f"my photos/{n % 3}/{n // 3}.png" for n in range(COUNT)]  # each name in three folders
    out.table("metadata.csv", [["file_name", "text"], *([names[n], *out.photo(n, names[n])] for n in range(COUNT))])


def text_beside(out: Layout) -> None:
    for n in range(COUNT):
        texts = out.photo(n, f"photo {n}.png", count=0 if n == 3 else 1)
        if texts:
            out.write(f"photo {n}.txt", texts[0] + "\n" * (n % 2))


def texts_in_a_folder(out: Layout) -> None:
    for n in range(COUNT):
        name = f"{n // 4:03d}.Black_footed_Albatross/{n}_a"
        out.write(f"text/{name}.txt", "\n".join(out.photo(n, f"images/{name}.jpg", count=3)) + "\n")


def _jpeg(number: int) -> bytes:
    data = io.BytesIO()
    drawn(number).save(data, "JPEG", quality=100, subsampling=0)
    return data.getvalue()


def tar_shards(out: Layout) -> None:
    for shard in range(2):
        with tarfile.open(out.folder / f"{shard:05d}.tar", "w") as tar:
            for n in range(shard * 6, shard * 6 + 6):
                [text] = out.says(n, "all", captions(n, 1))
                about = json.dumps(
                    {"url": "http://example.org/x.jpg", "caption": text, "key": "k", "status": "success"}
                )
                for suffix, data in ((".jpg", _jpeg(n)), (".txt", text.encode()), (".json", about.encode())):
                    info = tarfile.TarInfo(f"{shard:05d}{n % 6:04d}{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def parquet_files(out: Layout) -> None:
    """The first photos of both splits share a name; others have none."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    (out.folder / "parquet").mkdir()
    for split, word in (("train", "train"), ("val", "validation")):
        numbers = [n for n in range(COUNT) if SPLITS[n] == split]
        paths = ["0.jpg", *[None] * (len(numbers) - 1)]
        rows = [
            {"image": {"bytes": _jpeg(n), "path": path}, "text": out.says(n, split, captions(n, 1))[0]}
            for n, path in zip(numbers, paths, strict=True)
        ]
        path = out.folder / "parquet" / f"{word}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def img2dataset_files(out: Layout) -> None:
    for n in range(COUNT):
        key = f"{n // 6:05d}/{n // 6:05d}{n % 6:04d}"
        [text] = out.photo(n, f"{key}.jpg")
        out.write(f"{key}.txt", text)
        out.write(f"{key}.json", {"url": "http://example.org/x.jpg", "caption": text, "key": key[6:]})


def cc12m(out: Layout) -> None:
    lines = [f"http://example.org/{n + 50}.jpg\t{out.photo(n, f'images/{n}.jpg')[0]}\n" for n in range(COUNT)]
    out.write("cc12m.tsv", "".join(lines))


def vizwiz(out: Layout) -> None:
    for split in ("train", "val"):
        images, annotations = [], []
        for place, n in enumerate(n for n in range(COUNT) if SPLITS[n] == split):
            name = f"VizWiz_{split}_{place:08d}.jpg"
            images.append({"file_name": name, "id": place})
            texts = out.photo(n, f"{split}/{name}", split=split, count=2)
            annotations += [
                {"caption": t, "image_id": place, "is_precanned": False, "is_rejected": False} for t in texts
            ]
            annotations.append(
                {"caption": "bad", "image_id": place, "is_precanned": place % 2 == 0, "is_rejected": True}
            )
        value = {"images": images, "annotations": [{**a, "id": i} for i, a in enumerate(annotations)]}
        out.write(f"annotations/{split}.json", value)


def _coco(out: Layout, name: str, split: str, numbers: list[int], photo: Callable[[int], str], id_of: Any) -> None:
    images = [{"id": id_of(n), "file_name": Path(photo(n)).name, "width": 96, "height": 96} for n in numbers]
    annotations = [
        {"image_id": id_of(n), "caption": text}
        for n in numbers
        for text in out.photo(n, photo(n), split=split, count=2)
    ]
    out.write(name, {"images": images, "annotations": [{**a, "id": i} for i, a in enumerate(annotations[::-1])]})
    out.expected[split] = {n: texts[::-1] for n, texts in out.expected[split].items()}


def nocaps(out: Layout) -> None:
    every = list(range(COUNT))
    _coco(out, "nocaps_val_4500_captions.json", "val", every, lambda n: f"images/{n + 11:016x}.jpg", lambda n: n)


def coco_other_numbers(out: Layout) -> None:
    _coco(out, "train.json", "train", list(range(COUNT)), lambda n: f"images/{COUNT - n}.jpg", lambda n: n + 1)


def coco_2017(out: Layout) -> None:
    for split in ("train", "val"):
        numbers = [n for n in range(COUNT) if SPLITS[n] == split]
        name = f"annotations/captions_{split}2017.json"
        _coco(out, name, split, numbers, lambda n, s=split: f"{s}2017/{n + 100:012d}.jpg", lambda n: n + 100)  # type: ignore[misc]


def conversations(out: Layout) -> None:
    out.write("conversations.json", [
        {"id": f"x{n}", "image": f"images/{n}.jpg", "conversations": [
            {"from": "human", "value": "What is this?\n<image>"},
            {"from": "gpt", "value": out.photo(n, f"images/{n}.jpg")[0]},
        ]} for n in range(COUNT)
    ])  # fmt: skip


def _karpathy(out: Layout, name: str, folder: str, photo: str) -> None:
    images = []
    for n in range(COUNT):
        texts = out.photo(n, f"{folder}/{photo.format(n)}", split=SPLITS[n], count=3)
        images.append({
            "filename": photo.format(n), "imgid": n, "split": SPLITS[n],
            "sentences": [{"raw": text, "sentid": 3 * n + k} for k, text in enumerate(texts)],
        })  # fmt: skip
    out.write(name, {"images": images, "dataset": "rsicd"})


def rsicd(out: Layout) -> None:
    _karpathy(out, "dataset_rsicd.json", "RSICD_images", "airport_{}.tif")


def object_of_captions(out: Layout) -> None:
    out.write("captions.json", {f"{n}b.jpg": out.photo(n, f"images/{n}b.jpg")[0] for n in range(COUNT)})


def list_of_records(out: Layout) -> None:
    out.write("annotations.json", [
        {"image": f"images/{n}.webp", "caption": out.photo(n, f"images/{n}.webp", count=3), "image_id": COUNT - n}
        for n in range(COUNT)
    ])  # fmt: skip


def json_lines(out: Layout) -> None:
    rows = []
    for n in range(COUNT):
        [text] = out.photo(n, f"images/{n}.jpg", split=SPLITS[n])
        text = "\n\n".join([text] * 40)
        out.says(n, SPLITS[n], [" ".join(text.split())])
        rows.append({"image": f"{n}.jpg", "caption": text, "split": SPLITS[n]})
    out.write("captions.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def own_csv(out: Layout) -> None:
    rows = []
    for n in range(COUNT):
        name = f"photos/café, {n}.jpg"
        rows += [[text, name, SPLITS[n]] for text in out.photo(n, name, split=SPLITS[n], count=2)]
    out.table("captions.csv", [["description", "picture", "part"], *rows[::2], *rows[1::2]], delimiter=";")
    text = (out.folder / "captions.csv").read_text().replace("\n", "\r\n")
    (out.folder / "captions.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())


def _lists(out: Layout, names: list[str]) -> None:
    for split in ("train", "val"):
        out.write(f"{split}.txt", "".join(f"{name}\n" for n, name in enumerate(names) if SPLITS[n] == split))


def token_file(out: Layout) -> None:
    lines = [
        f"{n}_c.jpg#{k}\t{text}\n"
        for n in range(COUNT)
        for k, text in enumerate(out.photo(n, f"Images/{n}_c.jpg", split=SPLITS[n], count=3))
    ]
    out.write("results.token", "".join(lines))
    _lists(out, [f"{n}_c.jpg" for n in range(COUNT)])


def flickr8k_cn(out: Layout) -> None:
    digits = "零一二三四五六七八九十甲"
    lines = []
    for n in range(COUNT):
        out.photo(n, f"Images/{n}_d.jpg", count=0)
        texts = out.says(n, SPLITS[n], [f"第{digits[n]}张照片上有条纹", f"{digits[n]}号圆盘在条纹上"])
        lines += [f"{n}_d.jpg#zhc#{k} {text}\n" for k, text in enumerate(texts)]
    out.write("flickr8kzhc.caption.txt", "".join(lines))
    _lists(out, [f"{n}_d" for n in range(COUNT)])


def r2gen(out: Layout) -> None:
    studies: dict[str, list[Any]] = {"train": [], "val": []}
    for n in range(0, COUNT, 2):  # two photos of a study, 0.png and 1.png in its folder, with one report
        report = captions(n, 1)[0]
        for place in (0, 1):
            out.photo(n + place, f"images/CXR{n}/{place}.png", count=0)
            out.says(n + place, SPLITS[n], [report])
        paths = [f"CXR{n}/{place}.png" for place in (0, 1)]
        studies[SPLITS[n]].append({"id": f"CXR{n}", "report": report, "image_path": paths, "split": SPLITS[n]})
    out.write("annotation.json", studies)


# In the order of the page's table.
LAYOUTS: tuple[Callable[[Layout], None], ...] = (
    kaggle_flickr8k, kaggle_flickr30k, imagefolder_jsonl, imagefolder_csv, text_beside, texts_in_a_folder,
    tar_shards, parquet_files, img2dataset_files,
    cc12m, vizwiz, nocaps, coco_other_numbers, coco_2017, conversations, rsicd, object_of_captions, list_of_records,
    json_lines, own_csv, token_file, flickr8k_cn, r2gen,
)  # fmt: skip


def page_rows(page: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """The rows of the page's table: what one has, PHOTOS, CAPTIONS, as words."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and not line.startswith("| I have"):
            *have, photos, said = line.strip("| ").replace("\\|", "¦").split(" | ")
            yield " | ".join(have), photos.strip("`").split(), said.strip("`").split()


def make(layout: Callable[[Layout], None], folder: Path) -> Layout:
    """Write *layout* into *folder*, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Layout(folder)
    layout(made)
    return made
