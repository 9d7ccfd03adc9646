"""A page of captions for tests in a browser, and what opens it and looks at it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browsers import browser  # noqa: F401  (a fixture)
from xgpt_fairseq.captions.references import References
from xgpt_fairseq.metrics.cider import NgramValue
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, match_photos, render_gallery
from xgpt_fairseq.pages.page import Credit
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.text.word_pieces import Word
from xgpt_fairseq.word_attention import WordAttention

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=30_000)  # beside other tests a page may wait
Page = Any

COUNT = 130
HOSTILE = '<img src=x onerror="document.title=1">&amp;<script>document.title=2</script>'
BOXES = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.25, 0.25, 0.75, 0.75]], dtype=np.float32)
WEIGHTS = np.array([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2], [0, 0, 1], [0.2, 0.3, 0.5]], dtype=np.float32)


# Elements that reach over the screen's edge, or hold more than is seen of them.
CUT_OFF = """(width) => {
  const holding = "td, .scores, .caption, h2, .controls *, .ngrams span";
  return Array.from(document.querySelectorAll(holding))
    .filter((e) => e.checkVisibility() && !e.matches(".unseen, option, input, select"))
    .filter((e) => {
      const box = e.getBoundingClientRect();
      return box.left < 0 || box.right > width + 0.5 || (e.clientWidth && e.scrollWidth > e.clientWidth + 1);
    }).map((e) => e.outerHTML.slice(0, 120));
}"""
OPACITY = "(all) => all.map((e) => e.getAttribute('fill-opacity'))"
FOCUSED = """() => {
  const active = document.activeElement;
  const style = getComputedStyle(active);
  const name = active.id || (active.tagName === "INPUT" && active.value) || active.className || active.tagName;
  return [name, style.outlineStyle, style.outlineWidth];
}"""
UNNAMED = """() => Array.from(document.querySelectorAll("input, select, button, img, svg[role], output"))
  .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.alt && !e.ariaLabel).map((e) => e.outerHTML)"""


def words_of(text: str) -> list[Word]:
    return [Word(m[0], m.start(), m.end(), n, n + 1) for n, m in enumerate(re.finditer(r"\w+", text))]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 130 images: image 2 is a cat with marks of all kinds, 3 has hostile text, 4 no photo."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "photos").mkdir()
    with RegionWriter(folder / "store", 2) as writer:
        for number in range(COUNT):
            name = f"photos/{number}.png"
            if number != 4:
                Image.new("RGB", (40, 30), (number, 100, 200)).save(folder / name)
            writer.add(str(number), np.zeros((3, 2)), BOXES, scores=np.array([0.9, 0.5, 0.25]),
                       labels=["dog", "ball", "grass"], size=(40, 30), position=number + 1)  # fmt: skip
        writer.finish()
    people = {str(n): [f"A dog number {n}.", "A dog plays."] for n in range(COUNT)}
    people["3"] = [HOSTILE]
    first = {str(n): f"a dog {n}" for n in range(COUNT)} | {"2": "a cat and a cat", "3": HOSTILE}
    second = {str(n): f"a dog {n}" for n in range(COUNT)} | {"2": "a cat and a ball", "3": "fine"}
    systems = []
    for name, captions, slope in (("base", first, 1), ("<b>big", second, -1)):
        per_image = {str(n): {"BLEU@4": 0.5, "CIDEr": 1 + slope * n / 1000} for n in range(COUNT)}
        corpus = {"BLEU@4": 0.5, "CIDEr": 1 + slope * (COUNT - 1) / 2000}
        looks = {}
        if name == "base":
            for image_id in ("0", "1", "2"):
                words = words_of(captions[image_id])
                looks[image_id] = WordAttention(words, np.resize(WEIGHTS, (len(words), 3)), BOXES)
        ngrams = {"2": [NgramValue(("a", "cat"), 0.5, 0.0), NgramValue(("cat", "and"), 0.0, 0.25)]}
        systems.append(System(name, captions, Scores(corpus, per_image, {}), attention=looks, ngrams=ngrams))
    references = References(Path("test.references.json"), people)
    photos = match_photos([folder / "photos"], references.image_ids)
    page = render_gallery(
        references, systems, references.image_ids, title=f"Dogs {HOSTILE}", photos=photos,
        regions=RegionStore(folder / "store"), overlay=True,
        credits={"0": Credit("photo by A", "https://a.example/0", "CC BY 2.0", "https://cc.example/by")},
    )  # fmt: skip
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture
def open_page(browser: Any, files: Path) -> Iterator[Callable[..., Page]]:  # noqa: F811
    """Opens the page; in the end, what it asked for and complained about is looked at."""
    opened = []

    def open_one(address: str = "", **options: Any) -> Page:
        context = browser.new_context(viewport={"width": options.pop("width", 1440), "height": 900}, **options)
        page = context.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((files / "page.html").as_uri() + address)
        page.locator("article").first.wait_for(state="attached")
        opened.append((context, page, asked, complaints))
        return page

    yield open_one
    for context, page, asked, complaints in opened:
        title = page.title()
        context.close()
        assert title == f"Dogs {HOSTILE}" and not complaints, complaints
        assert [url for url in asked if not url.startswith(("data:", "blob:"))][1:] == []


def ids(page: Page) -> list[str]:
    """What is shown, in its order; the first of it has cards."""
    shown: list[str] = page.evaluate("list.map((card) => card.id)")
    cards = page.locator("article").evaluate_all("(all) => all.map((one) => one.dataset.id)")
    assert cards == shown[: len(cards)] and len(cards) >= min(len(shown), 5)
    return shown


def eventually(page: Page, expected: list[str]) -> None:
    """Wait until the page shows these ids, or begins with them where the last is "…"; it draws when it has time."""
    until = time.monotonic() + 10
    while True:
        try:
            shown = ids(page)
        except AssertionError:  # not all of its cards are built
            shown = []
        found = [*shown[: len(expected) - 1], "…"] if expected[-1:] == ["…"] else shown
        if found == expected or time.monotonic() > until:
            assert found == expected
            return
        time.sleep(0.05)


def until(page: Page, expression: str) -> None:
    """Wait until *expression* is true in the page."""
    last = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < last, expression
        time.sleep(0.05)


def card(page: Page, image_id: str) -> Any:
    return page.locator(f'article[data-id="{image_id}"]')
