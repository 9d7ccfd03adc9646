"""The page in a browser: what a person does with it, by pointer or by keyboard, and what they see."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsers import COLOURS, browser, contrast, luminance  # noqa: F401  (a fixture)
from tests.test_hub_interface import build, photos  # noqa: F401  (a fixture)
from xgpt_fairseq.cli import caption as caption_program
from xgpt_fairseq.pages.captioning_page import render_captioning_page
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.serving.limits import BEAMS, MAX_FILE_BYTES, MAX_PHOTOS, MAX_PIXELS
from xgpt_fairseq.serving.photo_captioner import PhotoCaptioner
from xgpt_fairseq.serving.server import CaptionServer

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=30_000)  # beside other tests a page may wait
Page = Any

HOSTILE = '<img src=x onerror="document.title=1">&amp;' + 120 * "w" + ".png"

# Files as a page gets them from the desktop: name and content in base64 each.
TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
  }
  return transfer;
}"""


@pytest.fixture(scope="module")
def bundle(tiny_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    build(tiny_vocabulary).save(path)
    return path


@pytest.fixture(scope="module")
def server(tiny_vocabulary: Path) -> Iterator[CaptionServer]:
    service = PhotoCaptioner(build(tiny_vocabulary), SearchOptions(max_len_b=60))
    page = render_captioning_page(
        title="Captions", beams=BEAMS, beam=2, lenpen=1.0, formats=["JPEG"], max_bytes=MAX_FILE_BYTES,
        max_pixels=MAX_PIXELS,
    )  # fmt: skip
    with CaptionServer(0, page, service.caption, beam=2) as server:
        threads = [threading.Thread(target=target) for target in (service.run, server.serve_forever)]
        for thread in threads:
            thread.start()
        yield server
        service.end()
        server.shutdown()
        for thread in threads:
            thread.join()


@pytest.fixture
def page(browser: Any, server: CaptionServer) -> Iterator[Page]:  # noqa: F811
    """The page; in the end, what it asked for and complained about is looked at."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    # Playwright tells the browser to hand choosers over when the first listener comes, and doesn't wait for its answer:
    # a chooser that a key opens right after `expect_file_chooser` can be missed. One listener from the start on.
    page.on("filechooser", lambda chooser: None)
    page.goto(server.url)
    yield page
    title = page.title()
    context.close()
    assert title == "Captions"
    assert asked and not [url for url in asked if not url.startswith((server.url, "blob:", "data:"))]
    # the browser has a line of its own on each answer that is an error
    assert not [text for text in complaints if not text.startswith("Failed to load resource: ")]


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    encoded = [[name, base64.b64encode(content).decode()] for name, content in files]
    transfer = page.evaluate_handle(TRANSFER, encoded)
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": transfer})


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "PNG")
    return file.getvalue()


def card(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=name)


def test_photos_are_dropped_and_captioned_as_by_the_program(
    page: Page,
    bundle: Path,
    photos: list[Path],  # noqa: F811
    call_program: Callable[..., Any],
    server: CaptionServer,
) -> None:
    lines = call_program(caption_program.main, *photos, "--path", bundle).stdout.splitlines()
    expected = dict(line.split("\t") for line in lines)
    assert len(set(expected.values())) > 3
    drop(page, *((photo.name, photo.read_bytes()) for photo in photos))
    assert page.get_by_role("heading", level=2).all_text_contents() == [photo.name for photo in photos]
    for photo in photos:
        shown = card(page, photo.name)
        expect(shown.locator(".caption")).to_have_text(expected[str(photo)])
        assert shown.get_attribute("aria-busy") == "false" and not shown.locator(".busy").is_visible()
        assert shown.locator("img").get_attribute("alt") == expected[str(photo)]
        assert shown.locator("img").evaluate("(image) => image.naturalHeight") == 96
        answer = server.caption(photo.read_bytes(), 2)
        scores = [f"{each['score']:.2f}".replace("-", "−") for each in answer["hypotheses"]]
        expect(shown.locator("p.scores")).to_have_text(f"log-probability per token {scores[0]} · beam 2")
        assert not shown.locator("li").is_visible()
        shown.get_by_text("1 other caption").click()
        expect(shown.locator("li")).to_have_text(f"{answer['hypotheses'][1]['text']} {scores[1]}")
    expect(page.locator("#count")).to_have_text("7 photos")
    said = page.locator("[aria-live=polite] p").all_text_contents()
    assert sorted(said) == sorted(f"{photo.name}: {expected[str(photo)]}" for photo in photos)
    page.get_by_label("beam").select_option("1")
    drop(page, ("again.png", photos[0].read_bytes()))
    expect(card(page, "again.png").locator("p.scores")).to_contain_text("beam 1")
    assert card(page, "again.png").locator("details").is_hidden()
    assert page.get_by_role("heading", level=2).first.text_content() == "again.png"


def test_the_regions_lie_over_the_photo(page: Page, photos: list[Path]) -> None:  # noqa: F811
    drop(page, ("a.png", photos[0].read_bytes()))
    svg = card(page, "a.png").locator("svg")
    expect(svg).to_have_count(1)
    expect(svg).to_be_hidden()
    page.get_by_role("checkbox", name="regions").check()
    expect(svg).to_be_visible()
    assert svg.get_attribute("aria-label") == "5 regions"
    whole = card(page, "a.png").locator("img").bounding_box()
    assert (whole["width"], whole["height"]) == (240, 320)
    boxes = svg.evaluate("(s) => Array.from(s.querySelectorAll('rect'), (r) => r.getBoundingClientRect().toJSON())")
    left, top, width, height = (whole[side] for side in ("x", "y", "width", "height"))
    found = sorted(
        tuple(round(value, 2) for value in (
            (box["x"] - left) / width, (box["y"] - top) / height, box["width"] / width, box["height"] / height
        ))
        for box in boxes
    )  # fmt: skip
    quarters = [(0.0, 0.0, 0.5, 0.5), (0.0, 0.5, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)]
    assert found == sorted([(0.0, 0.0, 1.0, 1.0), *quarters])
    assert svg.locator("title").first.text_content() == "region 0"


def test_a_word_shows_where_the_model_looks(
    page: Page,
    photos: list[Path],  # noqa: F811
    tiny_vocabulary: Path,
) -> None:
    [expected] = build(tiny_vocabulary).caption(photos[0], return_attention=True)
    assert expected.attention is not None
    drop(page, ("a.png", photos[0].read_bytes()))
    shown = card(page, "a.png")
    words = shown.locator(".word")
    expect(words).to_have_text([word.text for word in expected.attention.words])
    for number, (word, weights) in enumerate(zip(expected.attention.words, expected.attention.weights, strict=True)):
        words.nth(number).hover()
        expect(shown.locator(".looking")).to_contain_text(f"“{word.text}” looks at region ")
        drawn = shown.locator("svg.attention")
        expect(drawn).to_be_visible()  # also while the regions are hidden
        found = list(map(float, drawn.get_attribute("data-weights").split()))
        assert found == pytest.approx(weights.tolist(), abs=1e-4)
        assert drawn.locator("rect").count() == 5
    page.mouse.move(0, 0)
    expect(shown.locator("svg.attention")).to_have_count(0)
    words.nth(1).click()
    page.mouse.move(0, 0)
    expect(shown.locator(".now")).to_have_text(expected.attention.words[1].text)  # what was chosen stays


def test_files_that_are_no_photos_or_too_large(page: Page) -> None:
    files = {
        "notes.txt": b"bread, milk",
        "empty.jpg": b"",
        "broken.png": png(300, 300)[:90],
        "large.png": png(10_000, 10_000, "1"),
        "heavy.jpg": bytes(MAX_FILE_BYTES + 1),
    }
    expected = {
        "notes.txt": "not a photo, or damaged at its beginning; JPEG, PNG, ",
        "empty.jpg": "the file is empty",
        "broken.png": "damaged: ",
        "large.png": "the photo has 10000 x 10000 pixels; at most 50 megapixels are read",
        "heavy.jpg": "the file has more than 25 MB",
    }
    drop(page, *((name, content) for name, content in files.items() if name != "heavy.jpg"))
    page.evaluate("""(size) => add([new File([new Uint8Array(size)], "heavy.jpg")])""", MAX_FILE_BYTES + 1)
    for name, message in expected.items():
        error = card(page, name).locator(".error")
        expect(error).to_contain_text(message, timeout=20_000)
        assert "\n" not in error.text_content() and card(page, name).locator(".caption").is_hidden()
        assert card(page, name).get_attribute("aria-busy") == "false"
    expect(card(page, "notes.txt").locator("figure")).to_be_hidden()
    expect(card(page, "large.png").locator("figure")).to_be_visible()
    said = page.locator("[aria-live=polite] p").all_text_contents()
    assert sorted(text.split(":")[0] for text in said) == sorted(files)


def test_a_file_name_stays_text(page: Page, photos: list[Path]) -> None:  # noqa: F811
    drop(page, (HOSTILE, photos[0].read_bytes()), (f"not {HOSTILE}", b"text"))
    expect(page.locator("article[aria-busy=false]")).to_have_count(2)
    assert page.locator("h2").all_text_contents() == [HOSTILE, f"not {HOSTILE}"]
    assert page.locator("article img").count() == 1  # the text file's is gone
    assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0


def test_what_a_model_says_stays_text(page: Page) -> None:
    text = "<script>document.title=1</script>&lt;"
    answer = {"caption": text, "hypotheses": [{"text": text, "score": -0.5}, {"text": f"<b>{text}", "score": -1.25}],
              "regions": [[0, 0, 1, 1]], "words": [0, 8], "attention": [[1]], "width": 40, "height": 30}  # fmt: skip
    page.route("**/caption?*", lambda route: route.fulfill(json=answer))
    drop(page, ("a.tiff", b"a format that the browser does not show"))
    expect(card(page, "a.tiff").locator(".caption")).to_have_text(text)
    card(page, "a.tiff").get_by_text("1 other caption").click()
    expect(card(page, "a.tiff").locator("li")).to_have_text(f"<b>{text} −1.25")
    assert page.locator("article :is(b, script)").count() == 0
    # its regions are all that there is to see
    expect(card(page, "a.tiff").get_by_text("This browser does not show the photo.")).to_be_visible()
    expect(card(page, "a.tiff").locator("svg")).to_be_visible()
    box = card(page, "a.tiff").locator("svg").bounding_box()
    assert (box["width"], box["height"]) == (320, 240)


@pytest.mark.parametrize("unlike", [True, False])
def test_a_photo_unlike_the_training_images(page: Page, unlike: bool) -> None:
    answer = {"caption": "a cat.", "hypotheses": [{"text": "a cat.", "score": -0.5}], "regions": [[0, 0, 1, 1]],
              "words": [0, 1, 2, 5], "attention": [[1], [1]], "width": 40, "height": 30, "unlike": unlike}  # fmt: skip
    page.route("**/caption?*", lambda route: route.fulfill(json=answer))
    drop(page, ("a.png", b"\0"))
    expect(card(page, "a.png").locator(".caption")).to_have_text("a cat.")
    expect(card(page, "a.png").get_by_text("This photo looks unlike those")).to_be_visible(visible=unlike)


def test_by_keyboard_alone(page: Page, photos: list[Path]) -> None:  # noqa: F811
    def tab(to: str) -> None:
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => {
          const style = getComputedStyle(document.activeElement);
          return [document.activeElement.id || document.activeElement.tagName, style.outlineStyle, style.outlineWidth];
        }""")
        assert focused == [to, "solid", "3px"]

    tab("photos")
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    assert chosen.value.is_multiple()
    chosen.value.set_files(photos[:2])
    expect(page.locator("article[aria-busy=false]")).to_have_count(2)
    tab("beam")
    page.keyboard.press("5")
    tab("regions")
    page.keyboard.press("Space")
    expect(page.locator("svg").first).to_be_visible()
    tab("P")  # the caption
    looking = page.locator(".looking").first
    expect(looking).to_contain_text("looks at region")
    first = looking.text_content()
    page.keyboard.press("ArrowRight")
    expect(looking).not_to_have_text(first)
    tab("SUMMARY")
    expect(looking).to_be_empty()
    page.keyboard.press("Enter")
    expect(page.locator("li")).to_have_count(2)
    expect(page.locator("li").first).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Space")
    chosen.value.set_files(photos[0])  # the same file once more
    expect(page.locator("article").first.locator("p.scores")).to_contain_text("beam 5")
    expect(page.locator("article").first.locator("summary")).to_have_text("4 other captions")
    assert page.get_by_label("Drop photos here, paste one, or choose files:").get_attribute("id") == "photos"


def test_paste(page: Page, photos: list[Path]) -> None:  # noqa: F811
    transfer = page.evaluate_handle(TRANSFER, [["image.png", base64.b64encode(photos[0].read_bytes()).decode()]])
    page.evaluate(
        "(data) => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))",
        transfer,
    )
    expect(card(page, "image.png").locator(".caption")).not_to_be_empty()


def test_a_card_is_there_at_once_and_says_that_it_works(
    page: Page,
    photos: list[Path],  # noqa: F811
    server: CaptionServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that is busy is asked again; one that has ended is not."""
    caption, go = server.caption, threading.Event()

    def waits(content: bytes, beam: int) -> Any:
        assert go.wait(20)
        return caption(content, beam)

    monkeypatch.setattr(server, "caption", waits)
    drop(page, *((photo.name, photo.read_bytes()) for photo in photos[:3]))
    expect(page.locator("article[aria-busy=true]")).to_have_count(3)
    assert page.locator(".busy").all_inner_texts() == ["captioning", "captioning", "waiting"]
    expect(page.locator("#count")).to_have_text("3 photos, 3 to come")
    assert page.locator(".turning").first.evaluate("(e) => getComputedStyle(e).animationName") == "turn"
    page.emulate_media(reduced_motion="reduce")
    assert page.locator(".turning").first.evaluate("(e) => getComputedStyle(e).animationName") == "none"
    go.set()
    expect(page.locator("article[aria-busy=false]")).to_have_count(3)
    for _ in range(MAX_PHOTOS):
        assert server.places.acquire(timeout=10)
    with page.expect_response("**/caption?*") as refused:
        drop(page, ("busy.png", photos[3].read_bytes()))
    assert refused.value.status == 503
    server.places.release(MAX_PHOTOS)
    expect(page.locator("article[aria-busy=false]")).to_have_count(4)
    assert page.locator(".caption:visible").count() == 4
    page.route("**/caption?*", lambda route: route.abort())
    drop(page, ("late.png", photos[3].read_bytes()))
    expect(card(page, "late.png").locator(".error")).to_have_text("no answer: has xgpt-caption ended?")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_legible(page: Page, photos: list[Path], width: int, scheme: str) -> None:  # noqa: F811
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("checkbox", name="regions").check()
    drop(page, ("a.png", photos[0].read_bytes()), (HOSTILE, photos[2].read_bytes()), (f"b {HOSTILE}", b"text"))
    expect(page.locator("article[aria-busy=false]")).to_have_count(3)
    for summary in page.locator("summary:visible").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for shown in page.locator("article, .picture:visible, h2, #drop").all():
        box = shown.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    found = page.evaluate(COLOURS)
    assert len(found) > 15
    for text, ink, paper in found:
        assert contrast(ink, paper) >= 4.5, text
    background = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert background > 0.8 if scheme == "light" else background < 0.05
