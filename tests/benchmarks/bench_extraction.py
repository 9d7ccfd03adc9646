"""Regions from photos: the whole program, from files to a store, against the bare network on the same pixels."""

from __future__ import annotations

import contextlib
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.measuring import Line, by_turns, cores, middle, seconds

import numpy as np  # isort: skip
import torch  # isort: skip
from PIL import Image  # isort: skip

from xgpt_fairseq.cli.extract_options import parse_arguments  # isort: skip
from xgpt_fairseq.cli.photo_extraction import extract  # isort: skip
from xgpt_fairseq.vision.backbones.registry import DEFAULT, load_backbone  # isort: skip
from xgpt_fairseq.vision.photos import load_photo  # isort: skip

SIZES = {768: 160, 384: 480}  # pixels, and photos


def measure(rounds: int) -> list[Line]:
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        photos = write_photos(Path(name) / "photos", max(SIZES.values()))
        return [line(photos[:count], size, Path(name), rounds) for size, count in SIZES.items()]


def write_photos(folder: Path, count: int) -> list[Path]:
    """JPEGs of 640 × 480 pixels, of smooth noise: about as large as photos."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        paths.append(folder / f"{number}.jpg")
        small.resize((640, 480), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def line(photos: list[Path], size: int, folder: Path, rounds: int) -> Line:
    backbone = load_backbone(DEFAULT)
    pixels = [torch.from_numpy(load_photo(path, backbone.form(size)).pixels)[None] for path in photos]

    def run(each: torch.Tensor) -> None:
        with torch.inference_mode():
            backbone(each)

    def bare() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # a photo a core, as the program does
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(run, pixels))
        torch.set_num_threads(before)

    def program() -> None:
        torch.set_num_threads(cores())
        options = ["--output", folder / "store", "--overwrite", "--image-size", size, "--device", "cpu"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            extract(parse_arguments([str(each) for each in [*photos, *options]]))

    times = by_turns(lambda: seconds(program), lambda: seconds(bare), rounds=rounds)
    ours, theirs = (1000 * middle([each[i] for each in times]) / len(photos) for i in range(2))
    return Line(
        f"photos a second, from {len(photos)} JPEGs to a store, {size} pixels",
        "the bare network on the same pixels, in memory",
        "0.85",
        [theirs_ / ours_ for ours_, theirs_ in times],
        f"{ours:.0f} against {theirs:.0f} ms per photo",
    )
