"""Photos in a gallery: in the page or beside it, turned, missing, damaged."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from tests.pages import test_gallery
from tests.pages.parsed import is_harmless, page_data, page_details, parsed
from tests.pages.test_gallery import THREE, draw, photo, references
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, match_photos, render_gallery
from xgpt_fairseq.pages.pictures import PhotoPlace
from xgpt_fairseq.regions.store import RegionStore

regions, write_regions = test_gallery.regions, test_gallery.write_regions  # fixtures


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))


def test_photos_are_in_the_page(tmp_path: Path, regions: RegionStore) -> None:
    photo(tmp_path / "COCO_val2014_000000000042.jpg", (1000, 500))
    photo(tmp_path / "000000000007.PNG", (30, 90))
    (tmp_path / "42.txt").touch()
    photos = match_photos([tmp_path], THREE.image_ids)
    assert {image_id: file.name for image_id, file in photos.files.items()} == {
        "42": "COCO_val2014_000000000042.jpg", "7": "000000000007.PNG",
    }  # fmt: skip
    page = draw(photos=photos, regions=regions)
    is_harmless(page)
    details = page_details(page)
    assert [details[image_id]["src"] is None for image_id in THREE.image_ids] == [False, False, True]
    assert ["boxes" in details[image_id] for image_id in THREE.image_ids] == [False, False, True]
    for card, size in zip(page_data(page)["cards"], ((320, 160), (107, 320)), strict=False):
        assert (card["width"], card["height"]) == size
        thumbnail = decoded(details[card["id"]]["src"])
        assert (thumbnail.format, thumbnail.size) == ("JPEG", size)
        assert thumbnail.getpixel((5, 5))[2] > 200 > 50 > thumbnail.getpixel((size[0] - 5, size[1] - 5))[2]


@pytest.mark.parametrize("name", ["a b#", "照" * 40])
def test_copies_of_another_size_beside_the_page(tmp_path: Path, name: str) -> None:
    photo(tmp_path / f"{name}.jpg", (1000, 500))
    ours = references({name: ["A dog."]})
    scored = System("s", {name: "a"}, Scores({"CIDEr": 1.0}, {name: {"CIDEr": 1.0}}, {}))
    copies = tmp_path / "page.photos"
    copies.mkdir()
    place = PhotoPlace(200, copy_to=copies, called=copies.name)
    photos = match_photos([tmp_path], [name], place=place)
    page = parsed(render_gallery(ours, [scored], [name], title="t", photos=photos))
    is_harmless(page, linked=True)
    source = page_details(page)[name]["src"]
    assert re.fullmatch(r"[\w./%-]+", source)
    with Image.open(tmp_path / unquote(source)) as copy:
        assert (copy.format, copy.size) == ("JPEG", (200, 100))


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    photo(tmp_path / "7.jpg", (640, 480), exif=turned)
    for link_from in (None, tmp_path):
        photos = match_photos([tmp_path], THREE.image_ids, link_from=link_from)
        [card] = page_data(draw(ids=["7"], photos=photos))["cards"]
        assert (card["width"], card["height"]) == (240, 320)
    embedded = page_details(draw(ids=["7"], photos=match_photos([tmp_path], ["7"])))["7"]["src"]
    assert decoded(embedded).getpixel((230, 5))[2] > 200  # the blue corner, now at the right


@pytest.mark.parametrize("linked", [False, True])
def test_tags_of_odd_types(tmp_path: Path, linked: bool) -> None:
    resolution = struct.pack(">HHI4s", 0x011A, 7, 4, b"300 ")  # bytes, not a fraction
    turned = struct.pack(">HHIHxx", 0x0112, 3, 1, 6)
    letter = struct.pack(">HHI4s", 0x0112, 2, 2, b"6")
    for name, entries in (("7.jpg", [turned, resolution]), ("42.jpg", [letter])):
        tags = struct.pack(">2sHIH", b"MM", 42, 8, len(entries)) + b"".join(entries) + bytes(4)
        photo(tmp_path / name, (640, 480), exif=b"Exif\0\0" + tags)
    photos = match_photos([tmp_path], THREE.image_ids, link_from=tmp_path if linked else None)
    cards = page_data(draw(ids=["7", "42"], photos=photos))["cards"]
    assert [(card["width"], card["height"]) for card in cards] == [(240, 320), (320, 240)]


def test_copies_are_what_captioners_see(tmp_path: Path) -> None:
    """Transparency is white; 16 bits are scaled."""
    Image.new("RGBA", (64, 48), (255, 0, 0, 0)).save(tmp_path / "7.png")
    Image.fromarray(np.full((48, 64), 128 * 257, np.uint16)).save(tmp_path / "42.png")
    details = page_details(draw(ids=["7", "42"], photos=match_photos([tmp_path], THREE.image_ids)))
    assert decoded(details["7"]["src"]).getpixel((9, 9)) == (255, 255, 255)
    assert decoded(details["42"]["src"]).getpixel((9, 9)) == pytest.approx((128, 128, 128), abs=2)


def test_regions_over_photos(tmp_path: Path, regions: RegionStore) -> None:
    photo(tmp_path / "7.jpg", (500, 1000))
    page = draw(photos=match_photos([tmp_path], ["7"]), regions=regions, overlay=True)
    details = page_details(page)["7"]
    assert details["src"] and len(details["boxes"]) == 12
    (switch,) = page.all("input", id="regions")
    assert switch.attributes["type"] == "checkbox"
    assert "body:has(#regions:not(:checked)) img ~ svg.regions { display: none; }" in page.all("style")[0].text
    assert not draw(ids=["42"], regions=regions, overlay=True).all("input", id="regions")  # nothing to switch


@pytest.mark.parametrize("name", ["7", "000000000007", "a b#c%20?d", "ünïcode", "file:x"])
def test_linked_photos(tmp_path: Path, name: str, write_regions: Callable[..., RegionStore]) -> None:
    folder = tmp_path / "pho tos"
    folder.mkdir()
    file = photo(folder / f"{name}.jpg")
    ours = references({name.lstrip("0"): ["A dog."]})
    (image_id,) = ours.image_ids
    scored = System("s", {image_id: "a"}, Scores({"CIDEr": 1.0}, {image_id: {"CIDEr": 1.0}}, {}))
    photos = match_photos([folder], [image_id], link_from=tmp_path / "out")
    page = parsed(render_gallery(ours, [scored], [image_id], title="t", photos=photos))
    is_harmless(page, linked=True)
    source = page_details(page)[image_id]["src"]
    assert re.fullmatch(r"[\w./%-]+", source)
    assert (tmp_path / "out" / unquote(source)).resolve() == file


def test_photos_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read: No such file"):
        match_photos([tmp_path / "nowhere"], ["7"])
    with pytest.raises(DataError, match=r"no photo of the 3 images, such as 42\.jpg"):
        match_photos([tmp_path], THREE.image_ids)
    photo(tmp_path / "7.jpg")
    photo(tmp_path / "COCO_val2014_000000000007.jpg")
    with pytest.raises(
        DataError, match=r"/7\.jpg and .*COCO_val2014_000000000007\.jpg may both be the photo of image 7"
    ):
        match_photos([tmp_path], THREE.image_ids)
    photos = match_photos([photo(tmp_path / "park.jpg").parent], ["park"])
    with pytest.raises(DataError, match="image 42: neither a photo nor a region store"):
        draw(photos=photos)
    with pytest.raises(DataError, match="image park: its regions are to be drawn, but there is no region store"):
        draw(ids=["park"], photos=photos, overlay=True)


@pytest.mark.parametrize("damage", [b"", b"not a photo", None])
@pytest.mark.parametrize("linked", [False, True])
def test_a_damaged_photo(tmp_path: Path, damage: bytes | None, linked: bool) -> None:
    whole = photo(tmp_path / "7.jpg").read_bytes()
    (tmp_path / "7.jpg").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    photos = match_photos([tmp_path], ["7"], link_from=tmp_path if linked else None)
    if linked and damage is None:  # only its beginning is looked at
        assert page_details(draw(ids=["7"], photos=photos))["7"]["src"]
        return
    with pytest.raises(DataError, match=r"7\.jpg: not a readable photo: "):
        draw(ids=["7"], photos=photos)


def test_photos_of_shared_names_and_in_tars(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        photo(tmp_path / folder / "1.jpg", (100, 50) if folder == "a" else (50, 100))
    photo(tmp_path / "7.png", (90, 90))
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        tar.add(tmp_path / "7.png", "x/park.png")
    photos = match_photos([tmp_path], ["a/1", "b/1", "7", "park"])
    ours = references({image_id: ["A dog."] for image_id in photos.files})
    scored = System(
        "s",
        dict.fromkeys(ours.captions, "a"),
        Scores({"CIDEr": 1.0}, {image_id: {"CIDEr": 1.0} for image_id in ours.captions}, {}),
    )
    page = parsed(render_gallery(ours, [scored], ours.image_ids, title="t", photos=photos))
    sizes = [decoded(details["src"]).size for details in page_details(page).values()]
    assert sizes == [(320, 160), (160, 320), (320, 320), (320, 320)]
    with pytest.raises(DataError, match=r"a/1\.jpg and .*b/1\.jpg may both be the photo of image 1"):
        match_photos([tmp_path / "a", tmp_path / "b"], ["1"])
    with pytest.raises(DataError, match=r"park\.png is in a tar: leave --link-photos out"):
        match_photos([tmp_path / "00000.tar"], ["park"], link_from=tmp_path)


def test_real_photos(coco_mini: Path, tmp_path: Path) -> None:
    images = json.loads((coco_mini / "dataset_coco_mini.json").read_text())["images"]
    captions = {str(i["cocoid"]): [s["raw"] for s in i["sentences"]] for i in images if i["split"] == "test"}
    ours = references(captions)
    photos = match_photos([coco_mini / "images"], ours.image_ids)
    shown = list(photos.files)[:8]
    assert len(shown) == 8
    first = System(
        "first",
        {i: c[0] for i, c in captions.items()},
        Scores({"CIDEr": 1.0}, {i: {"CIDEr": 1.0} for i in captions}, {}),
    )
    page = parsed(render_gallery(ours, [first], shown, title="t", photos=photos))
    is_harmless(page)
    sizes = {str(i["cocoid"]): (i["width"], i["height"]) for i in images}
    for image_id, details in page_details(page).items():
        width, height = decoded(details["src"]).size
        assert max(width, height) == 320
        assert width / height == pytest.approx(sizes[image_id][0] / sizes[image_id][1], rel=0.01)
        assert len(details["src"]) < 60_000
