"""The readers of region archives: what they find, what they read, where they say an archive is broken."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.archives.layouts import encoded
from xgpt_fairseq.archives import butd_tsv
from xgpt_fairseq.archives.base import Record, RegionReader
from xgpt_fairseq.archives.butd_tsv import ButdTsvReader
from xgpt_fairseq.archives.npz_dir import NpzDirReader
from xgpt_fairseq.archives.registry import open_archive, readers
from xgpt_fairseq.errors import DataError

WIDTH = 6


def image(seed: int, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, WIDTH) and boxes (count, 4) in a photo of 640 x 480, float32."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), axis=1) * np.array([640, 480], dtype=np.float32)
    return rng.standard_normal((count, WIDTH), dtype=np.float32), corners.reshape(count, 4)


def original_line(name: str, features: np.ndarray, boxes: np.ndarray, size: tuple[int, int] = (640, 480)) -> str:
    return "\t".join([name, str(size[0]), str(size[1]), str(len(boxes)), encoded(boxes), encoded(features)]) + "\n"


def lxmert_line(
    name: str, features: np.ndarray, boxes: np.ndarray, classes: Sequence[int], size: tuple[int, int]
) -> str:
    numbers = np.array(classes, dtype=np.int64)
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    columns = [name, str(size[1]), str(size[0]), encoded(numbers), encoded(scores), encoded(numbers), encoded(scores)]
    return "\t".join([*columns, str(len(boxes)), encoded(boxes), encoded(features)]) + "\n"


def records(reader: RegionReader, position: int = 0) -> list[Record]:
    return [record for record, _ in reader.iterate(position)]


def check_positions(reader: RegionReader) -> None:
    """From every position that is handed out, the rest of the records follow."""
    everything = [(record.image_id, position) for record, position in reader.iterate()]
    assert everything[-1][1] == reader.end
    for index, (_, position) in enumerate(everything):
        assert [record.image_id for record in records(reader, position)] == [
            name for name, _ in everything[index + 1 :]
        ]


# npz-dir


def write_npz_dir(folder: Path, att: str = "att", box: str = "box", suffix: str = ".npz") -> Path:
    (folder / att).mkdir(parents=True)
    (folder / box).mkdir()
    for seed, name in enumerate(("9", "10", "COCO_val2014_000000000042")):
        features, boxes = image(seed, count=2 + seed)
        if suffix == ".npz":
            np.savez_compressed(folder / att / f"{name}.npz", feat=features)
        else:
            np.save(folder / att / f"{name}.npy", features)
        np.save(folder / box / f"{name}.npy", boxes)
    return folder


def check_npz_records(reader: RegionReader) -> None:
    found = records(reader)
    assert [record.image_id for record in found] == ["10", "9", "COCO_val2014_000000000042"]
    for record, seed in zip(found, (1, 0, 2), strict=True):
        features, boxes = image(seed, count=2 + seed)
        np.testing.assert_array_equal(record.features, features)
        np.testing.assert_array_equal(record.boxes, boxes)
        assert record.scores is record.labels is record.size is None
    check_positions(reader)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_npz_dir(tmp_path: Path, suffix: str) -> None:
    reader, found = open_archive(write_npz_dir(tmp_path, suffix=suffix))
    assert isinstance(reader, NpzDirReader)
    assert reader.box_kind == "unknown"
    assert suffix in found
    check_npz_records(reader)


@pytest.mark.parametrize("path", [".", "cocobu", "cocobu_att"])
def test_npz_dir_by_the_names_of_self_critical(tmp_path: Path, path: str) -> None:
    write_npz_dir(tmp_path, att="cocobu_att", box="cocobu_box")
    check_npz_records(open_archive(tmp_path / path)[0])


def test_npz_dir_with_two_pairs_needs_a_name(tmp_path: Path) -> None:
    write_npz_dir(tmp_path, att="a_att", box="a_box")
    write_npz_dir(tmp_path, att="b_att", box="b_box")
    with pytest.raises(DataError, match="exactly one such pair"):
        NpzDirReader(tmp_path)
    check_npz_records(open_archive(tmp_path / "b")[0])


def test_npz_dir_is_identified_by_its_names(tmp_path: Path) -> None:
    write_npz_dir(tmp_path)
    before = NpzDirReader(tmp_path).describe()
    assert NpzDirReader(tmp_path).describe() == before
    np.savez(tmp_path / "att" / "1.npz", feat=image(7)[0])
    assert NpzDirReader(tmp_path).describe() != before


def test_npz_dir_that_is_broken(tmp_path: Path) -> None:
    write_npz_dir(tmp_path)
    features, boxes = tmp_path / "att" / "10.npz", tmp_path / "box" / "10.npy"

    def fails_with(message: str) -> None:
        with pytest.raises(DataError, match=message):
            records(NpzDirReader(tmp_path))

    boxes.unlink()
    fails_with(r"box/10\.npy is missing")
    np.save(boxes, np.zeros((2, 4), dtype=np.float32))
    fails_with(
        r"box/10\.npy: boxes are float\d+ of shape \(2, 4\); 3 regions have features, so numbers of \(3, 4\) expected"
    )
    np.savez(features, z=np.zeros((2, WIDTH)))
    fails_with(r"att/10\.npz: no array 'feat' in it; found: z")
    np.savez(features, feat=np.zeros((14, 14, WIDTH)))
    fails_with(r"att/10\.npz: features are float64 of shape \(14, 14, 6\); floats of \(regions, width\) expected")
    features.write_bytes(features.read_bytes()[:500])
    fails_with(r"att/10\.npz is not readable")
    np.savez(features, feat=np.array([{"a": 1}], dtype=object))
    fails_with(r"att/10\.npz is not readable: .*allow_pickle")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    write_npz_dir(tmp_path)
    (tmp_path / "att" / "10.npz").write_bytes(pickle.dumps("anything"))
    with pytest.raises(DataError, match=r"att/10\.npz is not readable: .*pickle"):
        records(NpzDirReader(tmp_path))


# butd-tsv


def test_the_original_columns_have_the_width_first(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(original_line("391895", *image(0)) + original_line("60623", *image(1, 5)))
    reader, found = open_archive(tmp_path / "a.tsv")
    assert isinstance(reader, ButdTsvReader)
    assert reader.box_kind == "pixel"
    assert "image_id, image_w, image_h, num_boxes, boxes, features" in found
    first, second = records(reader)
    assert (first.image_id, second.image_id) == ("391895", "60623")
    assert first.size == second.size == (640, 480)
    assert first.scores is first.labels is None
    np.testing.assert_array_equal(second.features, image(1, 5)[0])
    np.testing.assert_array_equal(second.boxes, image(1, 5)[1])
    check_positions(reader)


def test_the_columns_of_lxmert_have_the_height_first(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(lxmert_line("COCO_train2014_7", *image(0), [2, 0, 1], (640, 480)))
    [record] = records(open_archive(tmp_path / "a.tsv")[0])
    assert record.size == (640, 480)
    assert record.labels == ["2", "0", "1"]
    np.testing.assert_allclose(record.scores, [0.9, 0.7, 0.5])
    (tmp_path / "objects_vocab.txt").write_text("yolk\ngoal\nbathroom\n")
    [record] = records(open_archive(tmp_path / "a.tsv")[0])
    assert record.labels == ["bathroom", "yolk", "goal"]


def test_a_folder_of_tsv_files_is_one_archive(tmp_path: Path) -> None:
    for index, name in enumerate(("test.tsv", "train.tsv.0", "train.tsv.1", "val.tsv")):
        text = "".join(original_line(str(10 * index + line), *image(line)) for line in range(3))
        # neither a missing end of line nor an empty line is an error
        (tmp_path / name).write_text(text.rstrip("\n") if index == 1 else text + "\n" * (index == 2))
    reader = open_archive(tmp_path)[0]
    assert [record.image_id for record in records(reader)] == [
        str(10 * index + line) for index in range(4) for line in range(3)
    ]
    assert reader.end == sum(file.stat().st_size for file in tmp_path.iterdir())
    check_positions(reader)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (4, r"3 columns, 6 expected: is the line truncated\?"),
        (-32, r"column features has 48 bytes, 72 expected for float32 \(3, 6\): is the line truncated\?"),
        (-31, r"column features is not base64 \(.*\): is the line truncated\?"),
        (-96, r"column features has 0 bytes, 72 expected"),
        (-100, r"5 columns, 6 expected: is the line truncated\?"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_line_cut_in_the_middle(tmp_path: Path, cut: int, message: str, last: bool) -> None:
    lines = [original_line(str(number), *image(number)) for number in range(4)]
    line = lines[2].rstrip("\n")
    line = "\t".join(line.split("\t")[:3]) if cut == 4 else line[:cut]
    lines[2] = line if last else line + "\n"
    (tmp_path / "a.tsv").write_text("".join(lines[: 3 if last else 4]))
    reader = ButdTsvReader(tmp_path / "a.tsv")
    with pytest.raises(DataError, match=rf"a\.tsv, line 3: {message}"):
        records(reader)
    # the line number is right, too, when reading starts behind the beginning
    second = len(lines[0])
    with pytest.raises(DataError, match=r"a\.tsv, line 3: "):
        records(reader, second)


def test_a_first_line_that_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"

    def fails_with(text: str, message: str) -> None:
        file.write_text(text)
        with pytest.raises(DataError, match=rf"a\.tsv, line 1: {message}"):
            ButdTsvReader(file)

    line = original_line("1", *image(0))
    fails_with("image\tcaption\n", r"2 columns; TSV with 6 or 10 columns")
    fails_with(line.replace("\t3\t", "\tx\t"), r"column num_boxes is b'x', a whole number expected")
    fails_with(line.replace("\t3\t", "\t5\t"), r"column features has 72 bytes, not a whole number of float32")
    fails_with(line.rstrip("\n")[:-3] + "\n", r"column features is not base64")


def test_width_and_height_in_the_wrong_order(tmp_path: Path) -> None:
    features, boxes = image(0)
    boxes[1, 2] = 630
    text = original_line("1", features, boxes, size=(480, 640))
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(DataError, match=r"line 1: .* fit 640 x 480, not 480 x 640: .* image_w and image_h, in this"):
        records(ButdTsvReader(tmp_path / "a.tsv"))


def test_class_numbers_outside_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(lxmert_line("7", *image(0), [2, 0, 1], (640, 480)))
    (tmp_path / "objects_vocab.txt").write_text("yolk\ngoal\n")
    with pytest.raises(DataError, match=r"line 1: objects_id 2: objects_vocab\.txt has the classes 0 to 1"):
        records(ButdTsvReader(tmp_path / "a.tsv"))


def test_real_bottom_up_attention_features(butd_tsv: Path) -> None:
    found = records(open_archive(butd_tsv)[0])
    captions = json.loads((butd_tsv / "captions.json").read_text())
    assert len(found) == 5
    assert captions
    for record in found:
        assert record.features.shape == (36, 2048)
        assert record.features.dtype == np.float32
        assert record.size is not None
        assert (record.boxes <= np.tile(record.size, 2) + 1).all()
        assert record.labels is not None
        assert record.scores is not None
        assert len(record.labels) == len(record.scores) == 36
    assert found[0].image_id == "COCO_train2014_000000132417"
    assert found[0].size == (500, 333)
    assert found[0].labels[0] == (butd_tsv / "objects_vocab.txt").read_text().splitlines()[72]


# Telling formats apart


def test_every_reader_is_registered_under_its_name() -> None:
    assert {name: reader.name for name, reader in readers().items()} == {name: name for name in readers()}
    assert list(readers())[:2] == ["npz-dir", "butd-tsv"]
    assert butd_tsv.LAYOUTS.keys() == {6, 10}


def test_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no known region archive \(there is no such file or folder\)"):
        open_archive(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello\n")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"no known region archive\. Known are npz-dir: .*; butd-tsv: "):
            open_archive(path)


def test_more_than_one_format_in_a_folder(tmp_path: Path) -> None:
    write_npz_dir(tmp_path)
    (tmp_path / "a.tsv").write_text(original_line("1", *image(0)))
    with pytest.raises(DataError, match="can be read in more than one way: choose with --format"):
        open_archive(tmp_path)
    assert isinstance(open_archive(tmp_path, "butd-tsv")[0], ButdTsvReader)
    assert isinstance(open_archive(tmp_path, "npz-dir")[0], NpzDirReader)
