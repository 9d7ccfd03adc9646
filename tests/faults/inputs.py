"""What the programs read: made by code, or of an earlier version."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.archives.layouts import LAYOUTS, made_up, write_sizes
from tests.faults.processes import run

FILES = Path(__file__).parent.parent / "earlier_files"
PLUGIN = str(Path(__file__).parent.parent.parent / "xgpt_fairseq")
WORDS = ("a", "red", "dog", "and", "two", "green", "cats", "sit", "near", "the", "blue", "house", "with", "one", "old")
PHOTOS = 12
# of the size that the earlier files' models have
TRAINING = (
    "--user-dir", PLUGIN, "--arch", "xgpt_demo", "--layers", "1", "--hidden-size", "16", "--ffn-size", "32",
    "--attention-heads", "2", "--optimizer", "adam", "--lr", "1e-3", "--cpu", "--log-format", "simple",
    "--no-progress-bar",
)  # fmt: skip


def archive(layout: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        images = [made_up(number, width=32) for number in range(60)]
        path = LAYOUTS[layout].write(folder / "archive", images)
        if path.name != "archive":
            path.rename(folder / "archive")
        write_sizes(folder / "sizes.json", images)

    return write


def text(folder: Path) -> None:
    lines = [" ".join(WORDS[(number * k + k) % len(WORDS)] for k in range(3, 9)) for number in range(4000)]
    (folder / "text.txt").write_text("".join(f"{line} {number}\n" for number, line in enumerate(lines)))
    shutil.copytree(FILES / "vocabulary", folder / "vocabulary")


def captions(folder: Path) -> None:
    models(folder)
    shutil.copytree(FILES / "vocabulary", folder / "vocabulary")
    shutil.copyfile(FILES / "captions.json", folder / "captions.json")


def models(folder: Path) -> None:
    for name in ("captions", "regions", "bundle"):
        shutil.copytree(FILES / name, folder / name)
    for name in ("one.pt", "two.pt"):
        shutil.copyfile(FILES / "xgpt_caption.pt", folder / name)
    ids = json.loads((FILES / "captions" / "test.references.json").read_text())["images"]
    (folder / "captions.json").write_text(json.dumps([{"image_id": i["id"], "caption": "a green dog"} for i in ids]))


def photos(folder: Path) -> None:
    from PIL import Image

    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / "photos" / f"{number}.png")


def parts(*options: str) -> Callable[[Path], object]:
    """Writes the two parts of a store, extracted with *options*."""
    return functools.partial(_parts, options)


def _parts(options: tuple[str, ...], folder: Path) -> None:
    shutil.copytree(_made("parts", options) / "out.parts", folder / "store.parts")


def retrieval(folder: Path) -> None:
    models(folder)
    shutil.copyfile(_made("retrieval", ()) / "run" / "checkpoint_last.pt", folder / "retrieval.pt")


@functools.cache
def _made(what: str, options: tuple[str, ...]) -> Path:
    """A folder with what another program has made, once."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    atexit.register(_remove, folder, os.getpid())
    if what == "parts":
        photos(folder)
        part = ("xgpt-extract-regions", "photos", "--output", "out", "--workers", "0", *options, "--num-shards", "2")
        commands = [(*part, "--shard-id", str(number)) for number in range(2)]
    else:
        models(folder)
        task = ("--task", "xgpt_retrieval", "--criterion", "xgpt", "--batch-size", "4", "--max-update", "2")
        commands = [("fairseq-train", "captions", *task, *TRAINING, "--disable-validation", "--save-dir", "run")]
    for command in commands:
        ended = run(command, folder, folder / "logs")
        assert ended.status == 0, ended.stderr[-3000:]
    return folder


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and no process that it has forked
        shutil.rmtree(folder, ignore_errors=True)
