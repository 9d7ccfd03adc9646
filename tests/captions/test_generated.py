"""Reading captions that are scored: the order, the ids, and every error by its message."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.captions.test_references import COCO, written
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.generated import coco_results, read_captions
from xgpt_fairseq.captions.references import References, read_references
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.text.vocabulary import normalize


@pytest.fixture
def references(tmp_path: Path) -> References:
    return read_references(written(tmp_path / "test.references.json", COCO))


GENERATED = """\
S-1\t
T-1\ta cat .
H-1\t-0.3\ta c@@ at .
D-1\t-0.3\ta cat .
P-1\t-0.1 -0.2
H-1\t-0.9\tsomething else
D-1\t-0.9\tsomething else
D-0\t-0.5\ta dog\u2028with a [bone] .
D-2\t-0.7\t
Generate test with beam=2: BLEU4 = 1.00
"""


def test_generate_output(tmp_path: Path, references: References) -> None:
    captions = read_captions(written(tmp_path / "generate-test.txt", GENERATED), references)
    assert list(captions.items()) == [("42", "a dog\u2028with a [bone] ."), ("7", "a cat ."), ("park", "")]


def test_coco_results_round_trip(tmp_path: Path, references: References) -> None:
    captions = {"42": "D-1\t a dog", "7": "ein Kätzchen", "park": ""}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(coco_results(captions), ensure_ascii=False))
    assert [record["image_id"] for record in json.loads(path.read_text())] == [42, 7, "park"]
    assert "Kätzchen" in path.read_text(encoding="utf-8")
    assert read_captions(path, references) == captions


def test_coco_results_may_come_in_any_order_and_spelling(tmp_path: Path, references: References) -> None:
    results = [{"image_id": "park", "caption": "c"}, {"image_id": "000000000042", "caption": "a"}]
    results.append({"image_id": 7, "caption": "b"})
    captions = read_captions(written(tmp_path / "results.json", results), references)
    assert list(captions.items()) == [("42", "a"), ("7", "b"), ("park", "c")]


def test_ids_that_look_like_files(tmp_path: Path) -> None:
    """Of photos with two extensions: as captioning a store writes them, they are just the ids of the references."""
    references = References(tmp_path / "r.json", {"1": ["a"], "1.png": ["b"], "x.jpg": ["c"]})
    captions = {"1.png": "B", "x.jpg": "C", "1": "A"}
    assert read_captions(written(tmp_path / "c.json", coco_results(captions)), references) == captions
    files = {"1.png.jpg": "B", "x.jpg.jpg": "C", "1.jpg": "A"}
    assert read_captions(written(tmp_path / "c.json", files), references) == captions


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("D-0\t-1\ta\nD-3\t-1\tb\n", r"captions:2: sample 3, but the references have 3 images \(0 to 2\)"),
        ("D-0\t-1\ta\nD-1\tb\n", r"captions:2: 'D-1\\tb' is not D-<sample><tab><score><tab><caption>"),
        ("D-0\t-1\ta\nD-1\t-1\tb\nD-0\t-1\ta\n", r"captions:3: sample 0 \(image 42\) appears again .* two runs\?"),
        ("D-1\t-1\ta\n", r"2 images \(42, park\) of .*references\.json without a caption"),
        (
            "2024-01-01 | INFO | fairseq_cli.generate | done\n",
            "no line D-<image>, no names .* 1 lines for the 3 images .*--quiet",
        ),
        ("", "no line D-<image>"),
        ("[1,", "captions:1: not JSON"),
        ({"42": "a dog"}, r"2 images \(7, park\) of"),
        ({"42": ["a dog", "two"]}, "image 42 has 2 captions; one for each image is scored"),
        ('{"image_id": 42, "caption": "a"}\n{"image_id": 7}\n', 'record 1: "caption" must be a string, found nothing'),
        ("42\ta\n7\tb\tc\n", r"line 2: '7\\tb\\tc' is not the name of an image, a tab and a caption"),
        ("a\nb\tc\nd\n", r"line 2: 'b\\tc' has a tab, and most lines have none: captions alone have no tabs"),
        ("42.jpg: a\n7.jpg: b\npark.jpg: c\n", "lines that begin with the names of .* put a tab between name"),
        ("- 000042 a\n- 7 b\n- park c\n", r"'- 000042 a' and others begin with the names of photos"),
        ("'42.jpg' -> a\n'7.jpg' -> b\nc\n", "begin with the names of photos"),
        ({"42": [{"caption": "a"}, {"caption": "b"}]}, "'42' has 2 captions; one for each image is scored"),
        ("42\ta\n42.jpg\tb\n", "line 2: image 42 has a caption already"),
        ("photo,words\n42.jpg,a\n7.jpg,b\n", "looks like a table .*--columns"),
        ('{"photo": "42.jpg"}\n{"photo": "7.jpg"}\n', "not JSON|record 0 lacks"),
        ("a\nb\n", "2 lines for the 3 images"),
        ("2024-01-01 12:00:00 | INFO | fairseq | a\nb\nc\n", "no line D-<image>"),
        ([{"image_id": 42}], 'record 0: "caption" must be a string'),
        ([{"caption": "a"}], "record 0 lacks 'image_id', it has: caption; say .* --columns image=…,caption=…"),
        ([{"filename": "42.jpg", "prediction": "a"}], "record 0 lacks 'image_id', it has: filename, prediction; say"),
        ([{"image_id": 42, "caption": "a"}, {"image_id": "42", "caption": "b"}], "record 1: image 42 has a caption"),
        ([], r"3 images \(42, 7, park\) of"),
        (
            [{"image_id": image, "caption": "a"} for image in range(100, 109)],
            r"9 images \(100, 101, 102, 103, 104, …\) not in .*references\.json",
        ),
    ],
)
def test_captions_errors(tmp_path: Path, references: References, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_captions(written(tmp_path / "captions", content), references)


def test_output_of_another_split_of_the_same_size_is_refused(tmp_path: Path) -> None:
    def references(first: list[str]) -> References:
        return References(tmp_path / "r.json", {str(i): [caption] for i, caption in enumerate(first)})

    ours = ["A dog's nose, up close.", "Two cats."]
    lines = [f"T-{i}\t{text}\nD-{i}\t-1\ta thing." for i, text in enumerate(["a dog 's nose, up close.", "two cats."])]
    (tmp_path / "generate-test.txt").write_text("\n".join(lines))
    assert read_captions(tmp_path / "generate-test.txt", references(ours)) == {"0": "a thing.", "1": "a thing."}
    with pytest.raises(DataError, match=r"is not of the split of .*r\.json: the captions in its lines T-0"):
        read_captions(tmp_path / "generate-test.txt", references(["A bus.", "Some food."]))
    # which the model writes in Unicode's form NFKC
    for caption in ("ผู้ชายกำลังขี่จักรยาน", unicodedata.normalize("NFD", "Một cô bé đang chạy trên bãi cỏ")):
        text = normalize(caption)
        assert text != caption.lower()
        (tmp_path / "generate-test.txt").write_text(f"T-0\t{text}\nD-0\t-1\t{text}", encoding="utf-8")
        assert read_captions(tmp_path / "generate-test.txt", references([caption])) == {"0": text}


@pytest.mark.parametrize(
    "content",
    [
        '{"image_id": 42, "caption": "a"}\n{"image_id": "7", "caption": "b"}\n\n{"image_id": "park", "caption": "c"}\n',
        '{"image": "42.jpg", "caption": "a"}\n{"image": "7.png", "caption": "b"}\n{"image": "park", "caption": "c"}\n',
        {"COCO_val2014_000000000042.jpg": "a", "7": "b", "photos/park.jpg": "c"},
        {"42": [{"caption": "a"}], "7": [{"image_id": 7, "caption": "b"}], "park": [{"caption": "c", "id": 3}]},
        '\ufeff{"42": "a", "7": "b", "park": "c"}',
        '\ufeff[{"image_id": 42, "caption": "a"}, {"image_id": 7, "caption": "b"}, '
        '{"image_id": "park", "caption": "c"}]',
        "park\tc\n000000000042.jpg\t a \n\n7\tb\n",
        "42.jpg#0\ta\n7.jpg#0\tb\npark.jpg#0\tc\n",
        {
            "images": [{"id": 9 + i, "file_name": name} for i, name in enumerate(["42.jpg", "7.jpg", "x/park.jpg"])],
            "annotations": [{"image_id": 9 + i, "caption": text} for i, text in enumerate("abc")],
        },
    ],
)  # fmt: skip
def test_captions_by_the_names_of_images(tmp_path: Path, references: References, content: Any) -> None:
    path = written(tmp_path / ("captions.txt" if isinstance(content, str) else "captions.json"), content)
    assert list(read_captions(path, references).items()) == [("42", "a"), ("7", "b"), ("park", "c")]


def test_columns_of_other_names(tmp_path: Path, references: References) -> None:
    records = [
        {"file": f"{name}.jpg", "prediction": text} for name, text in zip(("42", "7", "park"), "abc", strict=True)
    ]
    options = CaptionOptions(columns={"image": "file", "caption": "prediction"})
    for content in (records, "".join(json.dumps(record) + "\n" for record in records)):
        path = written(tmp_path / ("c.jsonl" if isinstance(content, str) else "c.json"), content)
        assert read_captions(path, references, options=options) == {"42": "a", "7": "b", "park": "c"}


def test_utf16(tmp_path: Path, references: References) -> None:
    path = tmp_path / "generate-test.txt"
    path.write_bytes(GENERATED.encode("utf-16"))
    with pytest.raises(DataError, match=r"generate-test\.txt is UTF-16 text, .*: convert it by iconv --from UTF-16"):
        read_captions(path, references)


def test_words_that_are_names_by_chance(tmp_path: Path) -> None:
    """Lines that begin alike name no photos."""
    references = References(tmp_path / "r.json", {"a": ["x"], "b": ["y"], "c": ["z"]})
    path = written(tmp_path / "captions.txt", "a dog\na cat\na bus\n")
    assert list(read_captions(path, references).values()) == ["a dog", "a cat", "a bus"]


def test_lines_alone_are_in_the_order_of_the_references_and_it_is_said(
    tmp_path: Path, references: References, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "captions.txt", "[a] dog, running\n\n2, or 3\n")
    assert list(read_captions(path, references).values()) == ["[a] dog, running", "", "2, or 3"]
    assert "captions of the 3 images of" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a\nb\nc\n", "D-0\t-1\ta\nD-1\t-1\tb\nD-2\t-1\tc\n"])
def test_captions_are_not_counted_where_the_images_have_no_order(
    tmp_path: Path, references: References, content: str
) -> None:
    unordered = dataclasses.replace(references, is_ordered=False)
    with pytest.raises(DataError, match=r"it counts them; .* has no order of images"):
        read_captions(written(tmp_path / "captions", content), unordered)


def test_several_captions_of_an_image_are_refused(tmp_path: Path, references: References) -> None:
    lines = "42.jpg#0\ta\n42.jpg#1\tx\n7.jpg#0\tb\npark.jpg#0\tc\n"
    with pytest.raises(DataError, match=r"image 42\.jpg has 2 captions; one for each image"):
        read_captions(written(tmp_path / "captions.token", lines), references)


def test_an_id_that_fits_another_file_is_not_guessed(tmp_path: Path) -> None:
    """Annotation tools number images otherwise than files do: 1 is 2.jpg, and 2 is 1.jpg."""
    references = References(tmp_path / "r.json", {"1": ["of 2.jpg"], "2": ["of 1.jpg"]}, {"1": "2.jpg", "2": "1.jpg"})
    path = written(tmp_path / "captions.json", {"1": "a", "2": "b"})
    with pytest.raises(DataError, match=r"1'? is 1 of .*r\.json by its id, and 2 by its file's name: .*--pair-by"):
        read_captions(path, references)
    assert read_captions(path, references, by="id") == {"1": "a", "2": "b"}
    assert read_captions(path, references, by="file") == {"1": "b", "2": "a"}
    # a name with an extension is a file's
    assert read_captions(written(path, {"1.jpg": "a", "2.jpg": "b"}), references) == {"1": "b", "2": "a"}


def test_a_name_that_fits_two_photos_is_not_guessed(tmp_path: Path) -> None:
    references = References(tmp_path / "r.json", {"a/1": ["x"], "b/1": ["y"]})
    path = written(tmp_path / "captions.json", {"a/1.jpg": "a", "b/1.jpg": "b"})
    assert read_captions(path, references) == {"a/1": "a", "b/1": "b"}
    with pytest.raises(DataError, match=r"1\.jpg may be a/1 or b/1"):
        read_captions(written(path, {"1.jpg": "a", "b/1.jpg": "b"}), references)
