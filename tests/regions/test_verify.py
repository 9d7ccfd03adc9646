"""Checking a region store: each promise of the format, broken, is found and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.regions.stores import WIDTH, rewrite, write_store
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.verify import verify

pytestmark = pytest.mark.usefixtures("no_fsync")


def flip_byte(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x01
    file.write_bytes(bytes(data))


def test_verify_reads_all_and_reports_progress(store_path: Path) -> None:
    seen: list[int] = []
    store = verify(store_path, progress=seen.append)
    assert sum(seen) == store.num_bytes == sum(file.stat().st_size for file in store_path.glob("*.npy"))


def test_verify_names_the_first_bad_shard(store_path: Path) -> None:
    for name in ("features-00001.npy", "features-00002.npy"):
        flip_byte(store_path / name, 140)
    with pytest.raises(DataError, match=r"features-00001\.npy is damaged: checksum [0-9a-f]{8}, [0-9a-f]{8} expected"):
        verify(store_path)


@pytest.mark.parametrize("name", ["boxes", "offsets", "ids", "scores", "labels", "sizes"])
def test_verify_finds_a_flipped_bit_in_every_array(store_path: Path, name: str) -> None:
    flip_byte(store_path / f"{name}.npy", 129)
    with pytest.raises(DataError, match=rf"{name}\.npy is damaged: checksum"):
        verify(store_path)


def test_verify_finds_contents_that_break_the_rules(tmp_path: Path) -> None:
    def broken(name: str, array: np.ndarray) -> Path:
        path = write_store(tmp_path / f"store-{len(list(tmp_path.iterdir()))}")
        rewrite(path, name, array)
        return path

    boxes = np.load(write_store(tmp_path / "good") / "boxes.npy")
    boxes[5, 2] = 1.5
    with pytest.raises(DataError, match=r"boxes\.npy: image 12, region 1: box \[.*1\.5.*\] is not"):
        verify(broken("boxes.npy", boxes))
    with pytest.raises(DataError, match=r"offsets\.npy: image 11 has 0 regions, 1 to 1024 allowed"):
        verify(broken("offsets.npy", np.array([0, 3, 3, 9, 11])))
    with pytest.raises(DataError, match=r"offsets\.npy goes from 0 to 12, 0 to 11 expected"):
        verify(broken("offsets.npy", np.array([0, 3, 4, 9, 12])))
    with pytest.raises(DataError, match=r"features-00001\.npy begins in the middle of an image"):
        verify(broken("offsets.npy", np.array([0, 3, 5, 9, 11])))
    with pytest.raises(DataError, match=r"ids\.npy: image 11 occurs more than once"):
        verify(broken("ids.npy", np.array([b"10", b"11", b"12", b"11"])))
    features = np.ones((5, WIDTH), dtype=np.float16)
    features[3, 2] = np.inf
    with pytest.raises(DataError, match=r"features-00001\.npy: image 12, region 3: features are not finite"):
        verify(broken("features-00001.npy", features))
