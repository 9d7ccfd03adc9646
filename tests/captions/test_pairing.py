"""Which photo a caption is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xgpt_fairseq.captions.base import Caption, CaptionedImage
from xgpt_fairseq.captions.pairing import Pairing
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., RegionStore]:
    """store(*ids, source=…): a region store of these images."""

    def make(*ids: str, source: str = "photos") -> RegionStore:
        path = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        with RegionWriter(path, 2, source={"format": source}) as writer:
            for place, image_id in enumerate(ids):
                features, boxes = np.ones((1, 2), dtype=np.float32), np.array([[0, 0, 1, 1]], dtype=np.float32)
                writer.add(image_id, features, boxes, position=place + 1)
            writer.finish()
        return RegionStore(path)

    return make


def image(image_id: str, file_name: str | None = None) -> CaptionedImage:
    return CaptionedImage(image_id, "train", [Caption(0, "a")], file_name)


def pairs(pairing: Pairing, images: list[CaptionedImage]) -> list[str | None]:
    pairing.choose(images)
    found = [pairing.find(each) for each in images]
    return [None if index is None else pairing.store.image_id(index) for index in found]


def test_by_the_file_though_ids_fit_other_photos(store: Callable[..., RegionStore]) -> None:
    """As annotation tools export COCO's layout: every photo would get another photo's captions."""
    images = [image(str(n), f"{5 - n}.jpg") for n in range(1, 5)]
    pairing = Pairing(store("1", "2", "3", "4"))
    assert pairs(pairing, images) == ["4", "3", "2", "1"]
    assert (pairing.by_file, pairing.by_id) == (4, 0)


def test_a_file_that_is_not_there_is_not_sought_by_its_id(store: Callable[..., RegionStore]) -> None:
    images = [image(str(n), f"{5 - n}.jpg") for n in range(1, 5)]
    assert pairs(Pairing(store("1", "2", "3")), images) == [None, "3", "2", "1"]


def test_by_the_id_where_no_file_fits(store: Callable[..., RegionStore]) -> None:
    images = [image(str(n), f"VizWiz_train_{n:08d}.jpg") for n in range(3)]
    pairing = Pairing(store("0", "1", "2", source="butd-tsv"))
    assert pairs(pairing, images) == ["0", "1", "2"]
    assert (pairing.by_file, pairing.by_id) == (0, 3)


def test_of_an_archive_whose_images_both_names_fit_the_user_must_say_which(store: Callable[..., RegionStore]) -> None:
    images = [image("1", "2.jpg"), image("2", "1.jpg")]
    archive = store("1", "2", source="npz-dir")
    with pytest.raises(DataError, match=r"image 1 \(2.jpg\) is 1 of .* by its id, and 2 by its file's name.*--pair-by"):
        pairs(Pairing(archive), images)
    assert pairs(Pairing(archive, "file"), images) == ["2", "1"]
    assert pairs(Pairing(archive, "id"), images) == ["1", "2"]


def test_folders_tell_photos_of_one_name_apart(store: Callable[..., RegionStore]) -> None:
    pairing = Pairing(store("a/1", "b/1", "2"))
    images = [image("b/1", "b/1.png"), image("photos/a/1", "photos/a/1.png"), image("c/2", "c/2.jpg")]
    assert pairs(pairing, images) == ["b/1", "a/1", "2"]
    with pytest.raises(DataError, match=r"image 1.jpg may be a/1 or b/1 of .*must name the folder"):
        pairing.find(image("1", "1.jpg"))


def test_the_end_of_a_url_is_no_name(store: Callable[..., RegionStore]) -> None:
    assert pairs(Pairing(store("7")), [image("http://a.com/7.jpg")]) == [None]
