"""Pages as their parser sees them: elements, and the data in them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

NO_END = {"meta", "img", "input", "rect", "link"}


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


def page_data(page: Element) -> dict[str, Any]:
    """The block that is read at once; its cards by name."""
    (block,) = page.all("script", id="data")
    data: dict[str, Any] = json.loads(block.text)
    names = ("id", "position", "name", "people", "said", "width", "height")
    data["cards"] = [dict(zip(names, card, strict=True)) for card in data["cards"]]
    return data


def page_details(page: Element) -> dict[str, dict[str, Any]]:
    """Image id → what is read when it is shown."""
    blocks = [script for script in page.all("script") if script.attributes.get("id", "").startswith("block-")]
    assert [block.attributes["id"] for block in blocks] == [f"block-{number}" for number in range(len(blocks))]
    lines = [json.loads(line) for block in blocks for line in block.text.split("\n")]
    return {card["id"]: line for card, line in zip(page_data(page)["cards"], lines, strict=True)}


def is_harmless(page: Element, *, linked: bool = False) -> None:
    """One script, ours, and one style, allowed by their hashes alone; nothing is loaded from elsewhere."""
    scripts = [script for script in page.all("script") if "type" not in script.attributes]
    (policy,) = [meta.attributes["content"] for meta in page.all("meta") if "http-equiv" in meta.attributes]
    directives = dict(directive.split(" ", 1) for directive in policy.split("; "))
    assert directives.pop("img-src") == ("data: 'self' file:" if linked else "data:")

    def digest(element: Element) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode() + "'"

    assert directives == {
        "default-src": "'none'", "base-uri": "'none'", "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "script-src": " ".join(map(digest, scripts)), "style-src": " ".join(map(digest, page.all("style"))),
    }  # fmt: skip
    assert len(scripts) == len(page.all("style")) == 1
    assert {script.attributes.get("type") for script in page.all("script")} == {
        None, "application/json", "application/x-ndjson",
    }  # fmt: skip
    for element in page.everything():
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "xlink:href"):
            assert element.attributes.get(name, "#").startswith("#") or element.attributes[name] == "data:,"
        assert element.tag not in ("iframe", "object", "embed", "base", "img", "a")
    assert "@import" not in page.all("style")[0].text and "url(" not in page.all("style")[0].text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(", scripts[0].text)
