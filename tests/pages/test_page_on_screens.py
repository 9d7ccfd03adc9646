"""The page of captions on screens of two widths, in light and dark, on paper, and with thousands of images."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browsers import COLOURS, contrast, luminance
from tests.pages import page_world
from tests.pages.page_world import CUT_OFF, Page, card, eventually, expect
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, match_photos, render_gallery

browser, files, open_page = page_world.browser, page_world.files, page_world.open_page  # fixtures


@pytest.mark.parametrize("view", ["list", "grid"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_legible(open_page: Callable[..., Page], view: str, width: int, scheme: str) -> None:
    page = open_page(f"#view={view}&only=differ", width=width, color_scheme=scheme)
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF, width) == []
    if view == "list":
        card(page, "2").locator(".caption.looks").focus()
    found = page.evaluate(COLOURS)
    assert len(found) > 30
    for text, ink, paper in found:
        assert contrast(ink, paper) >= 4.5, text
    background = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert background > 0.8 if scheme == "light" else background < 0.05


def test_on_paper(open_page: Callable[..., Page], tmp_path: Path) -> None:
    """All images that are shown, without the controls."""
    page = open_page()
    before = page.locator("article").count()
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible() and not page.locator("footer").is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert before < page.locator("article").count() == 130
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(page.locator("article")).not_to_have_count(130)
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") > 20


def test_photos_beside_the_page(browser: Any, files: Path) -> None:
    ours = References(Path("r.json"), {"5": ["A dog."], "6": ["A cat."]})
    scored = System("s", {"5": "a", "6": "b"}, Scores({"CIDEr": 1.0}, {i: {"CIDEr": 1.0} for i in "56"}, {}))
    photos = match_photos([files / "photos"], ["5", "6"], link_from=files)
    page_file = files / "linked.html"
    page_file.write_text(render_gallery(ours, [scored], ["5", "6"], title="t", photos=photos), encoding="utf-8")
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    expect(page.locator("img").nth(1)).to_have_js_property("naturalWidth", 40)
    assert sorted(asked[1:]) == [(files / "photos" / f"{n}.png").as_uri() for n in (5, 6)]
    page.close()


def test_five_thousand_images(browser: Any, tmp_path: Path) -> None:
    """They open, are sorted and searched without a card for each: times and memory are in tests/benchmarks."""
    source = "data:image/jpeg;base64," + base64.b64encode(b"x" * 9000).decode()
    people = {str(number): [f"A dog number {number}."] for number in range(5000)}
    scores = {i: {"CIDEr": int(i) % 77 / 10} for i in people}
    ours = References(Path("r.json"), people)
    scored = System("s", {i: f"a dog {i}" for i in people}, Scores({"CIDEr": 1.0}, scores, {}))
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    photos = match_photos([tmp_path], ["0"])
    photos = type(photos)(dict.fromkeys(people, photos.files["0"]))
    html = render_gallery(ours, [scored], ours.image_ids, title="t", photos=photos)
    assert html.count('"src":"data:') == 5000
    (tmp_path / "page.html").write_text(re.sub(r'"src":"data:[^"]+"', f'"src":"{source}"', html), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator("#count")).to_have_text("5000 images")
    assert page.evaluate("document.querySelectorAll('*').length") < 8000
    page.get_by_label("order").select_option("best first")
    eventually(page, ["76", "153", "…"])
    page.get_by_label("find").fill("number 4999")
    eventually(page, ["4999"])
    page.close()
