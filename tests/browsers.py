"""A browser for tests of pages, and what is measured in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Each element with text of its own: the text, its colour and the colour behind it.
COLOURS = """() => Array.from(document.querySelectorAll("body *"))
  .filter((e) => e.checkVisibility() && e.closest("svg") === null)
  .filter((e) => e.tagName === "INPUT" || Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim()))
  .map((e) => {
    let behind = e;
    while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [e.textContent.trim(), getComputedStyle(e).color, getComputedStyle(behind).backgroundColor];
  })"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program)
        yield opened
        opened.close()


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of rgb(r, g, b)."""
    assert colour.startswith("rgb(")
    red, green, blue = (int(value) / 255 for value in colour[4:-1].split(","))
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(ink: str, paper: str) -> float:
    lighter, darker = sorted([luminance(ink), luminance(paper)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
