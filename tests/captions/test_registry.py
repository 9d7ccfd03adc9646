"""Readers of caption files, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS, open_source, read_captions, read_sources
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.errors import DataError


def image(**changes: Any) -> dict[str, Any]:
    whole = {"cocoid": 42, "filename": "COCO_val2014_000000000042.jpg", "split": "train",
             "sentences": [{"raw": "A cat.", "sentid": 7}]}  # fmt: skip
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def write(path: Path, *images: Any) -> Path:
    path.write_text(json.dumps({"images": images, "dataset": "coco"}), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["karpathy", "auto"])
def test_karpathy(tmp_path: Path, name: str) -> None:
    source = write(
        tmp_path / "dataset.json",
        image(sentences=[{"raw": " Ein „Kätzchen“\n", "sentid": 900}, {"raw": "Two", "sentid": "13"}]),
        image(cocoid=None, filename="1000092795.jpg", split="restval", sentences=[{"raw": "One"}, {"raw": "Two"}]),
        image(cocoid=None, filename="COCO_val2014_000000000391.jpg", split="val"),
        image(cocoid=9, filename="other_name.jpg", split="test"),
        image(cocoid=None, filename="2258277193_586949ec62.jpg", split="extra", sentences=[]),
    )
    assert list(read_captions(source, name)) == [
        CaptionedImage(
            "42", "train", [Caption(900, " Ein „Kätzchen“\n"), Caption(13, "Two")], "COCO_val2014_000000000042.jpg"
        ),
        CaptionedImage("1000092795", "train", [Caption(0, "One"), Caption(1, "Two")], "1000092795.jpg"),
        CaptionedImage("391", "valid", [Caption(7, "A cat.")], "COCO_val2014_000000000391.jpg"),
        CaptionedImage("9", "test", [Caption(7, "A cat.")], "other_name.jpg"),
        CaptionedImage("2258277193_586949ec62", "extra", [], "2258277193_586949ec62.jpg"),
    ]


def test_splits_have_fairseqs_names() -> None:
    names = {"train": "train", "restval": "train", "val": "valid", "valid": "valid", "test": "test", "mine": "mine"}
    for name, expected in names.items():
        assert fairseq_split(name) == expected


def test_the_real_file(coco_mini: Path) -> None:
    source = coco_mini / "dataset_coco_mini.json"
    assert open_source(source).format.name == "karpathy"
    images = list(read_captions(source, "auto"))
    counts = {split: sum(i.split == split for i in images) for split in ("train", "valid", "test")}
    assert counts == {"train": 400, "valid": 67, "test": 50}
    assert all(len(i.captions) >= 5 for i in images)
    assert all((coco_mini / "att" / f"{i.image_id}.npz").exists() for i in images)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in image().items() if name != key}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([image(), image(cocoid=8, filename="8.jpg"), image()], "image 42 is listed twice"),
        ([image(), image(cocoid=None)], "image 42 is listed twice"),  # the long name is the same image
        ([image(sentences=[{"raw": None, "sentid": 5}])], "image 42, caption 5 must be text, found None"),
        ([image(sentences=[{"raw": ["a", "cat"]}])], r"image 42, caption 0 must be text, found \['a', 'cat'\]"),
        ([without("split")], "of which split is image"),
        ([image(), without("sentences")], r"images\[1\] lacks 'sentences'"),
        ([image(), image(sentences=[{"tokens": ["a"]}])], r"images\[1\] lacks 'raw'"),
        ([image(cocoid=None, filename=None)], r"images\[0\] lacks 'filename'"),
        ([image(), 17], r"images\[1\] is malformed"),
        ([image(sentences=[7])], r"images\[0\] is malformed"),
        ([image(sentences=[{"raw": "A cat.", "sentid": "first"}])], r"images\[0\] is malformed"),
        ([image(split=["train"])], r"images\[0\]: 'split' must be a name, found \['train'\]"),
    ],
)
def test_bad_records(tmp_path: Path, images: list[Any], message: str) -> None:
    source = write(tmp_path / "dataset.json", *images)
    with pytest.raises(DataError, match=message) as caught:
        list(read_captions(source, "karpathy"))
    assert str(source) in str(caught.value)


@pytest.mark.parametrize("name", ["karpathy", "auto"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b'{"images": [', "is not JSON"),
        (b'{"images": "\xff"}', "is not JSON"),
        (b"{}", "has no list 'images'|not a caption file of a known format"),
        (b"[]", "has no list 'images'|not a caption file of a known format"),
        (b'{"images": 3}', "has no list 'images'|not a caption file of a known format"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    source = tmp_path / "dataset.json"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_captions(source, name))
    assert str(source) in str(caught.value)


FULL = "Salt &amp; pepper"
OF_FORMAT = {
    "karpathy": {"images": [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": FULL}]}]},
    "coco": {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": FULL}]},
    "flickr30k-token": f"1.jpg#0\t{FULL}",
    "studies": [{"report": FULL, "image_path": "1.jpg"}],
    "cc-tsv": f"{FULL}\thttp://a/b",
    "jsonl": json.dumps({"image": "1.jpg", "captions": [FULL]}),
    "table": f"image,caption\n1.jpg,{FULL}",
    "json-records": [{"image": "1.jpg", "caption": FULL}],
    "json-names": {"1.jpg": FULL},
    "conversations": [{"image": "1.jpg", "messages": [{"role": "assistant", "content": FULL}]}],
}


@pytest.mark.parametrize("name", OF_FORMAT)
def test_entities(tmp_path: Path, name: str) -> None:
    """Published corpora are as they are; captions of other sources are web text, whose entities are characters."""
    content = OF_FORMAT[name]
    path = tmp_path / ("train.txt" if isinstance(content, str) else "train.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    (found,) = read_captions(path)
    is_corpus = name in ("karpathy", "coco", "flickr30k-token", "studies")
    assert [caption.text for caption in found.captions] == [FULL if is_corpus else "Salt & pepper"]


def captions_of(path: Path, texts: list[str], log: ReadingLog) -> list[str]:
    path.write_text(json.dumps({"image": "1.jpg", "captions": texts}))
    (found,) = read_captions(path, options=CaptionOptions(log=log))
    return [caption.text for caption in found.captions]


def test_captions_without_a_visible_character(tmp_path: Path) -> None:
    log = ReadingLog()
    texts = ["\u200b", " \u00ad\ufeff", "\x07\n", "&nbsp;", "", "\u3000", "a\u200db", "\u00a0b", "❤️", "\ue000"]
    assert captions_of(tmp_path / "train.jsonl", texts, log) == texts[6:]
    assert log.counts == {"blank captions left out": 6}


def test_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    assert captions_of(path, ["a\tb\r\nc\x0b\x0cd\x1c\x85"], ReadingLog()) == ["a\tb\r\nc\x0b\x0cd\x1c\x85"]
    for character in "\0\x07\x08\x0e\x1b\x7f":
        message = r"train\.jsonl: image 1, caption 1 has a control character, .*: 'a.*b' \(--skip-bad N"
        with pytest.raises(DataError, match=message) as caught:
            captions_of(path, ["x", f"a{character}b"], ReadingLog())
        assert repr(character) in str(caught.value)
        log = ReadingLog(1)
        assert captions_of(path, ["x", f"a{character}b"], log) == ["x"]
        assert len(log.bad) == 1


def _coco(path: Path) -> None:
    path.write_text('{"images": [{"id": 1}], "annotations": []}')


def _text(path: Path) -> None:
    path.write_text("a cat\n")


@pytest.mark.parametrize(("name", "make"), [("a.json", _coco), ("a.txt", _text), ("folder", Path.mkdir)])
def test_unknown_format(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=r"not a caption file of a known format \(karpathy") as caught:
        open_source(tmp_path / name)
    assert "--columns" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"known format \(it is empty\)"),
        ("a.csv", "image,caption\r1.jpg,a\r2.jpg,b\r", r"known format \(its lines end with \\r alone; they must"),
        ("a.csv", "image,caption\n1.jpg,a\n".encode("utf-16"), r"it looks like UTF-16 text \(Excel's .*UTF-8\)"),
        ("a.xlsx", b"PK\3\4\0\0", r"it looks like a zip archive, as spreadsheets .*save the sheet as CSV"),
        (
            "a.csv",
            "photo;caption\n1.jpg;a\n",
            r"its header: no column .* images .*there are: photo, caption; say",
        ),
        ("a.txt", "photo,title\n1.jpg,a\n2.jpg,b\n", r"its header: no column .*there are: photo, title; say"),
        ("a.csv", "1.jpg,a,b\n2.jpg,a,b\n", r"its first line is no header \('1\.jpg, a, b'\), .*image,caption"),
        ("a.jsonl", '{"photo": 1, "text": "a"}\n{}\n', r"its first record: no column .*there are: photo, text; say"),
        ("a.json", '[{"image": 1, "words": "a"}, {}]', r"its first record: no column .*there are: image, words; say"),
        ("a.txt", "1.jpg a dog\n2.jpg a cat\n", r"it looks like lines that begin with the names of photos"),
    ],
)
def test_the_nearest_miss(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("content", ["photo,caption\n1.jpg,a\n", '{"photo": "1.jpg", "caption": "a"}\n' * 2])
def test_a_column_that_is_misspelt(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match=r"no column 'foto' \(--columns image=…\); it has: photo, caption"):
        open_source(tmp_path / "a.txt", columns={"image": "foto"})


def test_every_format_says_no_to_others(tmp_path: Path) -> None:
    _coco(tmp_path / "coco.json")
    for caption_format in FORMATS.values():
        assert not caption_format.recognise(CaptionFile(tmp_path / "coco.json"))


def test_a_json_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many formats look at it, and however often it is read."""
    parsed: list[Path] = []

    def load(path: Path) -> Any:
        parsed.append(path)
        return json.loads(path.read_text(encoding="utf-8"))

    monkeypatch.setattr("xgpt_fairseq.captions.base.load_json", load)
    coco = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "A cat."}]}
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(coco, indent=1))
    source = open_source(path)
    for _ in range(2):
        assert list(read_sources([source], CaptionOptions())) == [CaptionedImage("1", "valid", [Caption(0, "A cat.")])]
    assert parsed == [path]


@pytest.mark.parametrize("first_line", ['{"image": 1, "caption": "a"}', '{"boxes": []}'])
def test_json_in_lines_is_not_parsed_whole(tmp_path: Path, first_line: str) -> None:
    path = tmp_path / "lines.json"
    path.write_text(f"{first_line}\n" * 2)
    assert CaptionFile(path).json_object == {}
