"""The picture of photos with captions in README.md: the first photos of a validation split, captioned and drawn.

python docs/photo_sheet.py DATASET.json IMAGES --output docs/photos.jpg

DATASET.json is in Karpathy's layout, with `license_url` and `flickr_url` for each image, as COCO's annotations have
them. The photos are the first of its split val in the order of their numbers, whatever their captions are. A Markdown
list of the photos, with their licences, is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, TEXT, GAP, COLUMNS = 300, 225, 46, 12, 3
LICENCES = {"by": "CC BY", "by-sa": "CC BY-SA"}


def captions_of(photos: list[Path]) -> list[str]:
    """Captions by the captioner that comes with the package."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "captions.json"
        subprocess.run(["xgpt-caption", *photos, "--json", output], check=True, stdout=subprocess.DEVNULL)
        return [image["caption"] for image in json.loads(output.read_text(encoding="utf-8"))]


def lines_of(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines


def draw(photos: list[Path], sizes: list[tuple[int, int]], captions: list[str]) -> Image.Image:
    """A sheet of the photos in the shapes that they had, each above its caption."""
    rows = -(-len(photos) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + TEXT + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, (photo, (width, height), caption) in enumerate(zip(photos, sizes, captions, strict=True)):
        scale = min(WIDTH / width, HEIGHT / height)
        shape = (round(width * scale), round(height * scale))
        left = GAP + number % COLUMNS * (WIDTH + GAP)
        top = GAP + number // COLUMNS * (HEIGHT + TEXT + GAP)
        with Image.open(photo) as image:
            shown = image.convert("RGB").resize(shape, Image.Resampling.LANCZOS)
        sheet.paste(shown, (left + (WIDTH - shape[0]) // 2, top + HEIGHT - shape[1]))
        text = "\n".join(lines_of(caption, font, WIDTH))
        pen.text((left + WIDTH // 2, top + HEIGHT + 4), text, "black", font, anchor="ma", align="center")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET.json")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="the folder of the photos")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--number", type=int, default=6, help="of photos (6)")
    args = parser.parse_args()
    images = json.loads(args.dataset.read_text(encoding="utf-8"))["images"]
    chosen = sorted((i for i in images if i["split"] == "val"), key=lambda i: i["cocoid"])[: args.number]
    licences = [image["license_url"].rstrip("/").split("/")[-2:] for image in chosen]
    assert all(kind in LICENCES for kind, _ in licences), "a photo that may not be shown"
    photos = [args.images / image["filename"] for image in chosen]
    sizes = [(image["original_width"], image["original_height"]) for image in chosen]
    draw(photos, sizes, captions_of(photos)).save(args.output, quality=80)
    for image, (kind, version) in zip(chosen, licences, strict=True):
        licence = f"[{LICENCES[kind]} {version}]({image['license_url']})"
        print(f"[{image['cocoid']}]({image['flickr_url']}), {licence};")


if __name__ == "__main__":
    main()
