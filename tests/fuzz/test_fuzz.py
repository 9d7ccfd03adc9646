"""No reader of foreign bytes ends with anything but a `DataError`: a few mutations each, and all that once did.

`make test-fuzz` reads many more (`run.py`).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fuzz.harness import Outcome, fuzz
from tests.fuzz.targets import Target, targets
from xgpt_fairseq.errors import DataError

NEW = 6  # mutations of each reader
TARGETS = targets()

# The corpus: mutations, by their seeds, that ended with a traceback, a crash, or in memory before that was mended.
FOUND: dict[str, tuple[int, ...]] = {
    "archive vinvl-tsv": (97,),
    "archive vinvl-tsv of Oscar": (81, 10000191),
    "archive vlp-h5": (2,),
    "archive vlp-h5 not merged": (44,),
    "archive m2-h5 with sizes": (35, 52, 62),
    "archive vilbert-lmdb of MMF": (33, 79),
    "archive mmf-npy": (17, 34, 43, 110),
    "archive npz-dir": (9, 40, 43, 93),
    "archive butd-tsv": (48, 272),
    "archive npz-dir without boxes": (26, 70, 106),
    "captions flickr30k-token": (66, 80),
    "captions hf-datasets": (3, 1572, 10000130, 10000236, 10000408),
    "captions parquet": (217,),
    "captions karpathy": (101, 10000075),
    "detections": (14, 100, 152),
    "sizes": (2, 38),
    "photos in a table": (74, 1289),
    "vocabulary subword-nmt": (1, 2, 3, 5, 6, 14, 31, 39, 148, 327),
    "vocabulary sentencepiece": (0, 3, 4, 8, 13, 340),
    "store": (4, 152, 314, 534, 545, 798),
    "directory of captions": (3, 11, 34, 38, 49, 52, 56, 67, 126, 129, 130, 194, 206, 212, 298, 988),
    "directory of text": (10, 16, 37, 51, 58, 60, 61, 121, 147, 203),
    "checkpoint": (13, 20, 623),
    "bundle": (0, 5, 8, 9, 18, 37, 51, 61, 104, 128, 129, 172),
    "results": (10,),
    "weights": (813,),
    "training log": (86, 97, 131, 10000243),
}


def check(outcome: Outcome, count: int) -> None:
    assert not outcome.surprises, outcome.surprises
    assert outcome.count == count


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_or_read(name: str) -> None:
    seeds = [*range(NEW), *FOUND.get(name, ())]
    check(fuzz(name, TARGETS[name], seeds), len(seeds))


@pytest.mark.parametrize("name", TARGETS)
def test_whole_input_is_read(name: str, tmp_path: Path) -> None:
    """Else damage would only be compared with other damage."""
    (tmp_path / "input").mkdir()
    (tmp_path / "output").mkdir()
    TARGETS[name].write(tmp_path / "input")
    TARGETS[name].read(tmp_path / "input", tmp_path / "output")


def _crash(folder: Path, output: Path) -> None:
    if (folder / "file").read_bytes() != b"whole":
        os.kill(os.getpid(), signal.SIGKILL)


def _fill_memory(folder: Path, output: Path) -> None:
    bytearray(2 << 30)


def _fail(folder: Path, output: Path) -> None:
    raise KeyError("image")


def _refuse(folder: Path, output: Path) -> None:
    raise DataError("no")


@pytest.mark.parametrize(
    ("read", "kind"),
    [(_crash, "killed by SIGKILL"), (_fill_memory, "MemoryError"), (_fail, "KeyError"), (_refuse, None)],
)
def test_the_harness_notices(read: object, kind: str | None) -> None:
    outcome = fuzz("file", Target(lambda folder: (folder / "file").write_bytes(b"whole"), read), range(3))  # type: ignore[arg-type]
    if kind is None:
        assert outcome.refused == 3
    else:
        assert sum(len(seeds) for found, seeds in outcome.surprises.items() if found.startswith(kind)) == 3
