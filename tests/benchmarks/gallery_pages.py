"""How a gallery of many images opens, scrolls, sorts and is searched in a browser, and what memory it takes.

    python -m tests.benchmarks.gallery_pages                                # 100, 1 000 and 5 000 images
    python -m tests.benchmarks.gallery_pages 5000 --linked                  # photos beside the page
    PYTHONPATH=other_checkout python tests/benchmarks/gallery_pages.py      # the pages of another version

Pages of two systems with five people's captions each, and photos of 320 × 240 pixels of their own, in Debian's Chromium
without a window. Prints a table in Markdown, of the medians of three browsers after one another:

- opened: from the start of the navigation until the first photo is on the screen, and until the page is whole;
- sort, search: until the screen shows the result;
- scroll: the longest time between two frames while the page is scrolled by a screen in each of 60 frames;
- nodes: of the document; memory: the processes' proportional set size (PSS) of this page, over that of an empty page.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from xgpt_fairseq.captions.references import References
from xgpt_fairseq.metrics.scores import Scores
from xgpt_fairseq.pages.gallery import System, match_photos, render_gallery

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
logging.getLogger("asyncio").setLevel(logging.WARNING)  # it says which selector it uses
WORDS = [
    "a", "the", "man", "woman", "dog", "cat", "red", "blue", "small", "large", "street", "beach", "table", "kitchen",
    "with", "on", "in", "of", "sits", "stands", "rides",
]  # fmt: skip

PAINTED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
FIRST_PHOTO = """new Promise((done) => {
  const look = () => {
    const image = document.querySelector("article img");
    if (image && image.complete && image.naturalWidth) done(performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""
SCROLL = """new Promise((done) => {
  const times = [];
  const step = (now) => {
    times.push(now);
    if (times.length > 60) {
      done(Math.max(...times.slice(1).map((time, i) => time - times[i])));
      return;
    }
    window.scrollBy(0, innerHeight);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
CHANGE = """async ([id, value, event]) => {
  const control = document.getElementById(id);
  const began = performance.now();
  control.value = value;
  control.dispatchEvent(new Event(event, { bubbles: true }));
  await PAINTED;
  return performance.now() - began;
}""".replace("PAINTED", PAINTED)


def photos(folder: Path, count: int) -> None:
    """Photos with noise, so that each takes some 15 KB."""
    import numpy as np
    from PIL import Image

    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=80)


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(8, 13))) + "."


def write_page(folder: Path, count: int, *, linked: bool) -> Path:
    """The page of *count* images, and the seconds that it takes to write."""
    rng = random.Random(count)
    captions = {str(number): [sentence(rng) for _ in range(5)] for number in range(count)}
    references = References(Path("test.references.json"), captions)
    systems = []
    for name in ("base", "tiny"):
        per_image = {image_id: {"BLEU@4": rng.random(), "CIDEr": 2 * rng.random()} for image_id in captions}
        corpus = {"BLEU@4": 0.3, "CIDEr": 0.9}
        systems.append(System(name, {i: sentence(rng) for i in captions}, Scores(corpus, per_image, {})))
    found = match_photos([folder], references.image_ids, link_from=folder if linked else None)
    page = folder / "page.html"
    page.write_text(
        render_gallery(references, systems, references.image_ids, title="Many images", photos=found), encoding="utf-8"
    )
    return page


def memory_of(browser_pid: int) -> float:
    """PSS in MB of a browser with all its processes."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    family, grown = {browser_pid}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    total = 0
    for pid in family:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1000


def measure(program: str, page: Path, rounds: int = 3) -> dict[str, float]:
    """The medians of what a browser takes that shows only this page, of some browsers after one another."""
    found = [measure_once(program, page) for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def measure_once(program: str, page: Path) -> dict[str, float]:
    """What a browser that shows only this page takes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        server = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab: Any = server.new_page(viewport={"width": 1440, "height": 900})
        pid = _pid_of(server)
        tab.goto("about:blank")
        time.sleep(1)
        empty = memory_of(pid)
        tab.goto(page.as_uri(), wait_until="commit", timeout=300_000)
        first = tab.evaluate(FIRST_PHOTO)
        tab.wait_for_load_state("load", timeout=300_000)
        whole = tab.evaluate(
            f"{PAINTED}.then(() => Math.max(performance.getEntriesByType('navigation')[0].loadEventEnd, 0))"
        )
        memory = memory_of(pid) - empty
        orders = tab.evaluate("Array.from(document.getElementById('order').options, (o) => o.value)")
        worst = next(order for order in orders if order.startswith("worst"))
        sort = tab.evaluate(CHANGE, ["order", worst, "change"])
        search = tab.evaluate(CHANGE, ["find", "red kitchen", "input"])
        tab.evaluate(CHANGE, ["find", "", "input"])
        scroll = tab.evaluate(SCROLL)
        nodes = tab.evaluate("document.querySelectorAll('*').length")
        scrolled = memory_of(pid) - empty
        server.close()
    return {
        "first": first / 1000, "whole": whole / 1000, "sort": sort, "search": search, "scroll": scroll,
        "nodes": nodes, "memory": memory, "scrolled": scrolled,
    }  # fmt: skip


def _pid_of(browser: Any) -> int:
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return int(next(each["id"] for each in processes if each["type"] == "browser"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, metavar="N", help="(default: 100 1000 5000)")
    parser.add_argument("--linked", action="store_true", help="photos beside the page")
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed")
    print("| images | page MB | photo s | whole s | sort ms | search ms | scroll ms | nodes | MB | MB, scrolled |")
    print("|---" * 10 + "|")
    for count in args.counts or (100, 1000, 5000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            photos(folder, count)
            page = write_page(folder, count, linked=args.linked)
            found = measure(program, page)
            print(
                f"| {count:,} | {page.stat().st_size / 1e6:.1f} | {found['first']:.2f} | {found['whole']:.2f} | "
                f"{found['sort']:.0f} | {found['search']:.0f} | {found['scroll']:.0f} | {found['nodes']:,.0f} | "
                f"{found['memory']:.0f} | {found['scrolled']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
