"""Photos in files of all kinds: `XGPTModel` with torch and the runtime caption them alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.odd_photos import ALL, TURNED, turned
from tests.test_hub_interface import draw
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_runtime import Captioner


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Seven, all of which the captioner captions otherwise."""
    return [Image.open(path).convert("RGB") for path in draw(tmp_path_factory.mktemp("pictures"))]


@pytest.fixture(scope="module")
def product(tiny_bundle: Path) -> XGPTHubInterface:
    return XGPTHubInterface.from_path(tiny_bundle)


@pytest.fixture(scope="module")
def lite(lite_folder: Path) -> Captioner:
    return Captioner(lite_folder)


@pytest.mark.parametrize("kind", ALL)
def test_photos_of_all_kinds_have_the_captions_of_the_product(
    product: XGPTHubInterface, lite: Captioner, pictures: list[Image.Image], tmp_path: Path, kind: str
) -> None:
    files = []
    for number, picture in enumerate(pictures[:2] if kind == "12 megapixels" else pictures):
        files.append(tmp_path / f"{number}")
        files[-1].write_bytes(ALL[kind](picture))
    found = lite.caption(files, beam=4, return_scores=True)
    expected = product.caption(files, beam=4, return_scores=True)
    assert [each.text for each in found] == [each.text for each in expected]
    np.testing.assert_allclose([each.score for each in found], [each.score for each in expected], atol=2e-4)


def test_a_photo_that_is_turned_has_the_caption_of_one_that_is_not(
    lite: Captioner, pictures: list[Image.Image]
) -> None:
    """The same pixels, stored in eight ways; in PNG, so that nothing is lost."""
    undone = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    assert len(undone) + 1 == len(TURNED)
    upright = lite.caption(pictures)
    assert len(set(upright)) > 4
    for turn, how in undone.items():
        assert lite.caption([turned(each.transpose(how), turn, "PNG") for each in pictures]) == upright
        if turn > 2:  # a mirrored scene mostly has the same caption
            assert lite.caption([turned(each, turn, "PNG") for each in pictures]) != upright
