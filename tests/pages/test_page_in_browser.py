"""The page of captions in a browser: what a person does with it, by pointer or by keyboard, and what they see."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages import page_world
from tests.pages.page_world import FOCUSED, HOSTILE, UNNAMED, WEIGHTS, Page, card, eventually, expect, ids, until

browser, files, open_page = page_world.browser, page_world.files, page_world.open_page  # fixtures


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


def test_an_address_that_the_browser_refuses_to_change(open_page: Callable[..., Page]) -> None:
    """As Safari does after a hundred changes within seconds."""
    page = open_page()
    page.evaluate("console.warn = (text) => { window.warned = text; }")  # open_page lets a page complain of nothing
    page.evaluate("""history.replaceState = () => { throw new DOMException("too many", "SecurityError"); }""")
    page.get_by_label("find").fill("DOG 12")
    expect(page.locator("#count")).to_have_text("12 found among 130 images")
    until(page, "window.warned === 'the address is not that of this view: too many'")
    page.get_by_label("find").fill("dog 129")
    expect(page.locator("#count")).to_have_text("1 found among 130 images")
    page.get_by_label("find").fill("")
    expect(page.locator("#count")).to_have_text("130 images")


def test_order_search_and_filters_are_in_the_address(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_label("order").select_option("<b>big: worst first")
    eventually(page, ["129", "128", "127", "…"])
    page.get_by_label("find").fill("DOG 12")
    expect(page.locator("#count")).to_have_text("12 found among 130 images")
    eventually(page, [*map(str, range(129, 119, -1)), "112", "12"])
    page.get_by_label("score from").fill("112.1")
    page.get_by_label("to", exact=True).fill("112.7")
    eventually(page, ["127", "126", "125", "124", "123", "122", "121"])  # of base
    page.get_by_role("checkbox", name="base").uncheck()
    expect(page.locator("#none")).to_be_visible()
    page.get_by_role("checkbox", name="base").check()
    page.get_by_role("checkbox", name="<b>big").uncheck()
    expect(card(page, "127").locator("dt")).to_have_text(["base"])
    until(page, "location.hash === addressOf()")  # it waits until typing pauses
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
        eventually(page, expected)
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
    expect(card(page, "2").locator(".ngrams li")).to_have_text(["a cat+50.0", "cat and−25.0"])


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
        page.wait_for_timeout(30)  # the time of a person, in which the next cards are built
        found = page.evaluate(FOCUSED)
        assert found[1:] == ["solid", "3px"], (found, reached)
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
