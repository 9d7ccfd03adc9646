"""Splits by a hash of the image's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.captions.base import CaptionedImage, CaptionOptions, ReadingLog, SplitLists
from xgpt_fairseq.captions.hold_out import hash_split, parse_hold_out
from xgpt_fairseq.captions.registry import read_captions
from xgpt_fairseq.errors import DataError

SHARES = {"valid": 0.1, "test": 0.2}


def test_the_splits_of_these_names_are_for_ever() -> None:
    splits = [hash_split(str(n), SHARES) for n in range(20)]
    assert [n for n, split in enumerate(splits) if split == "valid"] == [4, 10, 13, 17]
    assert [n for n, split in enumerate(splits) if split == "test"] == [8, 9]


@given(st.text(), st.permutations(list(SHARES.items())))
def test_the_order_of_the_shares_does_not_matter(key: str, shares: list[tuple[str, float]]) -> None:
    assert hash_split(key, dict(shares)) == hash_split(key, SHARES)


def test_shares_are_about_what_they_say() -> None:
    splits = [hash_split(f"photo {n}", SHARES) for n in range(10_000)]
    assert abs(splits.count("valid") - 1000) < 120 and abs(splits.count("test") - 2000) < 160


def test_every_source_of_a_photo_says_the_same() -> None:
    names = [("42", "COCO_val2014_000000000042.jpg"), ("7", "images/42.jpg"), ("42", None), ("a/b/0042", None)]
    assert {CaptionedImage(image_id, "", [], file).key for image_id, file in names} == {"42"}


def write(path: Path, *splits: str) -> Path:
    said = [f'"split": "{split}", ' if split else "" for split in splits]
    path.write_text("".join(f'{{{split}"image": {n}, "caption": "a"}}\n' for n, split in enumerate(said)))
    return path


def test_training_images_are_held_out(tmp_path: Path) -> None:
    options = CaptionOptions(hold_out=SHARES)
    expected = [hash_split(str(n), SHARES) for n in range(30)]
    for said in ("", "train"):
        path = write(tmp_path / "mine.jsonl", *[said] * 30)
        assert [image.split for image in read_captions(path, options=options)] == expected
    path = write(tmp_path / "train.jsonl", *[""] * 30)
    assert [image.split for image in read_captions(path, options=options)] == expected
    # what the source says stays
    path = write(tmp_path / "mine.jsonl", *["extra"] * 30)
    assert {image.split for image in read_captions(path, options=options)} == {"extra"}
    path = write(tmp_path / "mine.jsonl", "", "val")
    with pytest.raises(DataError, match="image 1 is of split 'valid' already, by its record: leave it out"):
        list(read_captions(path, options=options))


def test_photos_that_share_a_name_are_not_all_of_one_split(tmp_path: Path) -> None:
    """a/0.png, b/0.png, …: as in medical studies."""
    names = [f"study{n}/{view}.png" for n in range(40) for view in (0, 1)] + ["other/alone.png"]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f'{{"image": "images/{name}", "caption": "a"}}\n' for name in names))
    splits = [image.split for image in read_captions(path, options=CaptionOptions(hold_out=SHARES))]
    assert splits[:-1] == [hash_split(name[:-4], SHARES) for name in names[:-1]]
    assert set(splits[:-1:2]) == {"train", "valid", "test"}
    assert splits[-1] == hash_split("alone", SHARES)


def test_options() -> None:
    assert parse_hold_out("val=0.1, test=0.25") == {"valid": 0.1, "test": 0.25}
    assert parse_hold_out("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val", "expected SPLIT=SHARE"),
        ("val=x", "expected SPLIT=SHARE"),
        ("val=0", "a share is between 0 and 1"),
        ("val=1", "a share is between 0 and 1"),
        ("val=nan", "a share is between 0 and 1"),
        ("train=0.9", "name splits other than train, each once"),
        ("val=0.1,valid=0.1", "name splits other than train, each once"),
        ("=0.1", "name splits other than train"),
        ("val=0.5,test=0.5", "1 or more together"),
    ],
)
def test_what_is_no_share(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_hold_out(text)


def held_out(path: Path, *names: str) -> list[str]:
    path.parent.mkdir(exist_ok=True)
    path.write_text("image,caption\n" + "".join(f"{name},a\n" for name in names))
    return [image.split for image in read_captions(path, options=CaptionOptions(hold_out=SHARES))]


def test_the_last_folder_tells_photos_of_one_name_apart_in_every_source(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.jpg" for folder in "abc" for number in range(20)]
    splits = held_out(tmp_path / "c.csv", *names)
    assert splits == [hash_split(name[:-4], SHARES) for name in names]
    for root in ("images", "/data/me/images", "https://x.org"):
        assert held_out(tmp_path / "c.csv", *(f"{root}/{name}" for name in names)) == splits
    # and where it does not, the whole path does
    names = [f"{site}/{folder}/{number}.jpg" for site in "xy" for folder in "ab" for number in range(20)]
    assert held_out(tmp_path / "c.csv", *names) == [hash_split(name[:-4], SHARES) for name in names]


def test_folders_called_like_splits_are_told(tmp_path: Path) -> None:
    def counts(*names: str) -> list[str]:
        log = ReadingLog()
        path = tmp_path / "c.csv"
        path.write_text("image,caption\n" + "".join(f"{name},a\n" for name in names))
        list(read_captions(path, options=CaptionOptions(hold_out=SHARES, log=log)))
        return list(log.counts)

    [told] = counts("train/0.jpg", "x/val/1.jpg", "val/2.jpg")
    assert "called like a split (the first has x/val/1.jpg)" in told and "--split-files" in told
    assert counts("train/0.jpg", "train/1.jpg") == counts("val/0.jpg", "images/1.jpg") == []


def test_a_folder_alone_does_not_keep_a_source_from_being_held_out(tmp_path: Path) -> None:
    """A project that lies in a folder called test."""
    path = tmp_path / "test" / "captions.csv"
    path.parent.mkdir()
    path.write_text("image,caption\n" + "".join(f"{n}.jpg,a\n" for n in range(30)))
    for shares in (SHARES, {"valid": 0.3}):
        options = CaptionOptions(hold_out=shares, is_only_source=True)
        splits = [image.split for image in read_captions(path, options=options)]
        assert splits == [hash_split(str(n), shares) for n in range(30)]
    with pytest.raises(DataError, match=r"'test' already, by the name of the folder /.*/test \(train=.*: leave it out"):
        list(read_captions(path, options=CaptionOptions(hold_out=SHARES)))
    path = path.rename(path.parent.parent / "photos_test_1.csv")
    with pytest.raises(
        DataError, match=r"is of split 'test' already, by the name of the file \(train=.*csv in its place"
    ):
        list(read_captions(path, options=CaptionOptions(hold_out=SHARES, is_only_source=True)))
    for options, by in (
        (CaptionOptions(hold_out=SHARES, named_splits={path: "test"}), "SPLIT=FILE"),
        (CaptionOptions(hold_out=SHARES, split_lists=SplitLists([("0", "test")])), "--split-files"),
    ):
        with pytest.raises(DataError, match=f"already, by {by}: leave"):
            list(read_captions(path, options=options))


def test_names_that_are_no_unicode() -> None:
    assert {hash_split(f"\udcff{n}", SHARES) for n in range(50)} == {"train", *SHARES}
