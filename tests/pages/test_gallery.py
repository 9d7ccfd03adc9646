"""The page of captions: what is on it, that it needs nothing else, and that no text on it becomes more than text."""

from __future__ import annotations

import base64
import builtins
import hashlib
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, choose_images, match_photos, render_gallery
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.photo_formats import known_formats

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&lt;"
NO_END = {"meta", "img", "input", "rect"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element | str] = []

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements *tag* inside, in their order, whose attributes (class_ for class) are *attributes*."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if child.tag == tag and wanted.items() <= child.attributes.items():
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def everything(self) -> list[Element]:
        elements = [child for child in self.children if isinstance(child, Element)]
        return elements + [inside for element in elements for inside in element.everything()]


class Page(HTMLParser):
    """The elements of a page; fails where one is not closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert self.open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in NO_END:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in NO_END:
            assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(html: str) -> Element:
    return Page(html).root


def references(captions: dict[str, list[str]]) -> References:
    return References(Path("test.references.json"), captions)


THREE = references({"42": ["A dog.", "The dog."], "7": ["A cat."], "park": ["A park.", "Trees."]})


def system(name: str, captions: Sequence[str] = ("a", "b", "c"), ciders: Sequence[float] = (0.5, 1.25, 0.0)) -> System:
    return System(
        name,
        dict(zip(THREE.image_ids, captions, strict=True)),
        Scores(
            corpus={"BLEU@4": 0.25, "CIDEr": sum(ciders) / 3},
            per_image={
                image_id: {"BLEU@4": 0.125, "CIDEr": cider}
                for image_id, cider in zip(THREE.image_ids, ciders, strict=True)
            },
            left_out={},
        ),
    )


BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0.5, 0.5, 0.75, 1]], dtype=np.float32)


@pytest.fixture(scope="module")
def write_regions(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RegionStore]:
    def write(ids: Sequence[str] = THREE.image_ids, *, labels: Sequence[str] | None = None, size=(640, 480)):
        path = tmp_path_factory.mktemp("regions") / "store"
        scores = None if labels is None else np.array([0.9, 0.5, 0.25])
        with RegionWriter(path, 2) as writer:
            for number, image_id in enumerate(ids):
                writer.add(
                    image_id, np.zeros((3, 2)), BOXES, scores=scores, labels=labels, size=size, position=number + 1
                )
            writer.finish()
        return RegionStore(path)

    return write


@pytest.fixture(scope="module")
def regions(write_regions: Callable[..., RegionStore]) -> RegionStore:
    return write_regions()


def photo(path: Path, size: tuple[int, int] = (640, 480), **options: object) -> Path:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0] // 2, size[1] // 2))
    image.save(path, **options)
    return path


def draw(systems: Sequence[System] = (system("base"),), ids: Sequence[str] = THREE.image_ids, **options) -> Element:
    return parsed(render_gallery(THREE, systems, ids, title="Captions", **options))


def cards(page: Element) -> dict[str, Element]:
    return {card.attributes["data-id"]: card for card in page.all("article")}


def test_captions_and_scores(regions: RegionStore) -> None:
    first, second = system("base", ["a dog .", "a rat .", "a car ."]), system("big", ["x", "y", ""], [0.75, 1, 0.5])
    page = draw([first, second], regions=regions)
    assert page.all("title")[0].text == page.all("h1")[0].text == "Captions"
    table = [[cell.text for cell in row.all("th") + row.all("td")] for row in page.all("tr")]
    assert table == [["captions", "BLEU@4", "CIDEr"], ["base", "25.0", "58.3"], ["big", "25.0", "75.0"]]
    assert [cell.text for cell in page.all("td", class_="highest")] == ["25.0", "25.0", "75.0"]
    assert page.all("caption")[0].text == "Scores × 100 of all 3 images"
    assert page.all("output")[0].text == "3 images"

    assert list(cards(page)) == ["42", "7", "park"]
    card = cards(page)["42"]
    assert [name.text for name in card.all("dt")] == ["base", "big"]
    assert [said.text for said in card.all("p", dir="auto")] == ["a dog .", "x"]
    assert [line.text for line in card.all("p", class_="scores")] == [
        "CIDEr 50.0 · BLEU@4 12.5",
        "CIDEr 75.0 · BLEU@4 12.5",
    ]
    assert [best.text for best in card.all("b", class_="highest")] == ["CIDEr 75.0"]
    assert [said.text for said in card.all("li")] == ["A dog.", "The dog."]
    assert [said.text for said in cards(page)["park"].all("p", dir="auto")] == ["a car .", "(empty)"]


def test_only_what_is_chosen_is_shown_but_all_is_scored(regions: RegionStore) -> None:
    page = draw(ids=["park", "42"], regions=regions)
    assert list(cards(page)) == ["park", "42"]
    assert [card.attributes["data-split"] for card in page.all("article")] == ["2", "0"]
    assert page.all("output")[0].text == "2 of 3 images"
    assert page.all("caption")[0].text == "Scores × 100 of all 3 images"
    assert page.all("option")[0].attributes["value"] == "listed"
    assert draw(ids=["42", "park"], regions=regions).all("option")[0].attributes["value"] == "split"


def test_order_and_limit() -> None:
    systems = [system("base"), system("big", ciders=[0, 0, 1])]
    ours = references({"10": ["a"], "9": ["a"], "b": ["a"], "a": ["a"]})
    assert choose_images(ours, systems) == ["10", "9", "b", "a"]
    assert choose_images(ours, systems, "id") == ["9", "10", "a", "b"]
    assert choose_images(THREE, systems, "best") == ["7", "42", "park"]
    assert choose_images(THREE, systems, "worst", 2) == ["park", "42"]
    assert choose_images(THREE, systems, limit=99) == ["42", "7", "park"]
    without_cider = System("x", {}, Scores({"ROUGE-L": 0.5}, {i: {"ROUGE-L": n} for n, i in enumerate("cab")}, {}))
    assert choose_images(references({i: ["a"] for i in "abc"}), [without_cider], "best") == ["b", "a", "c"]


def is_harmless(page: Element) -> None:
    """One script, ours, allowed by its hash alone; nothing is loaded from elsewhere."""
    (script,) = page.all("script")
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '(sha256-[^' ]+)'", policy
    )
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    for element in page.everything():
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("src", "href", "action", "xlink:href"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/jpeg;base64,"))
        assert element.tag not in ("iframe", "object", "embed", "base", "link")
    assert "@import" not in page.all("style")[0].text and "url(" not in page.all("style")[0].text


def test_hostile_text_stays_text(tmp_path: Path, write_regions: Callable[..., RegionStore]) -> None:
    name = HOSTILE.replace("/", "")
    photo(tmp_path / f"{name}.jpg")
    ours = references({name: [HOSTILE], "</article>": [HOSTILE + "2"]})
    hostile = System(
        HOSTILE,
        {name: HOSTILE + "3", "</article>": "</p></main><script>"},
        Scores({HOSTILE: 0.5}, {name: {HOSTILE: 0.5}, "</article>": {HOSTILE: 0.25}}, {}),
    )
    store = write_regions([name, "</article>"], labels=[HOSTILE, "</svg><script>", "x"])
    photos = match_photos([tmp_path], ours.image_ids)
    html = render_gallery(
        ours, [hostile, hostile], ours.image_ids, title=HOSTILE, photos=photos, regions=store, overlay=True
    )
    page = parsed(html)
    is_harmless(page)
    assert page.all("title")[0].text == page.all("h1")[0].text == HOSTILE
    assert [dt.text for dt in page.all("dt")] == [HOSTILE] * 4
    assert [p.text for p in page.all("p", dir="auto")] == [HOSTILE + "3"] * 2 + ["</p></main><script>"] * 2
    assert [li.text for li in page.all("li")] == [HOSTILE, HOSTILE + "2"]
    assert list(cards(page)) == [name, "</article>"]
    assert page.all("img")[0].attributes["alt"] == f"Photo {name}: {HOSTILE}"
    assert [label.text for label in page.all("title")][1:3] == ["</svg><script>, 0.50", HOSTILE + ", 0.90"]
    assert len(page.all("article")) == 2


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)


@settings(max_examples=30)
@given(TEXT, TEXT, TEXT)
def test_any_text_comes_through(regions: RegionStore, said: str, name: str, title: str) -> None:
    page = parsed(render_gallery(THREE, [system(name, [said] * 3)], ["7"], title=title, regions=regions))
    is_harmless(page)
    assert [p.text for p in page.all("p", dir="auto")] == [said]
    assert page.all("dt")[0].text == name
    assert page.all("h1")[0].text == title


def test_the_page_is_there_without_scripts(regions: RegionStore) -> None:
    page = draw(regions=regions)
    (needs_scripts,) = page.all("span", class_="scripted")
    assert "hidden" in needs_scripts.attributes
    assert not [element for element in page.all("article") if "hidden" in element.attributes]
    assert {control.tag for control in needs_scripts.everything()} >= {"select", "input"}


def test_regions_stand_for_a_missing_photo(regions: RegionStore) -> None:
    page = draw(regions=regions)
    assert not page.all("img")
    card = cards(page)["42"]
    (drawing,) = card.all("svg")
    assert drawing.attributes["viewbox"] == "0 0 320 240"
    assert drawing.attributes["role"] == "img"
    assert drawing.attributes["aria-label"] == "image 42, 3 regions"
    rectangles = [[float(r.attributes[name]) for name in ("x", "y", "width", "height")] for r in card.all("rect")]
    assert rectangles == [[0, 0, 320, 240], [32, 48, 128, 96], [160, 120, 80, 120]]  # the largest lies lowest
    assert [title.text for title in card.all("title")] == ["region 1", "region 0", "region 2"]
    assert card.all("figcaption")[0].text == "no photo; 3 regions"
    assert not page.all("input", id="regions")


def test_labels_are_written_where_there_is_room(write_regions: Callable[..., RegionStore]) -> None:
    card = cards(draw(regions=write_regions(labels=["dog", "lawn", "ball"])))["7"]
    assert [text.text for text in card.all("text")] == ["lawn", "dog", "ball"]
    assert [(text.attributes["x"], text.attributes["y"]) for text in card.all("text")][1] == ("35.0", "60.0")
    assert [title.text for title in card.all("title")] == ["lawn, 0.50", "dog, 0.90", "ball, 0.25"]
    assert sorted(card.all("svg")[0].attributes["aria-label"].split(": ")[1].split(", ")) == ["ball", "dog", "lawn"]
    # the same place twice: the more confident one has it
    tiny = cards(draw(regions=write_regions(labels=["dog", "lawn", "ball"], size=(6400, 48))))["7"]
    assert [text.text for text in tiny.all("text")] == ["dog", "ball"]


def test_a_photo_of_unknown_size_is_a_square(write_regions: Callable[..., RegionStore]) -> None:
    card = cards(draw(regions=write_regions(size=None)))["7"]
    assert card.all("svg")[0].attributes["viewbox"] == "0 0 320 320"
    assert card.all("figcaption")[0].text == "no photo; 3 regions, in a square as the photo's proportions are not known"


def test_an_image_that_the_store_lacks(write_regions: Callable[..., RegionStore]) -> None:
    with pytest.raises(DataError, match="'park' is not in the region store"):
        draw(regions=write_regions(["42", "7"]))


@pytest.mark.parametrize(("library", "package"), [("jinja2", "jinja2"), ("PIL", "Pillow")])
def test_missing_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, package: str) -> None:
    photo(tmp_path / "7.jpg")
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.split(".")[0] == library:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    known_formats.cache_clear()
    with pytest.raises(DataError, match=rf'{package}: pip install "xgpt-fairseq\[(report|photos)\]"'):
        draw(ids=["7"], photos=match_photos([tmp_path], ["7"]))
