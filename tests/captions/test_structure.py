"""Tables and records are told from lines of text, and text of any kind is not taken for a table."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import string
import tarfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from xgpt_fairseq.captions.base import CaptionFile
from xgpt_fairseq.captions.structure import structure_of, structure_of_lines

ROWS = [["dog.jpg", "A dog runs, fast."], ["two cats.PNG", 'Two "cats".'], ["a/b/c.tiff", "Nothing"]]


def table(rows: list[list[str]], delimiter: str = ",") -> list[str]:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue().splitlines()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [row[::-1] for row in ROWS],
        [["photo", "what", "when"], *([*row, "1999"] for row in ROWS)],
        [["image", "caption"], ["1", "A dog."]],
        [["", "Image Name", "comment number", "Comment"], ["0", "1", "2", "A dog."]],
        [["file_name", "alt text"]],
        [[f"https://example.org/{name}?x", caption] for name, caption in ROWS],
        [["17", "A dog, running"], ["18", "A cat, asleep"], ["19", "a man; two | men"]],
        [["x7", "A dog"], ["x8", "A cat, asleep; so | it is"], ["x9", "a man"]],
    ],
)
def test_tables(rows: list[list[str]], delimiter: str) -> None:
    assert (structure_of_lines(table(rows, delimiter)) or "").startswith("a table")


@pytest.mark.parametrize(
    ("lines", "structure"),
    [
        (["dog.jpg#0 A dog.", "dog.jpg#1 A big dog."], "lines that begin with the names of photos"),
        (["a/dog.jpg", "a/cat.jpg"], "lines that begin with the names of photos"),
        (["A dog: dog.jpg", "Cats: cats.png"], "lines that end with the names of photos"),
        (["1\tEin Satz.", "2\tNoch einer, länger."], "a table of 2 columns, separated by tabs"),
        (["a dog\tein Hund\tx", "a cat\teine Katze\ty"], "a table of 3 columns, separated by tabs"),
        (['{"a": 1}', '{"b": "x"}'], "JSON lines"),
        (['["a.jpg", "a dog"]', "[]"], "JSON lines"),
        (["{", '  "images": ['], "JSON"),
        (["[", "  {", '    "caption": "A dog'], "JSON"),
        (['[{"image": "a.jpg", "caption": "A d'], "JSON"),
        (['{"a.jpg": ["A dog.", "Th'], "JSON"),
        (['{"a.jpg": "A dog."}'], "JSON"),
        (['<?xml version="1.0"?>', "<annotation>"], "XML or HTML"),
        (["ustar\0\0A dog."], "binary data"),
        # most lines decide
        (["# Flickr", "9.jpg#0\tA dog.", "8.jpg#0\tA cat."], "a table of 2 columns, separated by tabs"),
        (["My photos", "9.jpg,A dog.", "8.jpg,A cat."], "a table with a column of photos"),
        (["x1\tA dog.", "x2\tA cat.\tCats.", "x3\tA bus.\tA red bus.\tBuses."], "a table of"),
        (["id,utterance", "1,A dog.", "2,A cat.", "3,A bus."], "a table with a column of numbers"),
        (['{"a": 1}', "# comment", '{"b": 2}'], "JSON lines"),
        (["The photos:", "1.jpg: A dog.", "2.jpg: A cat."], "lines that begin with the names of photos"),
        (["1.jpg -> A dog.", "2.jpg -> A cat."], "lines that begin with the names of photos"),
        (['"my dog.jpg" "A dog."', '"my cat.jpg" "A cat."'], "lines that begin with the names of photos"),
        (["('1.jpg', 'A dog.')", "('2.jpg', 'A cat.')"], "lines that begin with the names of photos"),
        (["1.jpg", "A dog.", "2.jpg", "A cat."], "captions below the names of their photos"),
        (["- file: 1.jpg", "  caption: A dog.", "- file: 2.jpg", "  caption: A cat."], "records of caption, file"),
        (["{'1.jpg': ['A dog.'], '2.jpg': 'A cat.'}"], "what Python prints of a dictionary"),
        (["{'image': '1.jpg', 'caption': 'A dog.'}", "{'image': '2.jpg', 'caption': 'A'}"], "what Python prints"),
        (["<set>", "<image file='1.jpg'><caption>A dog.</caption></image>", "</set>"], "XML or HTML"),
    ],
)
def test_other_structures(lines: list[str], structure: str) -> None:
    assert (structure_of_lines(lines) or "").startswith(structure)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["A dog, a cat."],
        ["A dog, running.", "A cat, asleep.", "Two men, one of them old."],
        ["\tIndented, as in books.", "\tThe next paragraph."],
        ["one tab\there", "and none here"],
        ["[Music] A man sings.", "[Applause]"],
        ["[1] As was shown.", "[2] It was not."],
        ["{ braces } open the text.", "More."],
        ['"Go," he said, "now."', '"No," she said, "never."', '"Why," they asked, "not?"'],
        ["1,000 people came.", "2,500 people left.", "3,000 stayed."],
        ["1. The image, text and caption.", "2. See https://example.org for more."],
        ["See dog.jpg", "and nothing else."],
        ["Image, text and caption", "are four words, with and."],
        ["<doc id=1>", "A page of Wikipedia."],
        ["一只棕色的狗，在草地上奔跑。", "两个孩子，在海边玩耍。"],
        ["a | b", "c | d", "e | f"],
        ["As dog.jpg shows, a dog.", "It runs.", "See cat.jpg", "A cat sleeps."],
        ["0. a dog", "1. a cat", "2. a bus"],
        ["000001 a dog", "000002 a cat", "000003 a bus"],
        ["<s> a dog runs </s>", "<s> a cat sleeps </s>"],
        ["Image: what you see.", "Text: what you read.", "Caption: what is below."],
        ["Look https://t.co/abc", "at this.", "And this https://t.co/abd"],
        ["one\ttab", "and no tab", "and none"],
        ["It's {'set'} in Python.", "And {'a': 1} a dictionary."],
        ["Nachts; sagt man; ist es still.", "Morgens; sagt man; nicht.", "Abends; wer weiß; auch."],
    ],
)
def test_text(lines: list[str]) -> None:
    assert structure_of_lines(lines) is None


WORDS = st.text(alphabet=string.ascii_letters + "äé'’()!?.,;:\"-", min_size=1, max_size=9).filter(
    lambda w: w[0].isalpha()
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=20))
def test_prose_with_any_punctuation_is_text(lines: list[str]) -> None:
    assume(not lines[0].lower().startswith(("image", "photo", "file")))  # which may be a header, said above
    structure = structure_of_lines(lines)
    # as many cells in all lines, and quotation marks around whole ones: that is a table
    assert structure is None or (len(lines) > 2 and re.search(r'(^|[,;])"', "\n".join(lines), re.MULTILINE))


@given(
    st.lists(
        st.tuples(st.integers(0, 9999), st.text(st.characters(codec="utf-8"), max_size=30)), min_size=2, max_size=20
    ),
    st.sampled_from(",;\t|"),
)
def test_names_of_photos_are_never_text(rows: list[tuple[int, str]], delimiter: str) -> None:
    captions = [[f"{number:04}.jpg", " ".join(text.split())] for number, text in rows]
    assert structure_of_lines(table(captions, delimiter)) is not None


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), min_size=1, max_size=20))
def test_json_lines_are_never_text(records: list[dict[str, str]]) -> None:
    assert (structure_of_lines([json.dumps(record) for record in records]) or "").startswith("JSON")


def test_files(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("A dog.\nA cat.\n")
    assert structure_of(CaptionFile(tmp_path / "captions.txt")) is None
    assert structure_of(CaptionFile(tmp_path / "missing.txt")) is None
    assert structure_of(CaptionFile(tmp_path)) == "a folder"
    with tarfile.open(tmp_path / "shard.txt", "w") as tar:
        tar.add(tmp_path / "captions.txt", "a.txt")
    assert structure_of(CaptionFile(tmp_path / "shard.txt")) == "a tar"
    (tmp_path / "notes.csv").write_text("A dog.\nA cat.\n")
    assert structure_of(CaptionFile(tmp_path / "notes.csv")) == "a table (by its name)"
    (tmp_path / "notes.YAML.gz").write_bytes(gzip.compress(b"A dog.\n"))
    assert structure_of(CaptionFile(tmp_path / "notes.YAML.gz")) == "YAML (by its name)"
    (tmp_path / "x.jsonl").write_text("")
    assert structure_of(CaptionFile(tmp_path / "x.jsonl")) == "JSON lines (by its name)"
