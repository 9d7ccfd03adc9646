"""`return_attention`: the words and weights of the product, and what it costs where it is not asked for: nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_hub_interface import draw
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.search.generator import SearchOptions as ProductOptions
from xgpt_fairseq.text import word_pieces
from xgpt_fairseq.vision.photo_extractor import Regions as ProductRegions
from xgpt_fairseq.word_attention import Heads as ProductHeads
from xgpt_runtime import Captioner, DataError, Heads
from xgpt_runtime.attention import words_of_pieces


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("chosen", [{}, {"layers": [2], "heads": [1, 4]}], ids=["mean", "chosen"])
def test_it_is_that_of_the_product(
    lite_folder: Path, tiny_bundle: Path, photos: list[Path], chosen: dict[str, list[int]]
) -> None:
    lite, product = Captioner(lite_folder), XGPTHubInterface.from_path(tiny_bundle)
    found = lite.caption(photos, beam=3, return_attention=True, heads=Heads(**chosen), batch_size=4)
    expected = product.caption(photos, beam=3, return_attention=True, heads=ProductHeads(**chosen))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.attention is not None and theirs.attention is not None and ours.text == theirs.text
        assert list(map(tuple, ours.attention.words)) == list(map(tuple, theirs.attention.words))
        assert np.array_equal(ours.attention.boxes, theirs.attention.boxes)
        # features may differ by the last bit of float16
        np.testing.assert_allclose(ours.attention.weights, theirs.attention.weights, atol=1e-4)
    assert found == lite.caption(photos, beam=3, return_scores=True)


def test_regions_of_several_numbers(lite_folder: Path, tiny_bundle: Path) -> None:
    from xgpt_runtime.captioner import Regions

    random = np.random.default_rng(0)
    images = []
    for count in (5, 1, 40):
        boxes = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        images.append((random.random((count, 1280)).astype(np.float16), boxes))
    found = Captioner(lite_folder).candidates([Regions(*image) for image in images], attention=Heads())
    product = XGPTHubInterface.from_path(tiny_bundle)
    for (features, boxes), ours in zip(images, found, strict=True):
        [alone] = product.candidates_of_regions([ProductRegions(features, boxes)], ProductOptions())
        looks = ours[0].attention
        assert looks is not None and ours[0].text == alone[0].text and ours[1].attention is None
        assert looks.weights.shape == (len(looks.words), len(boxes))
        np.testing.assert_allclose(looks.weights.sum(axis=1), 1, rtol=1e-5)


def test_what_is_not_there_is_said(lite_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    lite = Captioner(lite_folder)
    with pytest.raises(DataError, match="attention of layer 3: the model's are 1 to 2"):
        lite.caption(photos[0], return_attention=True, heads=Heads(layers=[3]))
    shutil.copytree(lite_folder, tmp_path / "earlier")
    (tmp_path / "earlier" / "look.onnx").unlink()
    earlier = Captioner(tmp_path / "earlier")  # captions without it, too
    assert earlier.caption(photos[0]) == lite.caption(photos[0])
    with pytest.raises(DataError, match=r"was exported without look\.onnx, which attention needs: export it again"):
        earlier.caption(photos[0], return_attention=True)


PIECES = ["a", "rid@@", "ing", "@@", "▁", "▁man", "一只", "猫", "'s", "&quot;", ".", "é", "</s", "ภา", "x y"]


@given(st.lists(st.sampled_from(PIECES)), st.booleans(), st.booleans())
def test_words_are_those_of_the_product(pieces: list[str], moses: bool, spaced: bool) -> None:
    text = (" " if spaced else "").join(pieces).replace("@@", "").replace("▁", " ").strip()
    expected = word_pieces.words_of_pieces(pieces, text, "subword_nmt" if moses else "sentencepiece")
    assert list(map(tuple, words_of_pieces(pieces, text, moses=moses))) == list(map(tuple, expected))
