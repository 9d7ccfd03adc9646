"""Which photo a caption is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.captions.base import Caption, CaptionedImage, Origin
from xgpt_fairseq.captions.pairing import PAIR_BY, Pairing
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.names import ImageNames
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., ImageNames]:
    """store(*ids, source=…, path=…, folders=…): the names of a region store of these images."""

    def make(
        *ids: str, source: str = "photos", path_given: str = ".", folders: dict[str, str] | None = None
    ) -> ImageNames:
        path = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        with RegionWriter(path, 2, source={"format": source, "path": path_given}) as writer:
            for place, image_id in enumerate(ids):
                features, boxes = np.ones((1, 2), dtype=np.float32), np.array([[0, 0, 1, 1]], dtype=np.float32)
                folder = None if folders is None else folders.get(image_id, "")
                writer.add(image_id, features, boxes, position=place + 1, folder=folder)
            writer.finish()
        return RegionStore(path).names

    return make


def image(image_id: str, file_name: str | None = None, origin: Origin | None = None) -> CaptionedImage:
    return CaptionedImage(image_id, "train", [Caption(0, "a")], file_name, origin)


def found(store: ImageNames, *names: str, folder: str = "", split: str = "") -> list[str | None]:
    """The photos of names, in captions of *split* that lie in *folder*."""
    origin = Origin(Path(folder, "captions.csv"), folder, split) if folder else None
    return pairs(Pairing(store), [image(canonical_image_id(name), name, origin) for name in names])


def pairs(pairing: Pairing, images: list[CaptionedImage]) -> list[str | None]:
    pairing.choose(images)
    found = [pairing.find(each) for each in images]
    return [None if index is None else pairing.names.image_id(index) for index in found]


def test_by_the_file_though_ids_fit_other_photos(store: Callable[..., ImageNames]) -> None:
    """As annotation tools export COCO's layout: every photo would get another photo's captions."""
    images = [image(str(n), f"{5 - n}.jpg") for n in range(1, 5)]
    pairing = Pairing(store("1", "2", "3", "4"))
    assert pairs(pairing, images) == ["4", "3", "2", "1"]
    assert (pairing.by_file, pairing.by_id) == (4, 0)


def test_a_file_that_is_not_there_is_not_sought_by_its_id(store: Callable[..., ImageNames]) -> None:
    images = [image(str(n), f"{5 - n}.jpg") for n in range(1, 5)]
    assert pairs(Pairing(store("1", "2", "3")), images) == [None, "3", "2", "1"]


def test_by_the_id_where_no_file_fits(store: Callable[..., ImageNames]) -> None:
    images = [image(str(n), f"VizWiz_train_{n:08d}.jpg") for n in range(3)]
    pairing = Pairing(store("0", "1", "2", source="butd-tsv"))
    assert pairs(pairing, images) == ["0", "1", "2"]
    assert (pairing.by_file, pairing.by_id) == (0, 3)


def test_of_an_archive_whose_images_both_names_fit_the_user_must_say_which(store: Callable[..., ImageNames]) -> None:
    images = [image("1", "2.jpg"), image("2", "1.jpg")]
    archive = store("1", "2", source="npz-dir")
    with pytest.raises(DataError, match=r"image 1 \(2.jpg\) is 1 of .* by its id, and 2 by its file's name.*--pair-by"):
        pairs(Pairing(archive), images)
    assert pairs(Pairing(archive, "file"), images) == ["2", "1"]
    assert pairs(Pairing(archive, "id"), images) == ["1", "2"]


def test_folders_tell_photos_of_one_name_apart(store: Callable[..., ImageNames]) -> None:
    pairing = Pairing(store("a/1", "b/1", "2"))
    images = [image("b/1", "b/1.png"), image("photos/a/1", "photos/a/1.png"), image("c/2", "c/2.jpg")]
    assert pairs(pairing, images) == ["b/1", "a/1", "2"]
    with pytest.raises(DataError, match=r"image 1.jpg may be a/1 or b/1 of .*must name the folder"):
        pairing.find(image("1", "1.jpg"))


def test_the_end_of_a_url_is_no_name(store: Callable[..., ImageNames]) -> None:
    assert pairs(Pairing(store("7")), [image("http://a.com/7.jpg")]) == [None]


Store = Callable[..., ImageNames]


def test_a_photo_of_another_split_is_not_taken(store: Store) -> None:
    """`val/2.jpg` was not downloaded, so that `train/2.jpg` has its name alone."""
    ids, folders = ("train/1", "val/1", "2"), {"train/1": "train", "val/1": "val", "2": "train"}
    both = store(*ids, folders=folders)
    assert found(both, "val/1.jpg", "val/2.jpg", "train/2.jpg", "images/2.jpg") == ["val/1", None, "2", "2"]
    assert found(both, "data/train/2.jpg", "validation/2.jpg") == ["2", None]
    assert found(store(*ids), "val/2.jpg") == [
        None
    ]  # without folders: since photos lie in val, and it is not known of 2
    of_train = store("1", "2", path_given="data/train")
    assert found(of_train, "val/2.jpg", "data/train/2.jpg", "images/2.jpg", "val2017/2.jpg") == [None, "2", "2", "2"]
    assert found(store("1", "2", path_given="train/1.jpg … train/2.jpg"), "val/2.jpg", "train/1.jpg") == [None, "1"]
    assert found(store("1", path_given="images"), "val/1.jpg") == ["1"]  # all splits in one folder
    assert found(store("1", path_given="val", source="npz-dir"), "train/1.jpg") == ["1"]


def test_a_photo_of_another_folder_is_not_taken_where_photos_lie_in_the_one_that_is_named(store: Store) -> None:
    cats = store("1", "2", "3", folders={"1": "cats", "2": "dogs/small"})
    assert found(cats, "dogs/1.jpg", "cats/1.jpg", "birds/1.jpg", "old/cats/1.jpg") == [None, "1", "1", "1"]
    assert found(cats, "dogs/2.jpg", "small/2.jpg", "cats/images/1.jpg") == ["2", "2", "1"]
    assert found(cats, "dogs/3.jpg", "photos/3.jpg") == [None, "3"]  # 3 lies in what was extracted
    shards = store("1", "2", folders={"1": "0.tar", "2": "1.tar"}, path_given="0.tar … 1.tar")
    assert found(shards, "cc/0.tar/1.jpg", "cc/1.tar/1.jpg", "cc/7.tar/1.jpg") == ["1", None, None]


def test_a_photo_beside_folders_is_not_taken_for_one_of_a_folder_that_is_missing(store: Store) -> None:
    names = "a/1.jpg", "1.jpg", "images/1.jpg", "b/1.jpg"
    assert found(store("1", "a/1", path_given="photos/images"), *names) == ["a/1", "1", "1", None]


def test_names_without_folders_are_of_the_folder_of_their_captions(store: Store) -> None:
    shared = store("train/1", "val/1", "2", folders={"2": "train"})
    assert found(shared, "1.jpg", "2.jpg", folder="/data/train") == ["train/1", "2"]
    assert found(shared, "1.jpg", "2.jpg", folder="/data/val") == ["val/1", None]
    assert found(shared, "1.jpg", "2.jpg", folder="/data", split="train") == ["train/1", "2"]
    assert found(shared, "1.jpg", "2.jpg", folder="/data", split="valid") == ["val/1", None]
    assert found(shared, "val/1.jpg", folder="/data/train", split="train") == ["val/1"]
    deep = store("train/images/1", "val/images/1")
    assert found(deep, "images/1.jpg", folder="/data/val") == ["val/images/1"]
    with pytest.raises(DataError, match=r"image 1.jpg may be train/1 or val/1"):
        found(shared, "1.jpg", folder="/data", split="test")


def test_names_of_one_photo_alone_are_of_any_folder_and_split(store: Store) -> None:
    """Photos of `train`, split anew by lists in `val` and for `valid`."""
    alone = store("1", "2", folders={"1": "train", "2": "val"})
    assert found(alone, "1.jpg", folder="/data/val", split="valid") == ["1"]


def test_other_extensions_do_not_count_where_nothing_else_fits(store: Store) -> None:
    images = [image(str(n), f"{3 - n}.dcm") for n in range(1, 4)]
    assert pairs(Pairing(store("0", "1", "2")), images) == ["2", "1", "0"]
    images = [image("0", "a.v2"), image("a", "0.jpg")]
    assert pairs(Pairing(store("0", "a")), images) == [None, "0"]  # a.v2 is not a
    with pytest.raises(DataError, match=r"image 1 \(2.dcm\) is 1 of .* by its id, and 2 by its file's name"):
        pairs(Pairing(store("1", "2", source="npz-dir")), [image("1", "2.dcm")])
    assert pairs(Pairing(store("1", "2", source="npz-dir"), "file"), [image("1", "2.dcm")]) == ["2"]


def test_other_extensions_of_images_without_an_id(store: Store) -> None:
    images = [image("1.dcm", "1.dcm"), image("3.dcm", "3.dcm"), image("a/2.dcm", "a/2.dcm")]
    for by in PAIR_BY:
        assert pairs(Pairing(store("1", "2"), by), images) == ["1", None, "2"]
    assert pairs(Pairing(store("1", "2")), [*images, image("2", "2.jpg")]) == [None, None, None, "2"]
    # what fits by one name alone does not say by which of two others are found
    two = [image("7", "x-7.jpg"), image("1", "1.jpg")]
    assert pairs(Pairing(store("1", "7", source="vlp-h5")), two) == ["7", "1"]
    assert pairs(Pairing(store("1", "7")), [image("7", "7.dcm"), image("1", "1.jpg")]) == ["7", "1"]


def test_ids_in_place_of_files_that_do_not_fit(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """An annotation tool has put something in front of all names."""
    images = [image("11", "ab00-0.jpg"), image("10", "ab01-1.jpg")]
    photos = store("10", "11")
    assert pairs(Pairing(photos), images) == ["11", "10"]
    warning = capsys.readouterr().err
    assert "ab00-0.jpg, image 11 of the captions, is taken for the photo 11" in warning and "--pair-by id" in warning
    assert pairs(Pairing(photos, "id"), images) == pairs(Pairing(store("10", "11", source="vlp-h5")), images)
    assert capsys.readouterr().err == ""
