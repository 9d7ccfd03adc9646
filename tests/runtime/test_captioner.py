"""`Captioner`: captions, scores and n-best lists of the product, from files and from images; what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.test_hub_interface import draw
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.search.generator import SearchOptions as ProductOptions
from xgpt_fairseq.vision.photo_extractor import Regions as ProductRegions
from xgpt_runtime import Captioner, DataError, PhotoError, SearchOptions, captioner
from xgpt_runtime.captioner import Regions
from xgpt_runtime.novelty import Novelty


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def lite(lite_folder: Path) -> Captioner:
    return Captioner(lite_folder)


@pytest.fixture(scope="module")
def product(tiny_bundle: Path) -> XGPTHubInterface:
    return XGPTHubInterface.from_path(tiny_bundle)


def test_photos_have_the_captions_and_scores_of_the_product(
    lite: Captioner, product: XGPTHubInterface, photos: list[Path]
) -> None:
    assert lite.caption(photos[0]) == product.caption(photos[0])
    assert lite.caption([str(photos[1]), photos[2]], batch_size=1) == product.caption(photos[1:3])
    found = lite.caption(photos, beam=4, return_scores=True)
    expected = product.caption(photos, beam=4, return_scores=True)
    assert [(each.text, each.tokens) for each in found] == [(each.text, each.tokens) for each in expected]
    np.testing.assert_allclose([each.score for each in found], [each.score for each in expected], atol=2e-4)
    assert len({each.text for each in found}) > 4
    images = [Image.open(photo) for photo in photos]
    assert lite.caption(images, beam=4) == [each.text for each in found]
    assert lite.caption([]) == []


def test_the_features_are_those_of_the_product(lite: Captioner, product: XGPTHubInterface, photos: list[Path]) -> None:
    """To the last bits of half precision: convolutions add in another order."""
    for photo in photos:
        found = lite.regions(lite.load(photo))
        [expected] = product.extractor.extract([product.extractor.load(photo)])
        assert np.array_equal(found.boxes, expected.boxes) and found.features.dtype == np.float16
        np.testing.assert_allclose(found.features.astype(float), expected.features.astype(float), rtol=2e-3, atol=1e-3)
        assert (found.features != expected.features).mean() < 0.02


def regions_of_any_number(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and boxes of four images."""
    random = np.random.default_rng(seed)
    images = []
    for count in (5, 1, 40, 5):
        boxes = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        images.append((random.random((count, 1280)).astype(np.float16), boxes))
    return images


@pytest.mark.parametrize(
    "options", [{"no_repeat_ngram_size": 3}, {"no_early_stop": True}, {"no_early_stop": True, "lenpen": 2.0}], ids=str
)
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_regions_of_any_number_have_the_n_best_lists_of_the_product(
    lite: Captioner, product: XGPTHubInterface, beam: int, options: dict[str, Any]
) -> None:
    images, options = regions_of_any_number(beam), {"beam": beam, "max_len_b": 60, **options}
    found = lite.candidates([Regions(*image) for image in images], SearchOptions(**options))
    expected = product.candidates_of_regions([ProductRegions(*i) for i in images], ProductOptions(**options))
    assert [[each.text for each in of] for of in found] == [[each.text for each in of] for of in expected]
    scores = [[each.score for of in lists for each in of] for lists in (found, expected)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    assert lite.candidates([]) == []


def test_searches_without_early_stop_find_other_lists(lite: Captioner) -> None:
    """So that the comparison above is one of them."""
    images = [Regions(*image) for image in regions_of_any_number(2)]
    early = SearchOptions(lenpen=2.0, max_len_b=60)
    assert lite.candidates(images, early) != lite.candidates(images, dataclasses.replace(early, no_early_stop=True))


def test_distances_are_those_of_the_product(lite: Captioner, product: XGPTHubInterface, photos: list[Path]) -> None:
    found = [each.novelty for each in lite.caption_loaded((None, lite.load(photo), None) for photo in photos)]
    loaded = ((None, product.extractor.load(photo), None) for photo in photos)
    np.testing.assert_allclose(found, [each.novelty for each in product.caption_loaded(loaded)], rtol=1e-3)


def test_what_cannot_be_captioned_is_said(lite: Captioner, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"gone.jpg: no such file"):
        lite.caption(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="boxes are given to a captioner that takes the cells of a grid"):
        lite.caption(photos[0], boxes=[np.zeros((1, 4))])
    with pytest.raises(DataError, match=r"features of shape 3 x 7; the model takes n x 1280 \(regions of photos"):
        lite.candidates([Regions(np.zeros((3, 7)), np.zeros((3, 4)))])
    with pytest.raises(DataError, match="the beam size is 0"):
        lite.caption(photos[0], beam=0)


def test_what_is_wrong_with_a_folder_is_said(
    lite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"is not a captioner of xgpt-export --onnx: it has no captioner.json"):
        Captioner(tmp_path)
    monkeypatch.setattr(captioner, "RELEASED", tmp_path / "none")
    with pytest.raises(DataError, match=r"no captioner comes with this build .* `make runtime` in a checkout"):
        Captioner()
    damaged = tmp_path / "damaged"
    shutil.copytree(lite_folder, damaged)
    (damaged / "weights.bin").write_bytes((damaged / "weights.bin").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"\.onnx can't be opened; export the captioner again: "):
        Captioner(damaged)
    described = json.loads((damaged / "captioner.json").read_text())
    (damaged / "captioner.json").write_text(json.dumps({**described, "layers": "two"}))
    with pytest.raises(DataError, match=r"captioner.json is damaged: layers is 'two'"):
        Captioner(damaged)
    for photos, said in (({}, "'grid'"), ({"grid": 3, "image_size": 64}, "stride")):
        (damaged / "captioner.json").write_text(json.dumps({**described, "photos": photos}))
        with pytest.raises(DataError, match=rf"captioner.json is damaged: photos: .*{said}"):
            Captioner(damaged)


@pytest.mark.parametrize("content", [b"", b"no arrays", b"PK\x03\x04", None])
def test_damaged_distances(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "novelty.npz"
    if content is None:
        np.savez(file, mean=np.zeros(3), directions=np.zeros((2, 4)), limits=np.ones(3))
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"novelty\.npz is damaged: "):
        Novelty(file)
