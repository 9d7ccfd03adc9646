"""Every format of captions, in files of its real shape: what is read, how formats are told apart, what is refused."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions, split_in_name
from xgpt_fairseq.captions.conceptual_captions import UrlMap, image_id_by_crc32
from xgpt_fairseq.captions.registry import FORMATS, UNLISTED, find_format, open_source, read_captions, read_sources
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id

# As the files are: COCO's annotations are in no order, Flickr30k's sentences have spaces around their full stops,
# Conceptual Captions is lower case, tokenized and has neither a header nor ids.
KARPATHY = {
    "images": [
        {"filepath": "val2014", "sentids": [7], "filename": "COCO_val2014_000000000042.jpg", "imgid": 0, "split": "val",
         "sentences": [{"tokens": ["a", "cat"], "raw": "A cat.", "imgid": 0, "sentid": 7}], "cocoid": 42}
    ],
    "dataset": "coco",
}  # fmt: skip
COCO = {
    "info": {"description": "This is stable 1.0 version of the 2014 MS COCO dataset.", "year": 2014},
    "images": [
        {"license": 5, "file_name": "COCO_train2014_000000057870.jpg", "height": 480, "width": 640, "id": 57870},
        {"license": 5, "file_name": "COCO_train2014_000000384029.jpg", "height": 429, "width": 640, "id": 384029},
        {"license": 1, "file_name": "COCO_train2014_000000222016.jpg", "height": 640, "width": 480, "id": 222016},
    ],
    "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-sa/2.0/", "id": 1, "name": "Attribution"}],
    "annotations": [
        {"image_id": 384029, "id": 48, "caption": "A very clean and well decorated empty bathroom"},
        {"image_id": 57870, "id": 126, "caption": "A restaurant with wooden tables.\n"},
        {"image_id": 384029, "id": 52, "caption": "Ein „Bad“ – 浴室"},
        {"image_id": 384029, "id": 53, "caption": "Ein „Bad“ – 浴室"},
    ],
}
FLICKR30K = (
    "1000092795.jpg#0\tTwo young guys with shaggy hair look at their hands while hanging out in the yard .\n"
    "1000092795.jpg#1\tTwo young , White males are outside near many bushes .\n"
    "10002456.jpg#0\tSeveral men in hard hats are operating a giant pulley system .\n"
    "10002456.jpg#1\tSeveral men in hard hats are operating a giant pulley system .\n"
    "1000092795.jpg#2\tA café #1 .\n"
)
FLICKR8K = (
    "2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n"
    "2258277193_586949ec62.jpg.1#1\tSome people looking out windows in a large building .\n"
    "1305564994_00513f9a5b.jpg#0\tA man in street racer armor be examine the tire of another racer 's motorbike .\n"
    "my#photo#2.png#0\ta photo with number signs # in its name\n"
)
CC = (
    "a very typical bus station\thttp://lh6.ggpht.com/-IvRtNLNcG8o/TpFyrudaT6I/AAAAAAAAM6o/_11MuAAKalQ/IMG_3422.JPG\n"
    "sierra looked stunning in this top and this skirt\thttp://78.media.tumblr.com/3b133294bdc7c7784b781/tumblr_oo.jpg\n"
    "the – “sports” team, 东京\thttps://i.pinimg.com/736x/66/53/e7/6653e7fc68e8a.jpg?a=b#c\n"
)
JSONL = (
    '{"image": "000000000042.jpg", "caption": "A cat.", "split": "train", "source": "mine"}\n'
    '{"image": 7, "captions": ["One.", "Zwei Bären."], "split": "val"}\n'
    '{"image": "photo 1", "caption": "A.", "split": "test"}\n'
    '{"image": "photo 1", "caption": "A.", "split": "test"}\n'
)
SAMPLES: dict[str, tuple[str, str]] = {
    "karpathy": ("dataset_coco.json", json.dumps(KARPATHY)),
    "coco": ("captions_train2014.json", json.dumps(COCO, ensure_ascii=False)),
    "flickr30k-token": ("results_20130124.token", FLICKR30K),
    "cc-tsv": ("Train_GCC-training.tsv", CC),
    "jsonl": ("captions.jsonl", JSONL),
}


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path: Path, name: str = "auto", **options: Any) -> list[CaptionedImage]:
    return list(read_captions(path, name, CaptionOptions(**options)))


def detect(path: Path) -> str:
    return open_source(path).format.name


# What is read


def test_coco(tmp_path: Path) -> None:
    images = read(put(tmp_path, *SAMPLES["coco"]))
    assert images == [
        CaptionedImage("57870", "train", [Caption(126, "A restaurant with wooden tables.\n")]),
        CaptionedImage(
            "384029",
            "train",
            [
                Caption(48, "A very clean and well decorated empty bathroom"),
                Caption(52, "Ein „Bad“ – 浴室"),
                Caption(53, "Ein „Bad“ – 浴室"),
            ],
        ),
        CaptionedImage("222016", "train", []),
    ]


def test_flickr30k_token(tmp_path: Path) -> None:
    images = read(put(tmp_path, *SAMPLES["flickr30k-token"]), unknown_split="all")
    assert [(image.image_id, [caption.caption_id for caption in image.captions]) for image in images] == [
        ("1000092795", [0, 1, 2]),
        ("10002456", [0, 1]),
    ]
    assert images[0].captions[2].text == "A café #1 ."
    assert images[1].captions[0].text == images[1].captions[1].text


def test_flickr8k_token(tmp_path: Path) -> None:
    images = read(put(tmp_path, "Flickr8k.token.txt", FLICKR8K), unknown_split="all")
    assert [image.image_id for image in images] == [
        "2258277193_586949ec62.jpg.1",  # there is no such photo, and it is not the one without .1
        "1305564994_00513f9a5b",
        "my#photo#2",
    ]
    assert images[2].captions == [Caption(0, "a photo with number signs # in its name")]


def test_cc_tsv(tmp_path: Path) -> None:
    expected = [line.split("\t") for line in CC.splitlines()]
    images = read(put(tmp_path, *SAMPLES["cc-tsv"]))
    assert images == [
        CaptionedImage(str(line), "train", [Caption(line, text)]) for line, (text, _) in enumerate(expected)
    ]
    # a header, as img2dataset wants it, is not counted; blank lines are
    lines = CC.splitlines(keepends=True)
    path = put(tmp_path, "Validation_GCC-1.1.0-Validation.tsv", f"caption\turl\n{lines[0]}\n{''.join(lines[1:])}")
    assert [(image.image_id, image.split) for image in read(path)] == [("0", "valid"), ("2", "valid"), ("3", "valid")]
    # CC12M has the columns the other way round
    swapped = "".join(f"{url}\t{text}\n" for text, url in expected)
    assert read(put(tmp_path, "cc12m.tsv", swapped), unknown_split="train") == images


def test_cc_images_named_by_crc32(tmp_path: Path) -> None:
    urls = [line.split("\t")[1] for line in CC.splitlines()]
    images = read(put(tmp_path, *SAMPLES["cc-tsv"]), image_id_of_url=image_id_by_crc32)
    assert [image.image_id for image in images] == [str(zlib.crc32(url.encode())) for url in urls]


def test_jsonl(tmp_path: Path) -> None:
    expected = [
        CaptionedImage("42", "train", [Caption(0, "A cat.")]),
        CaptionedImage("7", "valid", [Caption(0, "One."), Caption(1, "Zwei Bären.")]),
        CaptionedImage("photo 1", "test", [Caption(0, "A."), Caption(1, "A.")]),
    ]
    assert read(put(tmp_path, *SAMPLES["jsonl"])) == expected
    assert read(put(tmp_path, "lines.json", JSONL)) == expected  # a name that many give such files


@pytest.mark.parametrize("name", SAMPLES)
def test_windows_files(tmp_path: Path, name: str) -> None:
    """A byte order mark, CRLF and blank lines change nothing."""
    file, content = SAMPLES[name]
    plain = read(put(tmp_path, file, content), name, unknown_split="all")
    windows = f"\ufeff\r\n{content}\r\n \r\n" if name not in ("cc-tsv",) else f"\ufeff{content}\r\n \r\n"
    path = put(tmp_path, file, windows.replace("\r\n", "\n").replace("\n", "\r\n"))
    assert detect(path) == name
    assert read(path, unknown_split="all") == plain
    assert read(path, name, unknown_split="all") == plain


@pytest.mark.parametrize("name", ["flickr30k-token", "cc-tsv", "jsonl"])
def test_compressed(tmp_path: Path, name: str) -> None:
    file, content = SAMPLES[name]
    path = put(tmp_path, f"{file}.gz", gzip.compress(content.encode()))
    assert detect(path) == name
    plain = read(put(tmp_path, file, content), unknown_split="all")
    assert read(path, unknown_split="all") == plain
    put(tmp_path, path.name, path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"\.gz cannot be read: "):
        read(path, name, unknown_split="all")


def test_other_line_breaks_of_unicode_are_text(tmp_path: Path) -> None:
    text = "a\u2028b\x0bc\x85d"
    path = put(tmp_path, "train.token", f"1.jpg#0\t{text}\n2.jpg#0\tb\n")
    assert read(path)[0].captions[0].text == text
    assert read(put(tmp_path, "train.tsv", f"{text}\thttp://a/b\n"))[0].captions[0].text == text


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
names = st.one_of(st.integers(0, 10**12), st.text(st.sampled_from("aZ09_-#. "), min_size=1)).filter(canonical_image_id)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(names, st.sampled_from(["train", "val", "test", "mine"]), st.lists(texts, max_size=3)),
        unique_by=lambda record: canonical_image_id(record[0]),
        max_size=5,
    ),
    st.data(),
)
def test_jsonl_comes_back_as_it_was_written(records: list[tuple[Any, str, list[str]]], data: st.DataObject) -> None:
    """However captions are spread over lines, and whatever is in them."""
    lines = []
    for image, split, captions in records:
        one_by_one = bool(captions) and data.draw(st.booleans())
        values: list[dict[str, Any]] = (
            [{"caption": text} for text in captions] if one_by_one else [{"captions": captions}]
        )
        for value in values:
            ascii_only = data.draw(st.booleans())
            lines.append(json.dumps({"image": image, **value, "split": split}, ensure_ascii=ascii_only))
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "captions.jsonl", "".join(f"{line}\n" for line in lines))
        assert find_format(CaptionFile(path)) == (FORMATS["jsonl"] if lines else None)
        images = read(path, "jsonl")
    assert images == [
        CaptionedImage(
            canonical_image_id(image),
            {"val": "valid"}.get(split, split),
            [Caption(place, text) for place, text in enumerate(captions)],
        )
        for image, split, captions in records
    ]


# Which format it is


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_told_from_the_others(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, *SAMPLES[name])
    assert [other.name for other in FORMATS.values() if other.recognise(CaptionFile(path))] == [name]
    assert detect(path) == name


def test_all_formats_are_tested() -> None:
    assert SAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("instances_val2014.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}'),
        ("image_info_test2014.json", '{"images": [{"id": 1, "file_name": "COCO_test2014_000000000001.jpg"}]}'),
        ("results.json", '[{"image_id": 1, "caption": "a"}]'),
        ("text.txt", "A line of text.\nAnother # 1.\n"),
        ("parallel.tsv", "a house\tein Haus\n"),
        ("links.tsv", "a\thttp://a/b\nb\tno link\n"),
        ("both.tsv", "http://a/a\thttp://a/b\n"),
        ("three.tsv", "a\thttp://a/b\t5\n"),
        ("header.tsv", "caption\turl\n"),
        ("numbers.txt", "1000092795.jpg#0 a cat\n"),
        ("boxes.jsonl", '{"image": 1, "boxes": []}\n'),
        ("cut.jsonl", '{"image": 1, "cap'),
        ("empty.txt", ""),
        ("binary.bin", bytes(range(256))),
    ],
)
def test_what_is_no_caption_file(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = put(tmp_path, name, content)
    assert find_format(CaptionFile(path)) is None
    with pytest.raises(DataError, match="not a caption file of a known format"):
        detect(path)


# Splits


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_train2014.json", "train"),
        ("captions_val2014.json", "valid"),
        ("captions_val2017.json", "valid"),
        ("Train_GCC-training.tsv", "train"),
        ("Train-GCC-training.tsv.gz", "train"),
        ("Validation_GCC-1.1.0-Validation.tsv", "valid"),
        ("restval.jsonl", "train"),
        ("flickr.test.token", "test"),
        ("captions_trainval2014.json", ""),
        ("train_and_val.jsonl", ""),
        ("attest.jsonl", ""),
        ("results_20130124.token", ""),
    ],
)
def test_splits_in_file_names(name: str, split: str) -> None:
    assert split_in_name(name) == split


def test_where_splits_come_from(tmp_path: Path) -> None:
    lists = {"57870": "valid", "222016": "test"}
    for name in ("captions_train2014.json", "captions.json"):
        path = put(tmp_path, name, SAMPLES["coco"][1])
        # the name of the file counts least
        assert [image.split for image in read(path, named_splits={path: "mine"})] == ["mine"] * 3
        assert [image.split for image in read(path, split_lists=lists)] == ["valid", UNLISTED, "test"]
        assert {image.split for image in read(path, split_lists={"57870": "x"}, named_splits={path: "x"})} == {"x"}
    with pytest.raises(DataError, match=r"captions\.json: of which split is image 57870\?.*SPLIT=FILE.*--split-files"):
        read(path)
    mixed = put(tmp_path, "train.jsonl", '{"image": 1, "caption": "a"}\n{"image": 2, "caption": "b", "split": "val"}\n')
    assert [image.split for image in read(mixed)] == ["train", "valid"]
    assert [image.split for image in read(mixed, split_lists={"1": "test"})] == ["test", "valid"]
    assert [image.split for image in read(mixed, named_splits={mixed: "valid"})] == ["valid", "valid"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_lists": {"42": "train"}}, r"image 42 is of split 'valid' by its record, 'train' by --split-files"),
        ({"named": "test"}, r"image 42 is of split 'valid' by its record, 'test' by SPLIT=FILE; these must agree"),
    ],
)
def test_splits_that_disagree(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = put(tmp_path, *SAMPLES["karpathy"])
    if named := options.pop("named", None):
        options["named_splits"] = {path: named}
    with pytest.raises(DataError, match=message):
        read(path, **options)


def test_several_files(tmp_path: Path) -> None:
    train = put(tmp_path, "train.jsonl", '{"image": 1, "caption": "a"}\n')
    valid = put(tmp_path, "val.token", "2.jpg#0\tb\n")
    sources = [open_source(train, "jsonl"), open_source(valid, "flickr30k-token")]
    assert [(image.image_id, image.split) for image in read_sources(sources, CaptionOptions())] == [
        ("1", "train"),
        ("2", "valid"),
    ]
    put(tmp_path, "val.token", "2.jpg#0\tb\n1.jpg#0\tb\n")
    with pytest.raises(DataError, match=r"image 1 is in .*val\.token and in .*train\.jsonl; it may be in one of them"):
        list(read_sources(sources, CaptionOptions()))


# Names of Conceptual Captions' images

URLS = [line.split("\t")[1] for line in CC.splitlines()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.json", json.dumps({URLS[0]: 11, URLS[1]: "00/000000012.jpg", URLS[2]: None})),
        ("map.tsv", f"{URLS[0]}\t11\n{URLS[1]}\t00/000000012.jpg\n{URLS[2]}\t\n"),
        # VL-BERT's list for the download
        ("train4download.txt", f'../train_image/00000011.jpg\t"{URLS[0]}"\n../train_image/00000012.jpg\t"{URLS[1]}"\n'),
        # a table of img2dataset's
        ("map.tsv", f"key\tstatus\turl\n11\tsuccess\t{URLS[0]}\n12\tsuccess\t{URLS[1]}\n\tfailed\t{URLS[2]}\n"),
        # reports of DownloadConceptualCaptions: with and without headers of the response, and older ones
        ("r.tsv", f"training/11\ttraining\t{{'a': 'http://x'}}\timage/jpeg\t9.0\t200\t{URLS[0]}\n"
                  f"training/12\ttraining\t\timage/png\t8.0\t200\t{URLS[1]}\n\ttraining\t\t\t\t404\t{URLS[2]}\n"),
        ("r.tsv", f"training/11\ttraining\timage/jpeg\t9.0\t200\t{URLS[0]}\n"
                  f"training/12\ttraining\timage/png\t8.0\t200\t{URLS[1]}\n\ttraining\t\t\t404\t{URLS[2]}\n"),
        ("r.tsv", f"{URLS[0]}\ttraining\t200\timage/jpeg\t9.0\ttraining/11\t\"{{'a': \"\"\tb\"\"}}\"\n"
                  f"{URLS[1]}\ttraining\t200\timage/jpeg\t9.0\ttraining/12\t\n{URLS[2]}\ttraining\t404\t\t\t\t\n"),
        ("r.tsv", f"a cat\t{URLS[0]}\ttraining\t200\ttraining/11\n"
                  f"\"\"\"a\"\" dog\"\t{URLS[1]}\ttraining\t200\ttraining/12\n"
                  f"a bus\t{URLS[2]}\ttraining\t408\t\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("windows", [False, True])
def test_maps_of_urls(tmp_path: Path, name: str, content: str, windows: bool) -> None:
    path = put(tmp_path, name, "\ufeff" + content.replace("\n", "\r\n") if windows else content)
    if not windows and name.endswith("tsv"):
        path = put(tmp_path, f"{name}.gz", gzip.compress(path.read_bytes()))
    names = UrlMap([path])
    assert len(names) == 2
    assert [names(url) for url in [*URLS, "http://elsewhere/"]] == ["11", "12", None, None]
    images = read(put(tmp_path, *SAMPLES["cc-tsv"]), image_id_of_url=names)
    # an image without a name goes under its URL, which no store has
    assert [image.image_id for image in images] == ["11", "12", URLS[2]]


def test_several_maps(tmp_path: Path) -> None:
    one = put(tmp_path, "1.tsv", f"{URLS[0]}\ta.jpg\n{URLS[1]}\tb.jpg\n")
    other = put(tmp_path, "2.json", json.dumps({URLS[1]: "c.jpg", URLS[2]: "d"}))
    names = UrlMap([one, other])
    assert [names(url) for url in URLS] == ["a", "b", "d"]  # of two names of a URL the first counts


@settings(max_examples=100)
@given(st.dictionaries(st.text(st.sampled_from("abc/é")), st.sampled_from(["1", "x", "köln", "a b"]), min_size=1))
def test_a_map_is_a_dictionary(entries: dict[str, str]) -> None:
    names = {f"http://{key}": name for key, name in entries.items()}
    with tempfile.TemporaryDirectory() as folder:
        url_map = UrlMap([put(Path(folder), "map.json", json.dumps(names))])
    assert {url: url_map(url) for url in names} == names
    assert url_map("http://abc/é/d") is None


def test_an_image_of_several_lines(tmp_path: Path) -> None:
    """One URL twice is one image with two captions; one id of two URLs is a chance hit, and neither image has it."""
    path = put(tmp_path, "train.tsv", "a\thttp://1\nb\thttp://2\nc\thttp://1\nd\thttp://3\ne\thttp://4\nf\thttp://5\n")
    names = {"http://1": "one", "http://2": "two", "http://3": "same", "http://4": "same"}
    assert read(path, image_id_of_url=names.get) == [
        CaptionedImage("two", "train", [Caption(1, "b")]),
        CaptionedImage("http://5", "train", [Caption(5, "f")]),
        CaptionedImage("one", "train", [Caption(0, "a"), Caption(2, "c")]),
        CaptionedImage("http://3", "train", [Caption(3, "d")]),
        CaptionedImage("http://4", "train", [Caption(4, "e")]),
    ]
    assert len(read(path)) == 6  # named by lines, they are different images


def test_two_urls_of_one_crc32(tmp_path: Path) -> None:
    urls = ["http://a.com/vjoggdno.jpg", "http://a.com/ofzwfsga.jpg"]
    assert {image_id_by_crc32(url) for url in urls} == {"687930373"}
    path = put(tmp_path, "train.tsv", "".join(f"a\t{url}\n" for url in urls))
    assert [image.image_id for image in read(path, image_id_of_url=image_id_by_crc32)] == urls


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "[]", r"m\.json is not a map: it must be a JSON object of URLs and image ids"),
        ("m.json", '{"a": 1}', r"m\.json: 'a' is not a URL"),
        ("m.json", '{"http://a": [1]}', r"'http://a': 'id' must be an image's id or file name, found \[1\]"),
        ("m.json", "{}", r"m\.json names no image"),
        ("m.tsv", "", r"m\.tsv names no image"),
        ("m.tsv", f"{URLS[0]}\t\n", r"m\.tsv names no image"),
        ("m.tsv", "url\tsize\n", r"line 1 has no URL, and is not a header with url and one of id, .*: 'url, size'"),
        ("m.tsv", f"a\tb\t{URLS[0]}\n", r"line 1: which of the 3 columns is the image id\?"),
        ("m.tsv", f"{URLS[1]}\t{URLS[0]}\n", r"line 1: which of the 2 columns is the image id\?"),
        ("m.tsv", f"{URLS[0]}\t1\n\n{URLS[1]}\t2\t3\n", r"line 3 has 3 columns, the first line has 2"),
        ("m.tsv", f"{URLS[0]}\t1\n5\t{URLS[1]}\n", r"line 2: '5' is not a URL, and column 1 must be"),
        ("m.tsv", f'{URLS[0]}\t1\n"{URLS[1]}\t2\n', r"line 2 is not tab-separated: "),
        ("m.tsv", b"\xff\n", r"m\.tsv is not UTF-8 text: line 1"),
    ],
)
def test_bad_maps(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        UrlMap([path])
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="none does not exist"):
        UrlMap([tmp_path / "none"])


# Bad records


def coco(**changes: Any) -> str:
    return json.dumps({**COCO, **changes})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco", "[]", r"has no lists 'images' and 'annotations'"),
        ("coco", '{"images": []}', r"has no lists 'images' and 'annotations'"),
        ("coco", coco(images=[{"id": 1}, {"id": 1}]), r"image 1 is listed twice"),
        ("coco", coco(images=[{"file_name": "a.jpg"}]), r"images\[0\] lacks 'id'"),
        ("coco", coco(images=[7]), r"images\[0\] lacks 'id'"),
        ("coco", coco(images=[{"id": True}]), r"images\[0\]: 'id' must be an image's id or file name, found True"),
        ("coco", coco(annotations=[{"caption": "a"}]), r"annotations\[0\] lacks 'image_id'"),
        ("coco", coco(annotations=[{"image_id": 8, "caption": "a"}]), r"annotations\[0\]: image 8 is not among"),
        ("coco", coco(annotations=[{"image_id": 57870, "bbox": []}]), r"annotations\[0\] lacks 'caption'"),
        ("coco", coco(annotations=[{"image_id": 57870, "caption": " \n"}]), r"annotations\[0\]: a caption must be"),
        ("coco", coco(annotations=[{"image_id": 57870, "caption": 5}]), r"a caption must be text, found 5"),
        ("coco", coco(annotations=[{"image_id": 57870, "caption": "a", "id": "x"}]), r"'id' must be a number, found"),
        ("flickr30k-token", "1.jpg#0\ta\n1.jpg 1\tb\n", r"line 2: '1\.jpg 1\\tb' is not IMAGE#NUMBER, a tab and"),
        ("flickr30k-token", "1.jpg#0 a\n", r"line 1: '1\.jpg#0 a' is not IMAGE#NUMBER"),
        ("flickr30k-token", "1.jpg#x\ta\n", r"line 1: .* is not IMAGE#NUMBER"),
        ("flickr30k-token", "1.jpg#0\ta\n\n1.jpg#0\tb\n", r"line 3: caption 0 of image 1 is listed twice"),
        ("flickr30k-token", "1.jpg#0\t \n", r"line 1: a caption must be text that is not blank, found ' '"),
        ("cc-tsv", "a\thttp://1\nb\n", r"line 2 has 1 columns: 'b'; it must have two.*made blank; lines are counted"),
        ("cc-tsv", "a\thttp://1\nb\tc\thttp://2\n", r"line 2 has 3 columns"),
        ("cc-tsv", "a\thttp://1\nb\tc\n", r"line 2: 'c' is not a URL, and the second column must be one"),
        ("cc-tsv", "http://1\ta\nb\thttp://2\n", r"line 2: 'b' is not a URL, and the first column must be one"),
        ("cc-tsv", " \thttp://1\n", r"line 1: the caption is blank"),
        ("jsonl", '{"image": 1, "caption": "a"}\n{"image": 2,\n', r"line 2 is not JSON"),
        ("jsonl", "[1]\n", r"line 1: '\[1\]' is not a JSON object"),
        ("jsonl", '\n{"caption": "a"}\n', r"line 2 lacks 'image'"),
        ("jsonl", '{"image": null, "caption": "a"}\n', r"line 1: 'image' must be .*, found None"),
        ("jsonl", '{"image": "", "caption": "a"}\n', r"line 1: 'image' must be .*, found ''"),
        ("jsonl", '{"image": "a\\nb", "caption": "a"}\n', r"line 1: 'image' must be .*, found 'a\\nb'"),
        ("jsonl", '{"image": 1}\n', r"line 1 must have either 'caption' or 'captions'"),
        ("jsonl", '{"image": 1, "caption": "a", "captions": []}\n', r"line 1 must have either"),
        ("jsonl", '{"image": 1, "captions": "a"}\n', r"line 1: 'captions' must be a list, found 'a'"),
        ("jsonl", '{"image": 1, "captions": ["a", ""]}\n', r"line 1: a caption must be text .*, found ''"),
        ("jsonl", '{"image": 1, "caption": "a", "split": 3}\n', r"line 1: 'split' must be a name, found 3"),
        ("jsonl", '{"image": 1, "caption": "a"}\n{"image": "1.jpg", "caption": "b", "split": "val"}\n',
         r"line 2: image 1 is of split 'valid', on the line before of ''"),
        ("jsonl", '{"image": 1, "caption": "a"}\n{"image": 2, "caption": "a"}\n{"image": 1, "caption": "b"}\n',
         r"image 1 is listed twice; each image may stand there once, with all its captions together"),
        ("jsonl", '{"image": 1, "caption": "a \\ud83d"}\n', r"a caption is not Unicode text: image 1, caption 0"),
        ("jsonl", '{"image": "\\ud83d", "caption": "a"}\n', r"line 1: 'image' must be"),
        ("jsonl", b'{"image": 1, "caption": "\xff"}\n', r"is not UTF-8 text: line 1, invalid start byte"),
        ("flickr30k-token", b"1.jpg#0\ta\n\n1.jpg#1\t\xff\n", r"is not UTF-8 text: line 3"),
    ],
)  # fmt: skip
def test_bad_records(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = put(tmp_path, "train.file", content)
    with pytest.raises(DataError, match=message) as caught:
        read(path, name)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(("make", "message"), [(None, "does not exist"), (Path.mkdir, "is not a file|does not exist")])
def test_what_is_no_file(tmp_path: Path, name: str, make: Callable[[Path], None] | None, message: str) -> None:
    path = tmp_path / "train.file"
    if make is not None:
        make(path)
    with pytest.raises(DataError, match=message):
        read(path, name)


def test_a_file_without_line_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.text_lines.LONGEST_LINE", 50)
    path = put(tmp_path, "train.tsv", f"a\thttp://1\n{'x' * 100}")
    with pytest.raises(DataError, match=r"train\.tsv: line 2 is longer than"):
        read(path, "cc-tsv")


def test_long_first_lines_are_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xgpt_fairseq.io.text_lines._HEAD_BYTES", 30)
    path = put(tmp_path, "train.tsv", f"a\thttp://1\n{'b' * 40}\n")
    assert detect(path) == "cc-tsv"  # the second line is cut off, and not judged
    monkeypatch.setattr("xgpt_fairseq.io.text_lines._HEAD_BYTES", 1000)
    assert find_format(CaptionFile(path)) is None
