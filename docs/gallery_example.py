r"""The example page of docs/inspect.md, and its pictures: photos of a validation split with captions of two models.

python docs/gallery_example.py DATASET.json IMAGES --data DATA --captions NAME=FILE… --attention NAME=MODEL… \
    --output docs

DATASET.json is in Karpathy's layout, with `license_url` and `flickr_url` for each image, as COCO's annotations have
them. The photos are the first of its split val in the order of their numbers, whatever their captions are, in the
shapes that they had. The page is made by xgpt-gallery, and its pictures by a browser (playwright, with Chromium). A
Markdown list of the photos in the pictures, with their licences, is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

LICENCES = {
    "http://creativecommons.org/licenses/by/2.0/": "CC BY 2.0",
    "http://creativecommons.org/licenses/by-sa/2.0/": "CC BY-SA 2.0",
    "http://flickr.com/commons/usage/": "no known copyright restrictions",
}
PIXELS = 200
NOTE = "Photos are under the licence that stands below each. People's captions: COCO Consortium, CC BY 4.0."
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Each picture: its name, the page's address, the size of the screen, the colours, the word that is pointed at.
PICTURES: list[tuple[str, str, tuple[int, int], str, tuple[int, int] | None]] = [
    ("gallery-list.jpg", "", (1200, 860), "light", (0, 2)),
    ("gallery-grid.jpg", "#view=grid&find=train&order=best+scst", (1200, 760), "light", None),
    ("gallery-phone.jpg", "#find=cat", (390, 844), "dark", (0, 1)),
]


def photos(images: list[dict[str, Any]], source: Path, folder: Path) -> None:
    """The photos in the shapes that they had."""
    for image in images:
        width, height = image["original_width"], image["original_height"]
        scale = PIXELS / max(width, height)
        with Image.open(source / image["filename"]) as photo:
            shape = (round(width * scale), round(height * scale))
            photo.convert("RGB").resize(shape, Image.Resampling.LANCZOS).save(folder / image["filename"], quality=90)


def credits_of(images: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        str(image["cocoid"]): {
            "text": f"photo {image['cocoid']} of COCO, from Flickr",
            "url": image["flickr_url"],
            "licence": LICENCES[image["license_url"]],
            "licence_url": image["license_url"],
        }
        for image in images
    }


def take_pictures(page: Path, output: Path) -> list[str]:
    """Write the pictures of *page*; the ids of the photos in them."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, BROWSERS)))
    seen: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program)
        for name, address, (width, height), scheme, word in PICTURES:
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(page.as_uri() + address)
            if width < 720:
                tab.locator("article").first.scroll_into_view_if_needed()
                tab.evaluate("document.querySelector('article').scrollIntoView()")
            if word is not None:
                tab.locator(".caption.looks").nth(word[0]).locator(".word").nth(word[1]).hover()
            tab.wait_for_timeout(500)
            tab.screenshot(path=output / name, type="jpeg", quality=75)
            seen += tab.evaluate("""() => Array.from(document.querySelectorAll("article"))
              .filter((e) => { const box = e.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; })
              .map((e) => e.dataset.id)""")
            tab.close()
        browser.close()
    return list(dict.fromkeys(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET.json")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="the folder of the photos")
    parser.add_argument("--data", type=Path, required=True, help="the data directory, whose split valid they are")
    parser.add_argument("--captions", nargs="+", action="extend", required=True, metavar="NAME=FILE")
    parser.add_argument("--attention", nargs="+", action="extend", required=True, metavar="NAME=MODEL")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--number", type=int, default=100, help="of photos (100)")
    args = parser.parse_args()
    images = json.loads(args.dataset.read_text(encoding="utf-8"))["images"]
    chosen = sorted((i for i in images if i["split"] == "val"), key=lambda i: i["cocoid"])[: args.number]
    assert all(image["license_url"] in LICENCES for image in chosen), "a photo that may not be shown"
    page = args.output / "gallery.html"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        photos(chosen, args.images, folder / "photos")
        (folder / "credits.json").write_text(json.dumps(credits_of(chosen)), encoding="utf-8")
        subprocess.run(
            ["xgpt-gallery", "--data", args.data, "--split", "valid", "--captions", *args.captions,
             "--attention", *args.attention, "--photos", folder / "photos", "--photo-size", str(PIXELS),
             "--credits", folder / "credits.json", "--order", "id", "--limit", str(args.number),
             "--metrics", "cider,bleu,rouge", "--title", "Photos of COCO with captions of two models", "--note", NOTE,
             "--output", page, "--overwrite"],
            check=True,
        )  # fmt: skip
    credits = credits_of(chosen)
    for image_id in take_pictures(page.resolve(), args.output):
        credit = credits[image_id]
        print(f"[{image_id}]({credit['url']}), [{credit['licence']}]({credit['licence_url']});")


if __name__ == "__main__":
    main()
