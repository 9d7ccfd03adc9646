"""Data directories and region stores of any size, made up in seconds, and fairseq-train on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks import peers
from xgpt_fairseq.data.directory import file_crc32
from xgpt_fairseq.data.manifest import CaptionManifest
from xgpt_fairseq.data.split_writer import SplitWriter
from xgpt_fairseq.io.atomic import write_json
from xgpt_fairseq.regions.append_only_file import npy_header
from xgpt_fairseq.regions.format import MANIFEST, ArrayFile, Manifest
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.text.vocabulary import learn_vocabulary

ROOT = Path(__file__).resolve().parents[2]

SHARD_ROWS = 500_000  # 2 GB


def sparse_store(path: Path, *, images: int) -> RegionStore:
    """A store of *images* images of 100 regions, whose features and boxes are holes in sparse files."""
    path.mkdir()
    rows = images * peers.REGIONS
    offsets = np.arange(images + 1, dtype=np.int64) * peers.REGIONS
    ids = np.array([str(image).encode() for image in range(images)])
    shards = tuple(
        _file(path, f"features-{number:05d}.npy", "<f2", (min(SHARD_ROWS, rows - first), peers.WIDTH))
        for number, first in enumerate(range(0, rows, SHARD_ROWS))
    )
    arrays = {
        "boxes": _file(path, "boxes.npy", "<f4", (rows, 4)),
        "offsets": _file(path, "offsets.npy", "<i8", offsets.shape, offsets),
        "ids": _file(path, "ids.npy", ids.dtype.str, ids.shape, ids),
    }
    manifest = Manifest(peers.WIDTH, images, rows, 0, shards, arrays, {"program": "benchmark"})
    write_json(path / MANIFEST, manifest.to_json())
    return RegionStore(path)


def _file(folder: Path, name: str, dtype: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> ArrayFile:
    header = npy_header(dtype, shape)
    size = len(header) + int(np.prod(shape)) * np.dtype(dtype).itemsize
    with open(folder / name, "wb") as file:
        file.write(header)
        if values is not None:
            file.write(values.tobytes())
        file.truncate(size)
    return ArrayFile(name, dtype, shape, size, "00000000")


def data_directory(path: Path, store: RegionStore, *, captions: int = 1) -> Path:
    """Captions of `peers.TOKENS` tokens: so many for each image of *store*, for training alone."""
    vocabulary = learn_vocabulary([f"a{n} picture" for n in range(200)], path, bpe="subword_nmt", symbols=20)
    words = vocabulary.dictionary
    random = np.random.default_rng(3)
    writer = SplitWriter(path, "train", vocabulary_size=len(words))
    for row in range(len(store)):
        for _ in range(captions):
            ids = np.append(random.integers(words.nspecial, len(words) - 1, peers.TOKENS - 1), words.eos())
            writer.add(row, str(row), "a picture", ids, 0)
    manifest = CaptionManifest(
        splits={"train": writer.finish(store_images=len(store))},
        max_tokens=60,
        feature_dim=store.feature_dim,
        regions=os.path.relpath(store.path, path),
        regions_ids_crc32=store.ids_crc32,
        dictionary_crc32=file_crc32(path / "dict.txt"),
        made_by={"program": "benchmark"},
    )
    writer.close()
    manifest.write(path)
    return path


def start_training(data: Path, arch: str, *arguments: str) -> subprocess.Popen[str]:
    """fairseq-train of one thread, captions alone, nothing validated or saved; its log is its standard output."""
    command = [
        *(str(Path(sys.executable).with_name("fairseq-train")), str(data)),
        *("--user-dir", str(ROOT / "xgpt_fairseq"), "--task", "xgpt_caption", "--arch", arch),
        *("--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-5", "--cpu", "--num-workers", "0"),
        *("--disable-validation", "--no-save", "--log-format", "simple", "--log-interval", "1"),
        *arguments,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1
    )


def updates(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of the log that stand for an update, as they come."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if "| train_inner |" in line:
            yield line
    if process.wait():
        raise RuntimeError("fairseq-train failed:\n" + "".join(said[-20:]))


def finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Stop what still runs."""
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
