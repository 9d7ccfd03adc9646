"""Photos inside Parquet and Arrow files: their names, and their bytes, read in any order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_arrow import parquet, save_to_disk
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.photos import PhotoError, PhotoFile
from xgpt_fairseq.vision.table_photos import photos_in_table, read_cell


def names(path: Path) -> list[str]:
    return [name for name, _ in photos_in_table(path)]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"image": {"bytes": b"x", "path": "a/1.jpg"}}, "a/1.jpg"),
        ({"image": {"bytes": b"x", "path": None}}, "t-0"),
        ({"image": {"bytes": b"x", "path": ""}}, "t-0"),
        ({"image": {"bytes": b"x"}}, "t-0"),
        ({"image": b"x", "caption": "A dog."}, "t-0"),
        ({"jpg": b"x", "width": 3}, "t-0"),
        ({"image": b"x", "file_name": "b.jpg"}, "b.jpg"),
        ({"image": {"bytes": b"x", "path": None}, "image_id": 17}, "17"),
        ({"image": {"bytes": b"x", "path": "a.jpg"}, "depth": b"y"}, "a.jpg"),
    ],
)
def test_names(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    """A name of a file counts first, then an id; else it is the row's number, behind the name of the table."""
    path = parquet(tmp_path / "t.parquet", [row])
    [(found, cell)] = photos_in_table(path)
    assert found == name
    assert read_cell(cell) == b"x"


def test_tables_without_photos(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [{"image": "1.jpg", "caption": "A dog."}])
    with pytest.raises(DataError, match=r"t\.parquet: a table without a column of photos, of their bytes"):
        names(path)
    path = parquet(tmp_path / "t.parquet", [{"caption": "A dog.", "link": "https://example.org/1.jpg"}])
    fetch = (
        r"a table of addresses \(column link\), not of photos; fetch them first: img2dataset --url_list .*t\.parquet "
    )
    with pytest.raises(DataError, match=f"{fetch}--input_format parquet --url_col link --output_format webdataset "):
        names(path)
    path = parquet(tmp_path / "t.parquet", [{"left": b"x", "right": b"y"}])
    with pytest.raises(DataError, match=r"t\.parquet: the columns left and right may all be the photos"):
        names(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        names(path)


def test_a_photo_of_several_rows(tmp_path: Path) -> None:
    """One for each caption of a photo: it comes once, unless two photos share the name."""
    cells = [{"bytes": b"x", "path": "1.jpg"}, {"bytes": b"y", "path": "2.jpg"}]
    path = parquet(tmp_path / "t.parquet", [{"image": cell} for cell in (*cells, *cells)])
    assert names(path) == ["1.jpg", "2.jpg"]
    parquet(path, [{"image": cell} for cell in (*cells, {"bytes": b"z", "path": "1.jpg"})])
    assert names(path) == ["1.jpg", "2.jpg", "1.jpg"]


def test_rows_in_any_order(tmp_path: Path) -> None:
    """In row groups and in one; and in the record batches of a stream."""
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    table = [{"image": {"bytes": b"%d" % row, "path": None}} for row in range(2500)]
    folder = save_to_disk(tmp_path / "saved", table)
    grouped = tmp_path / "groups.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(table), grouped, row_group_size=700)
    for path in (parquet(tmp_path / "one.parquet", table), grouped, folder / "data-00000-of-00001.arrow"):
        cells = [cell for _, cell in photos_in_table(path)]
        assert [cell.row for cell in cells] == list(range(2500))
        order = random.Random(1).sample(range(2500), 40)
        for row in [*range(0, 2500, 7), *order, 2499, 2499, 0]:
            assert read_cell(cells[row]) == b"%d" % row


def test_a_row_without_a_photo(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet",
        [{"image": {"bytes": b"x", "path": "1.jpg"}}, {"image": {"bytes": None, "path": "2.jpg"}}],
    )
    cells = [cell for _, cell in photos_in_table(path)]
    with pytest.raises(PhotoError, match=r"2\.jpg: .*t\.parquet: row 1 has no photo in it, at most the name of one"):
        PhotoFile(Path("2.jpg"), cell=cells[1]).content()
