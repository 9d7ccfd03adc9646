"""Reading regions from a store: against a copy of the same bytes, HDF5 opened for each read, and TSV in base64."""

from __future__ import annotations

import base64
import csv
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import peers
from tests.benchmarks.measuring import Line, by_turns, cores, in_a_process, middle, seconds

import h5py  # isort: skip
import numpy as np  # isort: skip
import torch  # isort: skip
from torch.utils.data import DataLoader  # isort: skip

from xgpt_fairseq.data.caption_dataset import load_regions  # isort: skip
from xgpt_fairseq.regions.store import RegionStore  # isort: skip

IMAGES = 128  # of a batch
csv.field_size_limit(sys.maxsize)


def measure(rounds: int) -> list[Line]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = peers.write_store(folder / "store", images=IMAGES)
        megabytes = IMAGES * store.features(0).nbytes / 1e6
        hdf5, tsv = write_hdf5(store, folder / "store.h5"), write_tsv(store, folder / "store.tsv")
        rows = np.arange(IMAGES)
        whole = np.stack([store.features(int(row)) for row in rows])
        target = np.empty_like(whole)

        def read_images() -> None:
            for place, row in enumerate(rows.tolist()):
                np.copyto(target[place], store.features(row))

        def copy_images() -> None:
            for place in range(IMAGES):
                np.copyto(target[place], whole[place])

        readers: list[Callable[[], object]] = [
            read_images,
            copy_images,
            lambda: read_hdf5(hdf5),
            lambda: read_tsv(tsv),
            lambda: load_regions(store, rows),
            lambda: whole.copy(),
        ]
        times = by_turns(*(lambda r=r: min(seconds(r) for _ in range(3)) for r in readers), rounds=rounds)
        lines = lines_of(times, megabytes)
        lines.append(workers(store.path, rounds))
    return lines


def lines_of(times: list[tuple[float, ...]], megabytes: float) -> list[Line]:
    image = [middle([round_[i] for round_ in times]) / IMAGES * 1e6 for i in range(4)]  # µs

    def line(measured: str, against: str, reach: str, ours: int, peer: int, detail: str) -> Line:
        return Line(measured, against, reach, [round_[ours] / round_[peer] for round_ in times], detail)

    batch = [middle([round_[i] for round_ in times]) * 1000 for i in (4, 5)]
    return [
        line(
            "reading an image's regions, warm",
            "one copy of the same bytes",
            "at most 1.5",
            0,
            1,
            f"{image[0]:.0f} against {image[1]:.0f} µs per image",
        ),
        line("the same", "HDF5 opened for each read", "at most 1/8 = 0.125", 0, 2, f"{image[2]:.0f} µs per image"),
        line("the same", "TSV in base64", "at most 1/150 = 0.0067", 0, 3, f"{image[3]:.0f} µs per image"),
        line(
            "a batch of 128 images of 100 × 2048, padded, with boxes",
            "one copy of its features into new memory",
            "little more than 1",
            4,
            5,
            f"{batch[0]:.0f} against {batch[1]:.0f} ms, {megabytes:.0f} MB",
        ),
    ]


def write_hdf5(store: RegionStore, path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for row in range(len(store)):
            file[f"{store.image_id(row)}_features"] = store.features(row).astype(np.float32)
    return path


def read_hdf5(path: Path) -> None:
    """As Meshed-Memory Transformer reads it."""
    for image in range(IMAGES):
        with h5py.File(path, "r") as file:
            file[f"{image}_features"][()]


def write_tsv(store: RegionStore, path: Path) -> Path:
    with open(path, "w", encoding="ascii") as out:
        for row in range(len(store)):
            features = base64.b64encode(store.features(row).astype(np.float32).tobytes()).decode()
            out.write(f"{store.image_id(row)}\t{len(store.features(row))}\t{features}\n")
    return path


def read_tsv(path: Path) -> None:
    """As bottom-up-attention's tools read it."""
    with open(path, encoding="ascii", newline="") as file:
        for _, regions, features in csv.reader(file, delimiter="\t"):
            np.frombuffer(base64.b64decode(features), dtype=np.float32).reshape(int(regions), -1)


class Batches:
    """The same batch again and again: a data set of batches."""

    def __init__(self, store: RegionStore, number: int) -> None:
        self.store = store
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return load_regions(self.store, np.arange(32))


def workers(path: Path, rounds: int) -> Line:
    """Batches per second of two worker processes against one."""
    times = by_turns(*(lambda n=n: in_a_process(load, str(path), n, method="spawn") for n in (1, 2)), rounds=rounds)
    return Line(
        "batches of 32 images per second from two worker processes",
        "from one",
        f"scales ({cores()} cores)",
        [one / two for one, two in times],
        "the process that takes them shares the cores",
    )


def load(path: str, number: int) -> float:
    torch.set_num_threads(1)
    batches: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        Batches(RegionStore(path), 80),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=number,
    )
    iterator = iter(batches)
    for _ in range(number * 2):  # until the workers run
        next(iterator)
    return seconds(lambda: sum(1 for _ in iterator)) / (len(batches) - 2 * number)
