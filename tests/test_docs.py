"""The site of the documentation, and what its pages look like as text."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.test_layout import ROOT

MARKDOWN = sorted(
    path
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/*.md",
        "examples/*/README.md",
        "preprocess/*.md",
        "tests/*/*.md",
    )
    for path in ROOT.glob(pattern)
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; warnings, such as of a link or an anchor that leads nowhere, fail."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs)")
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """The addresses that a page loads by itself: not those of links, which wait for a click."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag == "link" and (named.get("rel") or "") not in ("canonical", "next", "prev"):
            self.found.append(named.get("href") or "")
        self.found += [named[name] or "" for name in ("src", "srcset", "data", "poster") if name in named]


def test_every_page_is_built(site: Path) -> None:
    assert {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= {p.name for p in (site / "docs").iterdir()}
    assert (site / "index.html").exists()
    assert (site / "docs" / "photos.jpg").stat().st_size <= 250_000


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = Loaded(page).found
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:\w+:)?//", address)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:\w+:)?//|@import", style.read_text(encoding="utf-8")), style


def test_pages_link_within_the_site(site: Path) -> None:
    """Links to files of the repository are kept as they are, and lead to copies of these."""
    page = (site / "docs" / "train.html").read_text(encoding="utf-8")
    assert 'href="../examples/xgpt_base/README.html"' in page or 'href="../examples/xgpt_base/index.html"' in page
    assert (site / "examples" / "quickstart" / "run.sh").exists()


def test_the_photos_of_the_readme_are_the_first_ones_with_their_licences(coco5k: Path) -> None:
    images = json.loads((coco5k / "dataset_coco5k.json").read_text(encoding="utf-8"))["images"]
    first = sorted((image for image in images if image["split"] == "val"), key=lambda image: image["cocoid"])[:6]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\[(\d+)\]\((\S+)\), \[CC (BY(?:-SA)?) 2\.0\]\[by", text, re.MULTILINE)
    assert [(int(number), address) for number, address, _ in shown] == [(i["cocoid"], i["flickr_url"]) for i in first]
    for (*_, licence), image in zip(shown, first, strict=True):
        assert f"/licenses/{licence.lower()}/2.0/" in image["license_url"]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_have_120_characters_at_most(page: Path) -> None:
    """But those of tables, and data that is shown as it is."""
    fence = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fence = "" if fence else line
        if len(line) > 120 and not line.startswith("|") and fence in ("", "```bash", "```python"):
            assert " " not in line, f"{page}:{number}"  # a link can't be broken
