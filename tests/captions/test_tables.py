"""Tables of captions: separators, quotes, headers, and rows that are damaged."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_formats import detect, put, read
from xgpt_fairseq.captions.base import CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import find_format, read_captions
from xgpt_fairseq.captions.tables import MENDED
from xgpt_fairseq.errors import DataError

CAPTIONS = {
    "a b/1.jpg": ["A dog, running; fast.", 'He says "hi".'],
    "dög.jpg": ["Ein Bär | zwei", "line\nbreak"],
    "3.png": ['"Quoted" from the start', "tab\there"],
}


def captions(path: Path, **options: Any) -> dict[str, list[str]]:
    """File name, or id, → captions, of a table that is recognised as one."""
    assert detect(path) == "table"
    images = read(path, unknown_split="all", **options)
    return {image.file_name or image.image_id: [caption.text for caption in image.captions] for image in images}


def table(rows: list[list[str]], separator: str, line_end: str = "\n") -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator=line_end).writerows(rows)
    return buffer.getvalue()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("header", [["Image Name", "No", "CAPTION"], ["caption", "x", "file_name"]])
def test_csv(tmp_path: Path, separator: str, windows: bool, header: list[str]) -> None:
    image = next(place for place, name in enumerate(header) if "name" in name.lower())
    rows = []
    for n in range(2):  # the rows of an image stand apart
        for name, texts in CAPTIONS.items():
            row = ["", str(n), ""]
            row[image], row[2 - image] = name, texts[n]
            rows.append(row)
    content = table([header, *rows], separator, "\r\n" if windows else "\n")
    path = put(tmp_path, "captions.txt", ("\ufeff" if windows else "") + content)
    assert captions(path) == CAPTIONS


def test_blanks_around_pipes(tmp_path: Path) -> None:
    path = put(
        tmp_path, "r.csv", 'image_name| comment_number| comment\n1.jpg| 0| "A" dog .\n1.jpg| 1|  "\n2.jpg|0|b|\n'
    )
    with pytest.raises(DataError, match=r"line 4 has 4 columns, separated by '\|'; it must have 3: '2\.jpg\|0\|b\|'"):
        captions(path)
    log = ReadingLog(skip_bad=1)
    assert captions(path, log=log) == {"1.jpg": ['"A" dog .', '"']}
    assert len(log.bad) == 1  # the file is read twice, and the row is counted once


def test_the_damaged_row_of_flickr30k(tmp_path: Path) -> None:
    head = "image_name| comment_number| comment\n"
    path = put(tmp_path, "r.csv", f"{head}1.jpg| 3| A cat .\n1.jpg| 4   A dog runs | fast\n")
    assert captions(path)["1.jpg"][1:] == ["fast"]  # it has all its separators
    path = put(tmp_path, "r.csv", f"{head}1.jpg| 3| A cat .\n1.jpg| 4   A dog runs .\n2.jpg| 0| x\n")
    log = ReadingLog()
    assert captions(path, log=log) == {"1.jpg": ["A cat .", "A dog runs ."], "2.jpg": ["x"]}
    assert log.counts == {MENDED: 1}
    for damaged in ("1.jpg| A dog runs .", "1.jpg| 4 dogs run .", "1.jpg 4   A dog"):
        with pytest.raises(DataError, match=r"line 2 has [12] columns, .*; it must have 3"):
            captions(put(tmp_path, "r.csv", f"{head}{damaged}\n"))
    # of another table, a number is no sign of the column that is missing
    with pytest.raises(DataError, match="line 2 has 2 columns"):
        captions(put(tmp_path, "r.csv", "image|caption|split\n1.jpg|4   dogs\n"))


def test_rows_with_too_many_or_too_few_cells(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", "image,caption\n1.jpg,a dog\n2.jpg,a dog, running\n\n3.jpg\n,\n4.jpg,b\n")
    with pytest.raises(DataError, match=r"c\.csv: line 3 has 3 columns.*must have 2.*--skip-bad N leaves up to N out"):
        captions(path)
    with pytest.raises(DataError, match=r"line 5 has 1 columns.*more than --skip-bad 1 allows"):
        captions(path, log=ReadingLog(1))
    log = ReadingLog(2)
    assert captions(path, log=log) == {"1.jpg": ["a dog"], "4.jpg": ["b"]}
    assert [message.split(": ")[1][:6] for message in log.bad] == ["line 3", "line 5"]


@pytest.mark.parametrize("names", ["image,caption", "caption,image"])
def test_a_quote_that_is_not_closed(tmp_path: Path, names: str) -> None:
    """It must not take the rows behind it for a caption, however far the next quote is."""
    rows = [["1.jpg", "one"], ["2.jpg", '"two'], ["3.jpg", "three"], ["4.jpg", 'four"'], ["5.jpg", 'fi"ve']]
    lines = [",".join(row if names.startswith("image") else row[::-1]) for row in rows]
    path = put(tmp_path, "c.csv", "\n".join([names, *lines]))
    with pytest.raises(DataError, match=r"c\.csv: the quotes that begin in line 3 are wrong, line 4 would be in"):
        captions(path)
    with pytest.raises(DataError, match=r"c\.csv: line 5 ends a cell that was left out: .*four.*more than --skip"):
        captions(path, log=ReadingLog(1))
    log = ReadingLog(2)
    assert captions(path, log=log) == {"1.jpg": ["one"], "3.jpg": ["three"], "5.jpg": ['fi"ve']}
    assert len(log.bad) == 2


def test_quotes_that_are_wrong(tmp_path: Path) -> None:
    good = '1.jpg,"one ""1""\n2.jpg\n, two"\n'
    for row, problem in (
        ('3.jpg,"he says \\"hi\\""', "',' expected after '\"'"),
        ('3.jpg,"a" dog', "',' expected after '\"'"),
        ('3.jpg,"a dog', "line 7 would be in a cell, and is a whole row"),
    ):
        path = put(tmp_path, "c.csv", f"image,caption\n{good}\n{row}\n4.jpg,four\n")
        with pytest.raises(DataError) as caught:
            captions(path)
        assert f"{path}: the quotes that begin in line 6 are wrong, " in str(caught.value)
        assert problem in str(caught.value)
        assert captions(path, log=ReadingLog(1)) == {"1.jpg": ['one "1"\n2.jpg\n, two'], "4.jpg": ["four"]}
    with pytest.raises(DataError, match=r"the quotes that begin in line 3 are wrong, line 4: unexpected end of data"):
        captions(put(tmp_path, "c.csv", 'image,caption\n1.jpg,"a"\n2.jpg,"b\nc'))


@pytest.mark.parametrize("separator", ["\t", "|"])
def test_quotes_that_are_text(tmp_path: Path, separator: str) -> None:
    rows = ["image{s}caption", '1.jpg{s}"Hello" says a man', '2.jpg{s}"No', '3.jpg{s}yes"', '4.jpg{s}"', "5.jpg{s}x"]
    path = put(tmp_path, "c.tsv", "\n".join(row.format(s=separator) for row in rows))
    expected = {"1.jpg": ['"Hello" says a man'], "2.jpg": ['"No'], "3.jpg": ['yes"'], "4.jpg": ['"'], "5.jpg": ["x"]}
    assert captions(path) == expected
    # as CSV, these two rows are one, whose caption has a line break
    path = put(tmp_path, "c.tsv", f'image{separator}caption\n1.jpg{separator}"No\n2.jpg{separator}yes"\n')
    assert captions(path) == {"1.jpg": ['"No'], "2.jpg": ['yes"']}


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", " | "])
@pytest.mark.parametrize("photo_first", [True, False])
def test_no_header(tmp_path: Path, separator: str, photo_first: bool) -> None:
    rows = [("a/1.jpg", "A dog."), ("2.PNG", "A photo of x.jpg"), ("a/1.jpg", "Two.")]
    lines = [separator.join(row if photo_first else row[::-1]) for row in rows]
    path = put(tmp_path, "list.txt", "\n".join(lines))
    assert captions(path) == {"a/1.jpg": ["A dog.", "Two."], "2.PNG": ["A photo of x.jpg"]}
    path = put(tmp_path, "list.txt", "\n".join([*lines] * 10 + [separator.join(["3", "c"])]))
    with pytest.raises(DataError, match=r"line 31: '[3c]' is not the name of a photo, and column [12] must be"):
        captions(path)


def test_several_captions_without_a_header(tmp_path: Path) -> None:
    path = put(tmp_path, "list.txt", "1.jpg\tA dog.\tTwo dogs, or more.\n2.jpg\tA cat.\t\n")
    assert captions(path) == {"1.jpg": ["A dog.", "Two dogs, or more."], "2.jpg": ["A cat."]}
    path = put(tmp_path, "list.txt", "".join(f"{n}.jpg,{k},{k} dogs of {n}\n" for n in range(9) for k in range(2)))
    assert captions(path)["7.jpg"] == ["0 dogs of 7", "1 dogs of 7"]
    path = put(tmp_path, "list.txt", "0|1.jpg|猫\n0|1.jpg|二\n")
    assert captions(path) == {"1.jpg": ["猫", "二"]}


def test_names_without_extension_and_header(tmp_path: Path) -> None:
    lines = ["ROCO_1\tA dog.", "ROCO_1\tTwo dogs.", "ROCO_20\tA cat."]
    path = put(tmp_path, "list.txt", "\n".join(lines))
    assert captions(path) == {"ROCO_1": ["A dog.", "Two dogs."], "ROCO_20": ["A cat."]}
    with pytest.raises(DataError, match="line 31: 'a b' is not the name of a photo, and column 1 must be"):
        captions(put(tmp_path, "list.txt", "\n".join([*[f"a_{n}\tA dog." for n in range(30)], "a b\tA cat."])))


def test_numbers_of_captions_behind_names(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", "image,caption\n1.jpg#0,a\n1.jpg#1,b\n2#0.jpg,c\n3#0,d\n")
    assert captions(path) == {"1.jpg": ["a", "b"], "2#0.jpg": ["c"], "3#0": ["d"]}


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"'])
def test_a_line_that_names_the_separator(tmp_path: Path, line: str) -> None:
    path = put(tmp_path, "c.csv", f"{line}\r\nimage;caption\r\n1.jpg;a, b\r\n2.jpg\r\n")
    with pytest.raises(DataError, match="line 4 has 1 columns"):
        captions(path)
    assert captions(path, log=ReadingLog(1)) == {"1.jpg": ["a, b"]}
    assert captions(put(tmp_path, "c.csv", f"{line}\n1.jpg;a, b\n")) == {"1.jpg": ["a, b"]}


@pytest.mark.parametrize(
    "content",
    [
        "A dog, a cat.\nA line of text.\n",
        "1.jpg\n2.jpg\n",  # a list of photos
        "1.jpg,2.jpg\n",
        "photo,description\n1.jpg,A dog.\n",
        "1.jpg,a,b\n2.jpg,a,b\n",
        "http://a/1.jpg\tA dog.\n",  # cc-tsv
        "1.jpg,a dog, running\n2.jpg,a cat, asleep\n",  # commas of captions, or columns
        "1.jpg\ttrain\ta dog\n2.jpg\tval\ta cat\n",
        "1.jpg\thttp://a\ta dog\n2.jpg\thttp://b\ta cat\n",
        "1.jpg\t640\t480\n2.jpg\t640\t480\n",
        "1.jpg#0\ta dog\n2.jpg#0\ta cat\n3.jpg#0\ta cat\n",  # flickr30k-token
        "1\ta good film\n0\ta bad film\n1\tanother one\n",  # labels
        "ja1\ta good film\nno0\ta bad film\nja1\tanother one\n",
        "mp3\tm4a\nmp4\tm4v\nmp5\tm5a\n",
        "sep=;\n",
        "image,width\n1.jpg,5\n",
        "caption,url\na,http://b\n",
        '{"image": "1.jpg",\n"caption": "a"}\n',
        "",
    ],
)
def test_what_is_no_table(tmp_path: Path, content: str) -> None:
    found = find_format(CaptionFile(put(tmp_path, "file.txt", content)))
    assert found is None or found.name != "table"


def test_other_names_of_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", "photo,description,part,text\n1.jpg,A dog.,val,ocr\n")
    columns = {"image": "photo", "caption": "Description", "split": "part"}
    assert find_format(CaptionFile(path)) is None
    for chosen in (columns, {**columns, "caption": "text"}):
        found = find_format(CaptionFile(path, chosen))
        assert found is not None and found.name == "table"
        (image,) = read_captions(path, options=CaptionOptions(columns=chosen))
        assert (image.file_name, image.split) == ("1.jpg", "valid")
        assert [c.text for c in image.captions] == ["ocr" if chosen["caption"] == "text" else "A dog."]
    with pytest.raises(DataError, match=r"has no column 'foto' .*; it has: photo, description, part, text"):
        read(path, "table", columns={**columns, "image": "foto"})
    with pytest.raises(
        DataError, match=r"no column is named as one of images .*there are: photo, description.*--columns"
    ):
        read(path, "table")


@pytest.mark.parametrize("header", ["image,caption,caption,caption", "image,caption,caption_2,caption_3"])
def test_columns_of_several_captions(tmp_path: Path, header: str) -> None:
    path = put(tmp_path, "c.csv", f"{header}\n1.jpg,a,b,c\n2.jpg,d,,\n")
    log = ReadingLog()
    assert captions(path, log=log) == {"1.jpg": ["a", "b", "c"], "2.jpg": ["d"]}
    assert log.counts == {"blank captions left out": 2}


def test_entities_are_characters(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", "image,caption\na&amp;b.jpg,Salt &amp; pepper &lt;3 AT&T\n")
    assert captions(path) == {"a&amp;b.jpg": ["Salt & pepper <3 AT&T"]}


def test_lists_and_missing_values(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", 'image,caption\n1.jpg,"(\'a\', \'b\')"\n2.jpg,nan\n1.jpg,"[""c""]"\n')
    log = ReadingLog()
    assert captions(path, log=log) == {"2.jpg": [], "1.jpg": ["a", "b", "c"]}
    assert log.counts == {"blank captions left out": 1}


def test_blank_captions_are_left_out(tmp_path: Path) -> None:
    path = put(tmp_path, "c.csv", "image,caption\n1.jpg,\n1.jpg,a\n2.jpg, \n")
    log = ReadingLog()
    assert captions(path, log=log) == {"1.jpg": ["a"], "2.jpg": []}
    assert log.counts == {"blank captions left out": 2}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",a dog", r"line 2: 'image' must be an image's id or file name, found ''"),
        ("1.jpg,['a dog", r"line 2: the caption begins as a list does, and is none that can be read"),
    ],
)
def test_bad_values(tmp_path: Path, row: str, message: str) -> None:
    path = put(tmp_path, "c.csv", f"image,caption\n{row}\n2.jpg,b\n")
    with pytest.raises(DataError, match=message):
        captions(path)
    assert captions(path, log=ReadingLog(1)) == {"2.jpg": ["b"]}
