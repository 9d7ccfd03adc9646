"""The example page of the documentation: free photos with their licences, and nothing that it should not have."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pages.parsed import is_harmless, page_data, page_details, parsed

ROOT = Path(__file__).resolve().parent.parent
FREE = {
    "http://creativecommons.org/licenses/by/2.0/", "http://creativecommons.org/licenses/by-sa/2.0/",
    "http://flickr.com/commons/usage/",
}  # fmt: skip


def test_the_example_page() -> None:
    html = (ROOT / "docs" / "gallery.html").read_text(encoding="utf-8")
    assert len(html) < 3_000_000
    page = parsed(html)
    is_harmless(page)
    data, details = page_data(page), page_details(page)
    assert len(details) == 100 and len(data["systems"]) == 2
    for image_id, each in details.items():
        text, url, licence, licence_url = each["credit"]
        assert image_id in text and url.startswith("http://farm") and licence and licence_url in FREE
        assert each["src"].startswith("data:image/jpeg;base64,")
        assert all("weights" in said for said in each["said"])


def test_its_photos_are_those_that_may_be_shown(coco5k: Path) -> None:
    """Each with its own licence and origin."""
    images = json.loads((coco5k / "dataset_coco5k.json").read_text(encoding="utf-8"))["images"]
    known = {str(i["cocoid"]): [i["flickr_url"], i["license_url"]] for i in images if i["license_id"] in (4, 5, 7)}
    page = parsed((ROOT / "docs" / "gallery.html").read_text(encoding="utf-8"))
    for image_id, each in page_details(page).items():
        assert [each["credit"][1], each["credit"][3]] == known[image_id]
    text = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    shown = [image_id for image_id in known if f"[{image_id}](" in text]
    assert len(shown) >= 6 and all(f"[{image_id}]({known[image_id][0]})" in text for image_id in shown)


def test_the_pictures_are_small() -> None:
    pictures = list((ROOT / "docs").glob("gallery-*.jpg"))
    assert len(pictures) == 3 and sum(picture.stat().st_size for picture in pictures) < 500_000
