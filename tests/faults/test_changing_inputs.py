"""Inputs that are cut or vanish while they are read never become a smaller store, corpus or training."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.archives.layouts import LAYOUTS, made_up
from tests.regions.stores import write_store
from tests.tars import write_tar
from xgpt_fairseq.archives.handle_cache import close_cached
from xgpt_fairseq.archives.registry import open_archive
from xgpt_fairseq.cli import import_regions
from xgpt_fairseq.cli.photo_extraction import _load
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.arrow_tables import ArrowTable
from xgpt_fairseq.io.text_lines import numbered_lines
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.text.readers import read_blocks
from xgpt_fairseq.vision.photo_files import find_photos
from xgpt_fairseq.vision.photos import PhotoForm, VanishedError, load_photo

EARLIER = Path(__file__).parent.parent / "earlier_files"


@pytest.mark.parametrize("layout", ["butd-tsv", "vinvl-tsv", "npz-dir", "mmf-npy"])
def test_an_archive(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at a border between records, behind the first one that was read."""
    path = LAYOUTS[layout].write(tmp_path / "archive", [made_up(number) for number in range(9)])
    for index in path.glob("*.lineidx"):  # it would say so at once
        index.unlink()
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    real = import_regions._write_records

    def cut(writer, records, *others):  # type: ignore[no-untyped-def]
        first = [next(records)]
        for file in files:
            if file.suffix == ".tsv":
                os.truncate(file, file.read_bytes().rstrip(b"\n").rfind(b"\n") + 1)
            elif "000000000008" in file.name:
                file.unlink()
        real(writer, itertools.chain(first, records), *others)

    monkeypatch.setattr(import_regions, "_write_records", cut)
    options = ["--format", layout, "--boxes", "none", "--skip-broken", "5"]
    with pytest.raises(SystemExit):
        import_regions.main([str(path), "--output", str(tmp_path / "store"), *options])
    assert "was changed while it was read" in (said := capsys.readouterr().err) or "is missing" in said, said
    assert not (tmp_path / "store").exists()
    assert open_archive(path, layout)[0].end  # it is still one, only smaller


def test_texts(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a line of words\n" * 100_000)
    blocks = read_blocks([file])
    next(blocks)
    os.truncate(file, 16 * 50_000)
    with pytest.raises(
        DataError, match=r"text\.txt was changed while it was read: it had 1,600,000 bytes, and has 800,"
    ):
        list(blocks)
    lines = numbered_lines(file)
    next(lines)
    os.truncate(file, 16 * 40_000)
    with pytest.raises(DataError, match="was changed while it was read"):
        list(lines)


def test_a_text_behind_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("a line of words\n" * 10)
    blocks = read_blocks([tmp_path / "one", tmp_path / "two"])
    next(blocks)
    os.truncate(tmp_path / "two", 32)
    with pytest.raises(DataError, match="two was changed while it was read"):
        list(blocks)


def test_photos(tmp_path: Path) -> None:
    """A photo of a folder that has vanished stops the extraction; one that was named itself is only not read."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / "photos" / name)
    found = find_photos([tmp_path / "photos"])
    (tmp_path / "photos" / "b.jpg").unlink()
    of_folder = partial(_load, form=PhotoForm(), may_be_missing=False, in_one_tar=False)
    assert of_folder(found[0]).photo is not None
    with pytest.raises(VanishedError, match=r"b\.jpg was there when photos were looked for, and is gone"):
        of_folder(found[1])
    [named] = find_photos([tmp_path / "photos" / "b.jpg"])
    assert _load(named, PhotoForm(), may_be_missing=True, in_one_tar=False).reason == "no such file"


def test_a_tar_of_photos(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    tar = write_tar(tmp_path / "photos.tar", {"1.png": content, "2.png": content})
    found = find_photos([tar])
    os.truncate(tar, 1024 + 10)
    with pytest.raises(VanishedError, match=r"photos\.tar was cut, or vanished, while it was read: 2\.png"):
        load_photo(found[1])


def test_a_store_that_is_cut_in_training(tmp_path: Path) -> None:
    """Reading behind the end of a mapped file would end the process by SIGBUS, without a word."""
    store = RegionStore(write_store(tmp_path / "store"))
    store.features(0), store.boxes(0)
    for name, read in (("features-00000.npy", store.features), ("boxes.npy", store.boxes)):
        os.truncate(tmp_path / "store" / name, 10)
        with pytest.raises(DataError, match=rf"{name} was cut to 10 bytes while it was in use"):
            read(0)


def test_captions_that_are_cut_in_training(tmp_path: Path) -> None:
    for name in ("captions", "regions"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    captions = DataDirectory(tmp_path / "captions", tmp_path / "regions").captions("train")
    assert captions[0].dtype == torch.int64
    os.truncate(tmp_path / "captions" / "train.captions.bin", 4)
    with pytest.raises(DataError, match=r"train\.captions\.bin was cut to 4 bytes while it was in use"):
        captions[1]


def test_an_lmdb_database(tmp_path: Path) -> None:
    """LMDB maps its file, too."""
    path = LAYOUTS["vilbert-lmdb"].write(tmp_path / "archive", [made_up(number) for number in range(9)])
    reader, _ = open_archive(path, "vilbert-lmdb")
    (first, _), (second, _), *_ = reader.pending(0)
    first.decode()
    size = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", 4096)
    with pytest.raises(DataError, match=f"was changed while it was read: it had {size:,} bytes, and has 4,096"):
        second.decode()
    reader.close()


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_a_table(form: str, tmp_path: Path) -> None:
    """Arrow files are mapped; Parquet files are not."""
    path = _table(tmp_path / "table", form)
    with ArrowTable(path) as table:
        batches = table.batches(["image", "caption"], 4)
        number, batch = next(batches)
        assert (number, table.values(batch, "caption")) == (0, [f"caption {row}" for row in range(4)])
        os.truncate(path, 100)
        with pytest.raises(DataError, match=r"table was changed while it was read: it had [\d,]+ bytes, and has 100$"):
            list(batches)
        with pytest.raises(DataError, match="was changed while it was read"):
            table.values(batch, "caption")


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
@pytest.mark.parametrize("is_open", [True, False])
def test_photos_in_a_table(form: str, is_open: bool, tmp_path: Path) -> None:
    """One that is cut behind a photo stops the extraction, as does one that vanishes; no photo is only left out."""
    path = _table(tmp_path / ("a.parquet" if form == "parquet" else "a.arrow"), form)
    found = find_photos([path])
    assert len(found) == 40
    if is_open:
        load_photo(found[0])
    os.truncate(path, path.stat().st_size - 300)
    with pytest.raises(VanishedError, match="was changed while it was read"):
        load_photo(found[30])
    close_cached()
    path.unlink()
    with pytest.raises(VanishedError, match="was there when photos were looked for, and is gone"):
        load_photo(found[31])


def _table(path: Path, form: str) -> Path:
    """40 photos with captions, in batches of 10 rows."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc, parquet

    photos = [{"bytes": _png(row), "path": f"{row}.png"} for row in range(40)]
    whole = pyarrow.table({"image": photos, "caption": [f"caption {row}" for row in range(40)]})
    if form == "parquet":
        parquet.write_table(whole, path, row_group_size=10)
    else:
        new = ipc.new_file if form == "file" else ipc.new_stream
        with new(str(path), whole.schema) as writer:
            writer.write_table(whole, max_chunksize=10)
    return path


def _png(value: int) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 0, 0)).save(content, "png")
    return content.getvalue()
