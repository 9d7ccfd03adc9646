"""Names of Conceptual Captions' images: maps of URLs, and CRC32."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.captions.test_formats import CC, SAMPLES, detect, put, read
from tests.thorough import examples
from xgpt_fairseq.captions.base import Caption, CaptionedImage, CaptionFile, ReadingLog
from xgpt_fairseq.captions.conceptual_captions import UrlMap, check_lines, image_id_by_crc32
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.names import ImageNames

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


@examples(30)
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


@pytest.mark.parametrize("bad", ["broken", "a\tb\thttp://x.org/9.jpg", "neither\tof both"])
@pytest.mark.parametrize("image_ids", [None, image_id_by_crc32])
def test_bad_lines(tmp_path: Path, bad: str, image_ids: Any) -> None:
    """Most lines tell the format; bad ones count, since the numbers of lines name photos."""
    lines = [f"caption {n}\thttp://x.org/{n}.jpg" for n in range(3)]
    path = put(tmp_path, "train.tsv", "\n".join([bad, lines[0], bad, *lines[1:]]))
    assert detect(path) == "cc-tsv"
    with pytest.raises(DataError, match=r"train\.tsv: line 1.*\(--skip-bad N leaves up to N out\)"):
        read(path, image_id_of_url=image_ids)
    with pytest.raises(DataError, match=r"line 3.*more than --skip-bad 1 allows"):
        read(path, image_id_of_url=image_ids, log=ReadingLog(1))
    log = ReadingLog(2)
    images = read(path, image_id_of_url=image_ids, log=log)
    assert [image.captions for image in images] == [[Caption(n, f"caption {m}")] for m, n in enumerate((1, 3, 4))]
    assert len(log.bad) == 2


def test_photos_that_are_named_by_their_urls_and_lines_of_other_numbers(tmp_path: Path) -> None:
    """By its line, each photo would get the caption of another."""

    def check(*urls: str, photos: int = 3) -> None:
        lines = "".join(f"a photo of {url}\thttp://x.org/{url}\n" for url in urls)
        path = put(tmp_path, "train.tsv", lines)
        check_lines(CaptionFile(path), ImageNames([str(n) for n in range(photos)], where="photos", extracted="photos"))

    message = r"train\.tsv: 'http://x\.org/2\.jpg' is line 0 \(from 0\), and photos has a photo of either name, 2 and 0"
    with pytest.raises(DataError, match=message + ": type --image-ids line if it is the line's, or --image-ids MAP"):
        check("2.jpg", "0.jpg", "1.jpg")
    check("0.jpg", "1.jpg", "2.jpg?width=3")
    check("52.jpg", "50.jpg", "51.jpg")
    check("2.jpg", "IMG_3422.JPG", "no photo at all")  # one of three, by chance


def test_that_lines_are_meant_may_be_typed(call_program: Callable[..., Any], tmp_path: Path) -> None:
    path = put(tmp_path, "train.tsv", "".join(f"photo {n}\thttp://x.org/{n}.jpg\n" for n in (2, 0, 1)))
    for n in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{n}.jpg")
    command = [path, "--splits", "train", "--check-photos", *tmp_path.glob("*.jpg")]
    assert "has a photo of either name, 2 and 0" in call_program(prepare_captions.main, *command).error
    done = call_program(prepare_captions.main, *command, "--image-ids", "line")
    assert done.status == 0 and "captions found their photos: 3 by id" in done.stdout
