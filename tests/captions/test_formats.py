"""Every format of captions, in files of its real shape: what is read, how formats are told apart, what is refused."""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.thorough import examples
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.conceptual_captions import image_id_by_crc32
from xgpt_fairseq.captions.registry import FORMATS, find_format, open_source, read_captions
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
TABLE = (
    "image,caption\n"
    "1000268201_693b08cb0e.jpg,A child in a pink dress is climbing up a set of stairs in an entry way .\n"
    '1001773457_577c3a7d70.jpg,"A black dog, and a spotted dog"\n'
    "1000268201_693b08cb0e.jpg,A girl going into a wooden building .\n"
)
RECORDS = {
    "dataset_name": "textcaps",
    "data": [
        {"image_id": "c31e", "image_path": "train/c31e.jpg", "set_name": "train", "caption_str": "A sign says stop."}
    ],
}
NAMES = {"1.jpg": "A dog.", "b/2.jpg": ["One.", "Zwei Bären."], "3": {"caption": "Three."}}
CONVERSATIONS = [
    {"id": "1", "image": "coco/train2017/000000033471.jpg", "conversations": [
        {"from": "human", "value": "Describe the image concisely.\n<image>"}, {"from": "gpt", "value": "A bus."}]}
]  # fmt: skip
STUDIES = {
    "train": [{"id": "CXR2384", "report": "Lungs are clear .", "image_path": ["CXR2384/0.png", "CXR2384/1.png"],
               "split": "train"}],
    "val": [{"id": "CXR1", "report": "No change .", "image_path": ["CXR1/0.png"], "split": "val"}],
}  # fmt: skip
SAMPLES: dict[str, tuple[str, str]] = {
    "karpathy": ("dataset_coco.json", json.dumps(KARPATHY)),
    "coco": ("captions_train2014.json", json.dumps(COCO, ensure_ascii=False)),
    "flickr30k-token": ("results_20130124.token", FLICKR30K),
    "cc-tsv": ("Train_GCC-training.tsv", CC),
    "jsonl": ("captions.jsonl", JSONL),
    "table": ("captions.txt", TABLE),
    "json-records": ("TextCaps_0.1_train.json", json.dumps(RECORDS)),
    "json-names": ("captions.json", json.dumps(NAMES, ensure_ascii=False, indent=1)),
    "conversations": ("llava.json", json.dumps(CONVERSATIONS, indent=1)),
    "studies": ("annotation.json", json.dumps(STUDIES)),
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
        CaptionedImage(
            "57870", "train", [Caption(126, "A restaurant with wooden tables.\n")], "COCO_train2014_000000057870.jpg"
        ),
        CaptionedImage(
            "384029",
            "train",
            [
                Caption(48, "A very clean and well decorated empty bathroom"),
                Caption(52, "Ein „Bad“ – 浴室"),
                Caption(53, "Ein „Bad“ – 浴室"),
            ],
            "COCO_train2014_000000384029.jpg",
        ),
        CaptionedImage("222016", "train", [], "COCO_train2014_000000222016.jpg"),
    ]


@pytest.mark.parametrize("name", ["11", "11.dcm", "x.org/11.tiff"])
def test_what_coco_calls_a_file_name_is_one(tmp_path: Path, name: str) -> None:
    images = [{"id": 7, "file_name": name}]
    path = put(tmp_path, "train.json", json.dumps({"images": images, "annotations": []}))
    assert [image.file_name for image in read(path, "coco")] == [name]


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


def test_flickr8k_cn(tmp_path: Path) -> None:
    """A language between name and number, a blank in place of the tab."""
    lines = "a_1.jpg#zhc#0 一只棕色的狗 x#0 y\na_1.jpg#zhc#1\t两个孩子\nb.jpg#2 c\n"
    images = read(put(tmp_path, "flickr8kzhc.caption.txt", lines), unknown_split="all")
    assert images == [
        CaptionedImage("a_1", "all", [Caption(0, "一只棕色的狗 x#0 y"), Caption(1, "两个孩子")], "a_1.jpg"),
        CaptionedImage("b", "all", [Caption(2, "c")], "b.jpg"),
    ]


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


def test_entities_of_cc_are_characters(tmp_path: Path) -> None:
    path = put(tmp_path, "train.tsv", "salt &amp; pepper &#39;s AT&T\thttp://a/b?c=d&amp;e\n")
    names = {"http://a/b?c=d&amp;e": "1"}
    (image,) = read(path, image_id_of_url=names.get)
    assert image == CaptionedImage("1", "train", [Caption(0, "salt & pepper 's AT&T")])


def test_cc_images_named_by_crc32(tmp_path: Path) -> None:
    urls = [line.split("\t")[1] for line in CC.splitlines()]
    images = read(put(tmp_path, *SAMPLES["cc-tsv"]), image_id_of_url=image_id_by_crc32)
    assert [image.image_id for image in images] == [str(zlib.crc32(url.encode())) for url in urls]


def test_jsonl(tmp_path: Path) -> None:
    expected = [
        CaptionedImage("42", "train", [Caption(0, "A cat.")], "000000000042.jpg"),
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


@pytest.mark.parametrize("name", ["flickr30k-token", "cc-tsv", "jsonl", "table"])
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
    text = "a\u2028b\x0bc\x85d"  # white space, but no control characters
    path = put(tmp_path, "train.token", f"1.jpg#0\t{text}\n2.jpg#0\tb\n")
    assert read(path)[0].captions[0].text == text
    assert read(put(tmp_path, "train.tsv", f"{text}\thttp://a/b\n"))[0].captions[0].text == text


# Surrogates and control characters are refused, and entities become characters.
texts = st.builds(
    "{}a{}".format, *[st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="&"))] * 2
)
names = st.one_of(st.integers(0, 10**12), st.text(st.sampled_from("aZ09_-#. "), min_size=1)).filter(canonical_image_id)


@examples(30)
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


@pytest.mark.parametrize(("name", "first"), [("flickr30k-token", "# Flickr30k"), ("jsonl", "# comment")])
def test_a_line_of_another_form(tmp_path: Path, name: str, first: str) -> None:
    """Most lines tell the format, which names the odd one."""
    file, content = SAMPLES[name]
    path = put(tmp_path, file, f"{first}\n{content}")
    assert detect(path) == name
    with pytest.raises(DataError, match=r"line 1.*\(--skip-bad N leaves up to N out\)"):
        read(path, unknown_split="")
    plain = read(put(tmp_path, f"2{file}", content), unknown_split="")
    assert read(path, unknown_split="", log=ReadingLog(1)) == plain


@pytest.mark.parametrize("name", ["karpathy", "coco", "json-records", "json-names", "conversations", "studies"])
def test_json_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    content = SAMPLES[name][1]
    expected = read(put(tmp_path, "train.json", content), name)
    for file in ("TRAIN.JSON", "train.jsonl", "train.txt", "train"):
        for written in (content, json.dumps(json.loads(content), indent=1)):
            path = put(tmp_path, file, written)
            assert detect(path) == name
            assert read(path) == expected
    path = put(tmp_path, "train.json.gz", gzip.compress(content.encode()))
    assert detect(path) == name
    assert read(path) == expected


def test_all_formats_are_tested() -> None:
    assert {*SAMPLES, "folder", "tar", "parquet", "hf-datasets"} == FORMATS.keys()  # these have tests of their own


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("instances_val2014.json", '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}'),
        ("image_info_test2014.json", '{"images": [{"id": 1, "file_name": "COCO_test2014_000000000001.jpg"}]}'),
        ("boxes.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'),
        ("image_urls.json", '{"http://a/1.jpg": "1.jpg"}'),
        ("splits.json", '{"train": ["1.jpg", "2.jpg"], "val": ["3.jpg"]}'),
        ("names.json", '{"1": "1.jpg", "2": "2.jpg"}'),
        ("counts.json", '{"1.jpg": 5}'),
        ("talk.jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'),
        ("text.txt", "A line of text.\nAnother # 1.\n"),
        ("parallel.tsv", "a house\tein Haus\n"),
        ("links.tsv", "a\thttp://a/b\nb\tno link\n"),
        ("both.tsv", "http://a/a\thttp://a/b\n"),
        ("three.tsv", "a\thttp://a/b\t5\n"),
        ("header.tsv", "caption\turl\n"),
        ("numbers.txt", "Room #12 a cat\n"),
        ("boxes.jsonl", '{"image": 1, "boxes": []}\n'),
        ("empty.txt", ""),
        ("binary.bin", bytes(range(256))),
    ],
)
def test_what_is_no_caption_file(tmp_path: Path, name: str, content: str | bytes) -> None:
    path = put(tmp_path, name, content)
    assert find_format(CaptionFile(path)) is None
    with pytest.raises(DataError, match="not a caption file of a known format"):
        detect(path)
