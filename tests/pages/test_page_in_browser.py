"""The page of captions in a browser: what a person does with it, by pointer or by keyboard, and what they see."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browsers import COLOURS, browser, contrast, luminance  # noqa: F401  (a fixture)
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
        opened.append((context, page, asked, complaints))
        return page

    yield open_one
    for context, page, asked, complaints in opened:
        title = page.title()
        context.close()
        assert title == f"Dogs {HOSTILE}" and not complaints
        assert [url for url in asked if not url.startswith(("data:", "blob:"))][1:] == []


def ids(page: Page) -> list[str]:
    """What is shown, in its order; the first of it has cards."""
    shown: list[str] = page.evaluate("list.map((card) => card.id)")
    cards = page.locator("article").evaluate_all("(all) => all.map((one) => one.dataset.id)")
    assert cards == shown[: len(cards)] and len(cards) >= min(len(shown), 5)
    return shown


def card(page: Page, image_id: str) -> Any:
    return page.locator(f'article[data-id="{image_id}"]')


def test_only_cards_near_the_screen_are_built(open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.locator("#count")).to_have_text("130 images")
    assert 3 < page.locator("article").count() < 60
    page.keyboard.press("End")
    expect(card(page, "129")).to_be_in_viewport()
    expect(card(page, "0")).to_have_count(0)
    assert page.locator("article").count() < 60
    assert card(page, "129").get_attribute("aria-posinset") == card(page, "129").get_attribute("aria-setsize") == "130"
    page.keyboard.press("Home")
    expect(card(page, "0")).to_be_in_viewport()
    assert card(page, "0").locator("img").evaluate("(image) => image.naturalWidth") == 320
    alt = card(page, "0").locator("img").get_attribute("alt")
    assert alt == "Photo 0: A dog number 0."
    expect(card(page, "0").locator("li")).to_have_text(["A dog number 0.", "A dog plays."])
    expect(card(page, "0").locator("dt")).to_have_text(["base", "<b>big"])
    expect(card(page, "0").locator("dd > .scores")).to_have_text(["CIDEr 100.0 · BLEU@4 50.0"] * 2)


def test_order_search_and_filters_are_in_the_address(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_label("order").select_option("<b>big: worst first")
    assert ids(page)[:3] == ["129", "128", "127"]
    page.get_by_label("find").fill("DOG 12")
    expect(page.locator("#count")).to_have_text("12 found among 130 images")
    assert ids(page) == [*map(str, range(129, 119, -1)), "112", "12"]
    page.get_by_label("score from").fill("112.1")
    page.get_by_label("to", exact=True).fill("112.7")
    assert ids(page) == ["127", "126", "125", "124", "123", "122", "121"]  # of base
    page.get_by_role("checkbox", name="base").uncheck()
    expect(page.locator("#none")).to_be_visible()
    page.get_by_role("checkbox", name="base").check()
    page.get_by_role("checkbox", name="<b>big").uncheck()
    expect(card(page, "127").locator("dt")).to_have_text(["base"])
    address = page.evaluate("location.hash")
    shared = open_page(address)
    assert ids(shared) == ids(page) and shared.locator("#count").text_content() == "7 found among 130 images"
    assert shared.get_by_label("order").input_value() == "worst <b>big"
    assert not shared.get_by_role("checkbox", name="<b>big").is_checked()
    nonsense = open_page("#order=x&view=x&image=x&min=x&systems=x&only=x")
    expect(nonsense.locator("#count")).to_have_text("130 images")
    assert ids(nonsense)[:2] == ["0", "1"]


def test_only_what_is_wrong(open_page: Callable[..., Page]) -> None:
    page = open_page()
    for label, expected in (
        ("with a phrase that repeats", ["2", "3"]), ("whose captions differ", ["2", "3"]),
        ("with a word that nobody used", ["2", "3"]),
    ):  # fmt: skip
        page.get_by_label("only").select_option(label)
        assert ids(page) == expected
    assert card(page, "2").locator("dd").nth(0).locator(".missed").text_content() == "not named: dog, ball, grass"
    assert card(page, "2").locator("dd").nth(1).locator(".missed b").all_text_contents() == ["dog"]
    captions = card(page, "2").locator(".caption")
    assert captions.all_text_contents() == ["a cat and a cat", "a cat and a ball"]
    assert captions.nth(0).locator("mark").all_text_contents() == ["a cat", "a cat"] or (
        "".join(captions.nth(0).locator("mark").all_text_contents()).replace(" ", "") == "acatacat"
    )
    assert captions.nth(0).locator("u").all_text_contents() == ["cat", "cat"]
    assert captions.nth(0).locator("b.differs").all_text_contents() == ["cat"]
    assert captions.nth(1).locator("b.differs").all_text_contents() == ["ball"]
    summary = card(page, "2").get_by_text("what CIDEr rewards").first
    summary.click()
    assert card(page, "2").locator(".ngrams li").all_text_contents() == ["a cat+50.0", "cat and−25.0"]


def test_where_the_model_looks(open_page: Callable[..., Page]) -> None:
    page = open_page("#only=repeats")
    shown = card(page, "2")
    words = shown.locator(".caption.looks .word")
    assert words.all_text_contents() == ["a", "cat", "and", "a", "cat"]
    expect(shown.locator("svg.attention")).to_have_count(0)
    words.nth(1).hover()
    drawn = shown.locator("svg.attention")
    weights = [float(value) for value in drawn.get_attribute("data-weights").split()]
    assert weights == pytest.approx(WEIGHTS[1], abs=2e-5) and sum(weights) == pytest.approx(1, abs=2e-5)
    assert shown.locator(".looking").text_content() == "“cat” looks at ball 70 %; grass 20 %; dog 10 %"
    opacity = [
        float(o) for o in drawn.locator("rect").evaluate_all("(r) => r.map((e) => e.getAttribute('fill-opacity'))")
    ]
    assert opacity == pytest.approx([0.6 * w / 0.7 for w in WEIGHTS[1]], abs=1e-3)
    photo = shown.locator("img").bounding_box()
    box = drawn.locator("rect").nth(1).bounding_box()  # the right half
    assert box["x"] == pytest.approx(photo["x"] + photo["width"] / 2, abs=1.5)
    assert box["width"] == pytest.approx(photo["width"] / 2, abs=3)
    page.mouse.move(5, 5)
    expect(drawn).to_have_count(0)
    # by the keyboard
    caption = shown.locator(".caption.looks")
    caption.focus()
    expect(shown.locator(".looking")).to_contain_text("“a” looks at dog 50 %")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(shown.locator(".looking")).to_contain_text("“and” looks at grass 100 %")
    page.keyboard.press("ArrowLeft")
    expect(shown.locator(".now")).to_have_text("cat")
    page.keyboard.press("Tab")
    expect(drawn).to_have_count(0)
    # a tap stays
    words.nth(2).click()
    page.mouse.move(5, 5)
    expect(shown.locator(".looking")).to_contain_text("“and” looks at grass")
    # a second system has none
    assert shown.locator(".caption").nth(1).locator(".word").count() == 0


def test_regions_and_their_switch(open_page: Callable[..., Page]) -> None:
    page = open_page()
    svg = card(page, "0").locator("svg.regions")
    expect(svg).to_be_visible()
    assert svg.get_attribute("aria-label") == "0, 3 regions: dog, ball, grass"
    assert svg.locator("title").all_text_contents() == ["dog, 0.90", "ball, 0.50", "grass, 0.25"]
    assert svg.locator("text").all_text_contents() == ["dog", "ball", "grass"]
    page.get_by_role("checkbox", name="regions").uncheck()
    expect(svg).to_be_hidden()
    drawn = card(page, "4")
    drawn.scroll_into_view_if_needed()
    expect(drawn.locator("svg.regions")).to_be_visible()
    assert drawn.locator("img").count() == 0
    assert drawn.locator("figcaption").text_content() == "no photo; 3 regions"


def test_credits_and_links(open_page: Callable[..., Page]) -> None:
    page = open_page()
    credit = card(page, "0").locator(".credit")
    assert credit.text_content() == "photo by A, CC BY 2.0"
    links = credit.locator("a").evaluate_all("(all) => all.map((a) => a.href)")
    assert links == ["https://a.example/0", "https://cc.example/by"]
    page = open_page("#image=100")
    expect(card(page, "100")).to_be_in_viewport()
    card(page, "100").locator("h2 a").click()
    assert "image=100" in page.evaluate("location.hash")
    hidden = open_page("#find=nothing&image=77")
    expect(card(hidden, "77")).to_be_in_viewport()


def test_the_grid_and_the_keys(open_page: Callable[..., Page]) -> None:
    page = open_page("#view=grid&order=best+%3Cb%3Ebig")
    expect(card(page, "0").locator(".scores")).to_have_text("CIDEr 100.0")
    columns = page.evaluate("columns()")
    assert columns == 6
    for key, at in (("ArrowRight", "0"), ("ArrowRight", "1"), ("ArrowDown", "7"), ("ArrowLeft", "6"), ("ArrowUp", "0")):
        page.keyboard.press(key)
        expect(card(page, at)).to_be_focused()
    for _ in range(21):
        page.keyboard.press("ArrowDown")
    expect(card(page, "126")).to_be_focused()
    expect(card(page, "126")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_label("view")).to_have_value("list")
    expect(card(page, "126").locator("dl")).to_be_in_viewport()
    expect(card(page, "126")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(card(page, "127")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("find")).to_be_focused()
    page.keyboard.type("cat/ball")
    assert page.get_by_label("find").input_value() == "cat/ball"
    page.keyboard.press("Escape")
    expect(page.get_by_label("find")).not_to_be_focused()


def test_every_control_is_reached_and_seen_by_keyboard(open_page: Callable[..., Page]) -> None:
    page, reached = open_page(), []
    for _ in range(40):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        assert found[1:] == ["solid", "3px"], found
        reached.append(found[0])
    controls = ["order", "metric", "find", "only", "min", "max", "base", "<b>big", "regions", "view", "csv", "json"]
    assert reached[: len(controls)] == controls
    assert "caption looks" in reached and "SUMMARY" in reached
    assert page.evaluate(UNNAMED) == []


def saved(page: Page, button: str) -> str:
    with page.expect_download() as started:
        page.get_by_role("button", name=button).click()
    name = re.sub(r"[^A-Za-z0-9]+", "_", f"Dogs {HOSTILE}").strip("_")
    assert started.value.suggested_filename == f"{name}.{button.lower()}"
    return Path(started.value.path()).read_text(encoding="utf-8")


def test_what_is_shown_can_be_saved(open_page: Callable[..., Page]) -> None:
    page = open_page("#only=differ&order=worst+base")
    shown = json.loads(saved(page, "JSON"))
    assert [each["image_id"] for each in shown] == ["2", "3"]
    assert shown[0]["captions"]["<b>big"] == {"caption": "a cat and a ball", "scores": {"CIDEr": 0.998, "BLEU@4": 0.5}}
    assert shown[1]["people"] == [HOSTILE]
    page.get_by_role("checkbox", name="<b>big").uncheck()
    page.get_by_label("only").select_option("all images")
    page.get_by_label("find").fill("onerror")
    rows = list(csv.reader(io.StringIO(saved(page, "CSV"), newline="")))
    assert rows == [
        ["image_id", "name", "base", "base CIDEr", "base BLEU@4", "people"],
        ["3", "3", HOSTILE, "1.003", "0.5", HOSTILE],
    ]


def test_hostile_text_stays_text(open_page: Callable[..., Page]) -> None:
    page = open_page("#find=onerror")
    assert card(page, "3").locator(".caption").all_text_contents() == [HOSTILE, "fine"]
    assert card(page, "3").locator("li").text_content() == HOSTILE
    assert page.evaluate("document.querySelectorAll('[onerror], main script').length") == 0
    assert page.locator("h1").text_content() == f"Dogs {HOSTILE}"


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


def test_photos_beside_the_page(browser: Any, files: Path) -> None:  # noqa: F811
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


def test_five_thousand_images(browser: Any, tmp_path: Path) -> None:  # noqa: F811
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
    assert ids(page)[:2] == ["76", "153"]
    page.get_by_label("find").fill("number 4999")
    assert ids(page) == ["4999"]
    page.close()
