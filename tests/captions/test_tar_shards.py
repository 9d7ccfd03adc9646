"""Captions in tars of WebDataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tars import write_tar
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.registry import FORMATS, find_format, open_source, read_captions, read_sources
from xgpt_fairseq.errors import DataError


def read(path: Path, **options: Any) -> list[CaptionedImage]:
    return list(read_captions(path, "auto", CaptionOptions(unknown_split="all", **options)))


def captions(images: list[CaptionedImage]) -> dict[str | None, list[str]]:
    return {image.file_name: [caption.text for caption in image.captions] for image in images}


def shard(path: Path, **files: bytes | str) -> Path:
    return write_tar(path, {name.replace("_", "."): content for name, content in files.items()})


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    about = {"caption": "A dog &amp; a\ncat", "url": "http://example.org", "key": "000000000", "status": "success"}
    path = write_tar(
        tmp_path / "cc" / "00000.tar",
        {"000000000.jpg": b"", "000000000.txt": "A dog &amp; a\ncat", "000000000.json": json.dumps(about)},
    )
    image_id = "cc/00000.tar/000000000"
    expected = CaptionedImage("cc/00000.tar/0", "all", [Caption(0, "A dog & a cat")], image_id + ".jpg")
    assert read(path) == [expected]


def test_where_captions_stand(tmp_path: Path) -> None:
    log = ReadingLog()
    path = write_tar(
        tmp_path / "set" / "a.tar",
        {
            "./x/1.txt": "before it", "./x/1.jpg": b"", "2.caption": "\ufeffcaption", "3.PNG": b"", "2.webp": b"",
            "3.json": '{"text": "in JSON"}', "4.jpg": b"", "4.json": '{"caption": null, "width": 3}', "5.jpg": b"",
            "6.jpg": b"", "6.json": '{"caption": ["one", "two"]}', "7.txt": "no photo", "8.image.jpg": b"",
            "8.txt": "by the key", "9.v2.jpg": b"", "9.v2.txt": "dotted", "9.jpg": b"", "9.txt": "without",
            "._1.jpg": b"", "._1.txt": "of macOS", "10.cls": "3", "11.jpg": b"", "11.seg.png": b"", "11.txt": "of jpg",
            "train/1.jpg": b"", "train/1.txt": "train", "12.jpg": b"", "12.txt": " ", "12.json": '{"caption": "said"}',
        },
    )  # fmt: skip
    images = read(path, log=log)
    assert captions(images) == {
        "set/a.tar/x/1.jpg": ["before it"], "set/a.tar/3.PNG": ["in JSON"], "set/a.tar/2.webp": ["caption"],
        "set/a.tar/6.jpg": ["one", "two"], "set/a.tar/8.image.jpg": ["by the key"], "set/a.tar/9.v2.jpg": ["dotted"],
        "set/a.tar/9.jpg": ["without"], "set/a.tar/11.jpg": ["of jpg"], "set/a.tar/train/1.jpg": ["train"],
        "set/a.tar/12.jpg": ["said"],
    }  # fmt: skip
    assert {image.split for image in images} == {"all", "train"}
    assert log.counts == {"photos in tars without a caption": 3, "texts in tars without a photo": 1}


def test_several_lines_and_other_keys(tmp_path: Path) -> None:
    log = ReadingLog()
    files: dict[str, bytes | str] = {
        "1_jpg": "",
        "1_txt": "one\ntwo\n",
        "2_jpg": "",
        "2_json": '{"captions": ["a", "b"]}',
    }
    files |= {
        "3_jpg": "",
        "3_txt": "one\ntwo",
        "3_json": '{"caption": "one\\ntwo"}',
        "4_jpg": "",
        "4_json": '{"raw": "x"}',
    }
    path = shard(tmp_path / "a.tar", **files, **{"5_jpg": "", "5_json": '{"prompt": "five"}'})
    assert list(captions(read(path, log=log)).values()) == [["one", "two"], ["a", "b"], ["one two"], ["x"]]
    assert log.counts == {
        "texts of several lines, of which each is a caption": 1, "photos in tars without a caption": 1,
    }  # fmt: skip
    assert list(captions(read(path, columns={"caption": "prompt"})).values()) == [
        ["one", "two"],
        ["one", "two"],
        ["five"],
    ]
    path = shard(tmp_path / "b.tar", **{"5_jpg": "", "5_json": '{"prompt": "five", "seed": 1}'})
    with pytest.raises(
        DataError, match=r"of its key; .*5\.json has none of text, .*, it has: prompt, seed \(--columns capt"
    ):
        read(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1_jpg": "", "1_txt": "A dog", "1_json": '{"caption": "A cat"}'}, "1.jpg has different captions: 'A dog' in"),
        ({"1_jpg": "", "1_json": '{"caption": "A cat", "text": "A dog"}'}, "1.jpg has different captions: 'A cat' in"),
        ({"1_jpg": "", "1_txt": b"\xff"}, "1.txt is not UTF-8 text"),
        ({"1_jpg": "", "1_json": "{"}, "1.json is not JSON"),
        ({"1_jpg": "", "1_json": "[1]"}, r"1.json: an object with 'caption' or 'text' expected, found '\[1\]'"),
        ({"1_jpg": "", "1_json": '{"caption": 3}'}, "1.json: 'caption': a caption must be text, found 3"),
        ({"1_jpg": "", "1_png": "", "1_txt": "A"}, "is 1.txt the caption of 1.jpg or of 1.png"),
    ],
)
def test_bad_records(tmp_path: Path, files: dict[str, bytes | str], message: str) -> None:
    path = shard(tmp_path / "a.tar", **files, **{"2_jpg": "", "2_txt": "good"})
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    log = ReadingLog(skip_bad=1)
    assert captions(read(path, log=log))[f"{tmp_path.name}/a.tar/2.jpg"] == ["good"]
    assert len(log.bad) == 1


def test_keys_and_tars_of_the_same_names(tmp_path: Path) -> None:
    paths = [shard(tmp_path / split / "0.tar", **{"1_jpg": "", "1_txt": split}) for split in ("train", "val")]
    images = list(read_sources([open_source(path) for path in paths], CaptionOptions()))
    assert [(image.image_id, image.split) for image in images] == [("train/0.tar/1", "train"), ("val/0.tar/1", "valid")]


def test_a_folder_of_tars(tmp_path: Path) -> None:
    for name in ("train-0", "x/test-1", "val/2", "3"):
        shard(tmp_path / "shards" / f"{name}.tar", **{"1_jpg": "", "1_txt": name})
    (tmp_path / "shards" / "0_stats.json").write_text("{}")
    folder = tmp_path / "shards"
    assert [each.name for each in FORMATS.values() if each.recognise(CaptionFile(folder))] == ["tar"]
    assert [(image.file_name, image.split) for image in read(folder)] == [
        ("shards/3.tar/1.jpg", "all"), ("shards/train-0.tar/1.jpg", "train"), ("val/2.tar/1.jpg", "valid"),
        ("x/test-1.tar/1.jpg", "test"),
    ]  # fmt: skip
    (folder / "1.jpg").write_bytes(b"")
    assert find_format(CaptionFile(folder)) is None


def test_tars_without_a_captioned_photo_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shard(folder / "0.tar")
    shard(folder / "1.tar", **{"1_jpg": ""})
    with pytest.raises(DataError, match=r"0\.tar: no photo in it has a \.txt"):
        read(folder)
    shard(folder / "2.tar", **{"1_jpg": "", "1_txt": "A dog", "2_jpg": ""})
    log = ReadingLog()
    assert captions(read(folder, log=log)) == {"shards/2.tar/1.jpg": ["A dog"]}
    assert log.counts == {"tars without a captioned photo": 2, "photos in tars without a caption": 2}


def test_recognised_by_content(tmp_path: Path) -> None:
    path = shard(tmp_path / "shard", **{"1_jpg": "", "1_txt": "A dog"})
    assert [each.name for each in FORMATS.values() if each.recognise(CaptionFile(path))] == ["tar"]
    (tmp_path / "a.tar").write_text("no tar")
    assert find_format(CaptionFile(tmp_path / "a.tar")) is None


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_compressed(tmp_path: Path, compression: str) -> None:
    path = write_tar(tmp_path / f"a.tar.{compression}", {"1.jpg": "", "1.txt": "A dog"}, f"w:{compression}")
    assert open_source(path).format.name == "tar"
    with pytest.raises(DataError, match="is a compressed tar"):
        read(path)


def test_without_captions_or_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tar: no photo in it has a \.txt, \.caption or \.json of its key"):
        read(shard(tmp_path / "a.tar", **{"1_jpg": ""}))
    path = shard(tmp_path / "b.tar", **{"1_jpg": "", "1_txt": "A dog", "2_jpg": "x" * 9999})
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match=r"b\.tar: no tar, or cut or damaged behind 2\.jpg"):
        read(path)


def test_a_folder_has_the_captions_of_a_tar_of_its_files(tmp_path: Path) -> None:
    files = {f"{n}.jpg": "" for n in range(5)} | {"0.txt": "a text", "1.json": '{"caption": "a JSON"}'}
    files |= {"2.jpg.json": '{"caption": "of the whole name"}', "3.jpg.txt": "a text of the whole name"}
    files |= {"4.jpg.supplemental-metadata.json": '{"caption": "a phone\'s", "title": "4.jpg"}'}
    write_tar(tmp_path / "a.tar", files)
    (tmp_path / "b").mkdir()
    for name, content in files.items():
        (tmp_path / "b" / name).write_text(content)
    options = CaptionOptions(unknown_split="")
    for name in ("a.tar", "b"):
        images = read_captions(tmp_path / name, options=options)
        found = {image.key: [caption.text for caption in image.captions] for image in images}
        assert found == {
            "0": ["a text"], "1": ["a JSON"], "2": ["of the whole name"], "3": ["a text of the whole name"],
            "4": ["a phone's"],
        }  # fmt: skip
