"""Photos in files of all kinds on the page of `xgpt-export --html`, in a browser: captions beside the runtime's.

Needs onnxruntime-web, as `test_standalone_page.py` says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.odd_photos import ALL, CMYK, PLAIN, SEE_THROUGH, TURNED
from tests.pages.browser import opened
from tests.pages.decoding import decoded, make_decoding
from tests.test_hub_interface import draw
from xgpt_fairseq.cli import export

SAME = {*PLAIN, *SEE_THROUGH, *CMYK, *TURNED}  # pixels as Pillow's: see test_anywhere_decoding.py


@pytest.fixture(scope="module")
def page(lite_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not os.environ.get("XGPT_ORT_WEB"):
        pytest.skip("XGPT_ORT_WEB does not name the archive of npm's package onnxruntime-web")
    path = tmp_path_factory.mktemp("page") / "captioner.html"
    export.main([str(lite_folder), "--html", str(path), "--ort-web", os.environ["XGPT_ORT_WEB"]])
    with opened() as tab:
        tab.goto(path.as_uri())
        yield tab


def test_captions_are_those_of_the_runtime(page: Any, lite_folder: Path, tmp_path: Path) -> None:
    """From the pixels that the browser decodes, of all kinds; from the files, where the pixels are the same."""
    import dataclasses

    from xgpt_runtime import Captioner
    from xgpt_runtime.photos import Photo

    lite = Captioner(lite_folder)
    form = lite._form
    assert form is not None
    pictures = [Image.open(path).convert("RGB") for path in draw(tmp_path)]
    files = {}
    for number, (kind, make) in enumerate(ALL.items()):
        files[kind] = tmp_path / kind
        files[kind].write_bytes(make(pictures[number % len(pictures)]))
    page.set_input_files("#photos", list(map(str, files.values())))
    for card in page.locator("article").all():
        card.and_(page.locator("[aria-busy=false]")).wait_for(timeout=240_000)
    found = {
        card.locator("h2").inner_text(): card.locator(".caption").inner_text() for card in page.locator("article").all()
    }
    assert found.keys() == files.keys() and len(set(found.values())) > 4
    decoding = page.context.new_page()
    make_decoding(decoding)
    for kind, file in files.items():
        seen = decoded(decoding, file.read_bytes(), dataclasses.asdict(form))
        assert not seen.error, kind
        [[best, *_]] = lite.candidates([lite.regions(Photo(seen.pixels, seen.size))])
        assert found[kind] == best.text, kind
        if kind in SAME:
            assert [found[kind]] == lite.caption(file), kind
