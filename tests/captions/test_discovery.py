"""The captions of a folder of photos are found, in every layout that is known."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.captions.test_arrow import parquet
from tests.end_to_end.layouts import COUNT, LAYOUTS, Layout, make
from tests.tars import write_tar
from xgpt_fairseq.captions.base import CaptionOptions
from xgpt_fairseq.captions.discovery import MARK, discover
from xgpt_fairseq.captions.options import add_caption_options, read_caption_options
from xgpt_fairseq.captions.registry import open_source, read_sources
from xgpt_fairseq.errors import DataError

# Which columns mean what, only a person can say.
NOT_FOUND = {"own_csv"}
# Images of a test set alone.
NO_TRAINING = {"nocaps"}


def found_in(folder: Path) -> tuple[list[str], dict[str, Counter[str]]]:
    """The arguments, and split → its captions, of what they name."""
    arguments = discover(folder)
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    add_caption_options(parser, "the captions")
    args = parser.parse_args(arguments)
    held_out, args.hold_out = args.hold_out, ""
    sources = [open_source(Path(file)) for file in args.files]
    options = replace(read_caption_options(args, {}), unknown_split="all", is_only_source=len(sources) == 1)
    arguments = [] if not held_out else ["--hold-out", held_out]
    captions: dict[str, Counter[str]] = {}
    for image in read_sources(sources, options):
        texts = [" ".join(caption.text.split()) for caption in image.captions]
        captions.setdefault(image.split, Counter()).update(texts)
    return arguments, captions


@pytest.mark.parametrize(
    "layout",
    [layout for layout in LAYOUTS if layout.__name__ not in NOT_FOUND | NO_TRAINING],
    ids=lambda layout: layout.__name__,
)
def test_a_layout(layout: Callable[[Layout], None], tmp_path: Path) -> None:
    made = make(layout, tmp_path / "data")
    arguments, captions = found_in(made.folder)
    expected = {
        {"val": "valid"}.get(split, split): Counter(text for texts in photos.values() for text in texts)
        for split, photos in made.expected.items()
    }
    captions = {split: texts for split, texts in captions.items() if texts}
    if list(expected) == ["all"]:
        assert sum(captions.values(), Counter()) == expected["all"]
    else:
        assert captions == expected
    assert (arguments[:1] == ["--hold-out"]) == ("valid" not in captions)


def test_columns_of_ones_own_must_be_named(tmp_path: Path) -> None:
    own_csv = next(layout for layout in LAYOUTS if layout.__name__ == "own_csv")
    message = r"that can be read: .*captions\.csv: .*no column is named as one of images .*description, picture, part; "
    with pytest.raises(
        DataError, match=message + r'.*name it by CAPTIONS="captions\.csv --columns image=…,caption=…"$'
    ):
        discover(make(own_csv, tmp_path / "data").folder)


def test_files_that_are_not_one_data_set(tmp_path: Path) -> None:
    rows = "image,caption\n" + "".join(f"{number}.jpg,photo {number} shows a cat\n" for number in range(COUNT))
    for name in ("ann.csv", "bob.csv"):
        (tmp_path / name).write_text(rows)
    with pytest.raises(DataError, match=r"several files of captions: ann\.csv, bob\.csv; say which are to be read"):
        discover(tmp_path)
    (tmp_path / "ann.csv").rename(tmp_path / "train.csv")
    (tmp_path / "val").mkdir()
    (tmp_path / "bob.csv").rename(tmp_path / "val" / "captions.csv")
    assert discover(tmp_path) == [str(tmp_path / "train.csv"), str(tmp_path / "val" / "captions.csv")]
    (tmp_path / "val" / "captions.csv").rename(tmp_path / "training.csv")
    with pytest.raises(DataError, match=r"train\.csv, training\.csv; say which"):
        discover(tmp_path)


def test_no_folder_and_no_captions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing is not a folder"):
        discover(tmp_path / "nothing")
    (tmp_path / "names.txt").write_text("".join(f"{number}.jpg\n" for number in range(COUNT)))
    with pytest.raises(DataError, match="holds no captions of a known format"):
        discover(tmp_path)


ROWS = "image,caption\n" + "".join(f"{number}.jpg,photo {number} shows a cat\n" for number in range(COUNT))


def test_texts_of_other_kinds_do_not_hide_a_table(tmp_path: Path) -> None:
    for folder, suffix, text in (("images", "jpg", ""), ("ocr", "txt", "STOP"), ("boxes", "json", '{"x": 1}')):
        (tmp_path / folder).mkdir()
        for number in range(150):
            (tmp_path / folder / f"{number}.{suffix}").write_text(text)
    (tmp_path / "captions.csv").write_text(ROWS)
    assert discover(tmp_path) == [str(tmp_path / "captions.csv"), "--hold-out", "val=0.1"]


def test_what_programs_wrote_is_passed_over(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "captions.csv").write_text(ROWS)
    for place in ("out/captions", ".git"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("dict.txt", "dataset.json", "train.references.json"):
        (tmp_path / "out" / "captions" / name).write_bytes((tiny_data / name).read_bytes())
    (tmp_path / ".git" / "captions.csv").write_text(ROWS)
    (tmp_path / "latest").symlink_to(tmp_path)
    (tmp_path / "regions.unreadable.txt").write_text("1.jpg#0\tnot a photo\n" * 3)
    expected = [str(tmp_path / "captions.csv"), "--hold-out", "val=0.1"]
    assert discover(tmp_path) == expected
    (tmp_path / "work" / "each").mkdir(parents=True)
    (tmp_path / "work" / "each" / "captions.json").write_text(json.dumps([{"image": "1.jpg", "caption": "a cat"}] * 3))
    with pytest.raises(DataError, match="several files of captions"):
        discover(tmp_path)
    (tmp_path / "work" / MARK).write_text("")
    assert discover(tmp_path) == expected


def test_captions_of_validation_images_alone(tmp_path: Path) -> None:
    nocaps = next(layout for layout in LAYOUTS if layout.__name__ == "nocaps")
    with pytest.raises(DataError, match="has no captions of training images, only of valid"):
        discover(make(nocaps, tmp_path / "data").folder)
    (tmp_path / "test_captions.csv").write_text(ROWS)
    (tmp_path / "data" / "nocaps_val_4500_captions.json").unlink()
    with pytest.raises(DataError, match="only of test"):
        discover(tmp_path)


def test_lists_of_flickr8k_by_its_own_names(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text(ROWS)
    for number in range(COUNT):
        (tmp_path / f"{number}.jpg").touch()
    for split, numbers in (("train", range(6)), ("dev", range(6, 9)), ("test", range(9, 12))):
        names = "".join(f"{number}.jpg\n" for number in numbers)
        (tmp_path / f"Flickr_8k.{split}Images.txt").write_text(names)
    (tmp_path / "train_notes.txt").write_text("bought in June\n")
    lists = [
        f"{s}={tmp_path}/Flickr_8k.{n}Images.txt" for s, n in (("test", "test"), ("train", "train"), ("valid", "dev"))
    ]
    assert discover(tmp_path) == [str(tmp_path / "captions.csv"), "--split-files", *lists]


def test_of_few_photos_a_larger_share_is_held_out(tmp_path: Path) -> None:
    """By the hash of these names, a tenth is none, and a fifth is two."""
    rows = [f"IMG_{number:04d}.jpg,photo {number} shows a cat\n" for number in range(1, 13)]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(rows))
    assert discover(tmp_path) == [str(tmp_path / "captions.csv"), "--hold-out", "val=0.2"]
    (tmp_path / "captions.csv").write_text("image,caption\n" + rows[0])
    with pytest.raises(DataError, match="too few captioned photos: by the hash of their names"):
        discover(tmp_path)


def test_the_name_of_ones_own_folder_says_no_split(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "captions.csv").write_text(ROWS)
    assert discover(tmp_path / "test") == [f"train={tmp_path}/test/captions.csv", "--hold-out", "val=0.1"]
    texts = tmp_path / "test" / "Val Gardena 2019"
    texts.mkdir()
    for number in range(COUNT):
        (texts / f"{number}.jpg").touch()
        (texts / f"{number}.txt").write_text(f"photo {number} shows a cat\n")
    for name in ("Val Gardena 2019", "test"):
        texts = texts.rename(texts.parent / name)
        assert discover(texts) == [f"train={texts}", "--hold-out", "val=0.1"]
        said = open_source(texts), CaptionOptions(hold_out={"valid": 0.1}, is_only_source=True)
        assert Counter(image.split for image in read_sources([said[0]], said[1])) == {"train": COUNT - 1, "valid": 1}
    # but what the folder has in it says one
    (tmp_path / "test" / "captions.csv").rename(tmp_path / "test" / "test_captions.csv")
    with pytest.raises(DataError, match="only of test"):
        discover(tmp_path / "test")
    shutil.rmtree(texts)
    (tmp_path / "test" / "test_captions.csv").rename(tmp_path / "test" / "captions.csv")
    with pytest.raises(DataError, match="only of test"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "captions.csv",
            b"Photo;Description\n1.jpg;a cat\n2.jpg;a dog\n",
            "there are: Photo, Description; .*CAPTIONS=",
        ),
        ("captions.json", b'[{"image": "1.jpg", "caption": "a cat"},]', r"captions\.json is not JSON: "),
        ("captions.csv", ROWS.encode("utf-16"), "looks like UTF-16"),
        ("captions.xlsx", b"PK\x03\x04\xff\xfe", r"a zip archive, as spreadsheets in \.xlsx are"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_denied(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / "1.jpg").touch()
    (tmp_path / name).write_bytes(content)
    (tmp_path / "boxes.json").write_text('{"x": 1}')
    with pytest.raises(DataError, match=f"holds no captions that can be read: .*{reason}"):
        discover(tmp_path)


def test_what_phones_write_beside_each_photo_hides_no_table(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"IMG_{number:04d}.jpg").touch()
        (tmp_path / f"box_{number:04d}.json").write_text('{"x": 1}')
    with pytest.raises(DataError, match=r"neither .*\. Of its 150 files 100 were looked into; CAPTIONS= names another"):
        discover(tmp_path)
    for number in range(150):
        (tmp_path / f"IMG_{number:04d}.jpg.supplemental-metadata.json").write_text('{"title": "x"}')
    (tmp_path / "captions.csv").write_text(ROWS)
    assert discover(tmp_path) == [str(tmp_path / "captions.csv"), "--hold-out", "val=0.1"]


def test_shards_are_read_as_their_folder(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"x", "path": f"{n}.jpg"}, "text": f"photo {n}"} for n in range(COUNT)]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for shard in range(4):
        parquet(tmp_path / "hub" / "data" / f"train-{shard:05d}-of-00004.parquet", rows[shard::4])
    assert discover(tmp_path / "hub") == [str(tmp_path / "hub"), "--hold-out", "val=0.1"]
    folder = tmp_path / "laion"  # as img2dataset writes them
    folder.mkdir()
    for shard in range(2):
        members = {f"{n:09d}{suffix}": b"a cat" for n in range(shard * 6, shard * 6 + 6) for suffix in (".jpg", ".txt")}
        write_tar(folder / f"{shard:05d}.tar", members)
        parquet(folder / f"{shard:05d}.parquet", [{"url": "http://x.org", "caption": "a cat", "key": "1"}])
        (folder / f"{shard:05d}_stats.json").write_text('{"count": 6, "successes": 6}')
    assert discover(folder)[:2] == [str(folder), "--hold-out"]
