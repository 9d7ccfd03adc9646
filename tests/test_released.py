"""The captioner that comes with the package: whole, small, and it captions photos."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xgpt_fairseq.bundle import CARD, DESCRIPTION, RELEASED, Bundle
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.cli import caption
from xgpt_fairseq.metrics.scores import score_captions
from xgpt_fairseq.models.xgpt import XGPTModel

MEGABYTES = 16


def test_it_is_small_and_says_no_place_of_a_machine() -> None:
    assert sum(file.stat().st_size for file in RELEASED.iterdir()) <= MEGABYTES * 1e6
    for file in (DESCRIPTION, CARD, "vocabulary.json"):
        text = (RELEASED / file).read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|work|Users|mnt)/", text), file


def test_it_is_what_its_card_says(call_program: Callable[..., Any]) -> None:
    about = call_program(caption.main, "--about")
    assert about.status == 0, about.stderr
    photos = r"^photos +efficientnet-lite0 at \d+ pixels \(squares\), a grid of \d x \d$"
    assert re.search(photos, about.stdout, re.MULTILINE)
    for words in ("## Data and terms", "CC BY 4.0", "## What it cannot do", "## Scores", "95 % interval"):
        assert words in about.stdout
    bundle = Bundle.read(RELEASED)
    assert bundle.training["images"] == 11_000 and bundle.novelty is not None


@pytest.fixture(scope="module")
def photos(coco5k: Path) -> dict[str, list[str]]:
    """COCO's photos that it was not trained on, and people's captions of them."""
    images = json.loads((coco5k / "dataset_coco5k.json").read_text(encoding="utf-8"))["images"]
    return {
        str(coco5k / "images" / image["filename"]): [sentence["raw"] for sentence in image["sentences"]]
        for image in images
        if image["split"] == "val"
    }


def test_photos_have_captions_as_good_as_the_card_says(photos: dict[str, list[str]]) -> None:
    few = dict(list(photos.items())[:60])
    captions = XGPTModel.from_pretrained().caption(list(few), beam=2)
    references = References(Path("photos"), few)
    scores = score_captions(dict(zip(few, captions, strict=True)), references, ["cider"])
    assert scores.corpus["CIDEr"] > 0.5  # a random training caption has 0.05, the nearest photo's 0.39
    assert len(set(captions)) > 40
