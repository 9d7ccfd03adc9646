"""Captions without torch beside those with it: whether they are equal, and what each costs. Tables in Markdown.

    python -m tests.benchmarks.anywhere equal CAPTIONS.json PHOTOS [--count 252]
    python -m tests.benchmarks.anywhere cost WHEEL PHOTOS [--count 1000]
    python -m tests.benchmarks.anywhere page PAGE.html CAPTIONER PHOTOS [--count 50]
    python -m tests.benchmarks.anywhere kinds CAPTIONER PHOTOS [--count 20] [--kinds alpha turn …]

`equal` exports the released captioner in each storage, and compares captions, n-best lists and scores with those of
`XGPTModel`, on the validation photos of Karpathy's file CAPTIONS.json. `cost` installs the WHEEL of `make runtime` into
an empty environment, and measures its size, and time and memory of both programs, by turns. `page` opens the page of
`xgpt-export --html` in a browser, offline, compares its captions with those of the folder of --onnx that it was made
of, and counts its requests. `kinds` writes photos as files of all kinds (`tests/odd_photos.py`), and compares captions
of the released captioner in CAPTIONER with those of `XGPTModel`, and with those of the pixels that a browser decodes.
Leave the machine alone while `cost` runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BEAMS = (1, 2, 5)
BATCH = 32
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, first, count, run in (("equal", "captions", 252, equal), ("cost", "wheel", 1000, cost)):
        command = commands.add_parser(name)
        command.add_argument(first, type=Path)
        command.add_argument("photos", type=Path)
        command.add_argument("--count", type=int, default=count, help="photos at most (default: %(default)s)")
        command.set_defaults(run=run)
    for run, arguments, count in ((page, ("page", "captioner", "photos"), 50), (kinds, ("captioner", "photos"), 20)):
        command = commands.add_parser(run.__name__)
        for argument in arguments:
            command.add_argument(argument, type=Path)
        command.add_argument("--count", type=int, default=count, help="photos at most (default: %(default)s)")
        command.set_defaults(run=run)
    command.add_argument("--kinds", nargs="*", default=[], metavar="KIND", help="only these, by their beginnings")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # fairseq turns on the messages of every library
    args.run(args)


def equal(args: argparse.Namespace) -> None:
    """Compare captions with those of the model in torch."""
    sys.path.insert(0, str(Path("runtime").resolve()))
    from xgpt_fairseq.bundle import RELEASED
    from xgpt_fairseq.captions.references import References
    from xgpt_fairseq.cli import export
    from xgpt_fairseq.metrics.scores import score_captions
    from xgpt_fairseq.models.xgpt import XGPTModel
    from xgpt_fairseq.search.generator import SearchOptions
    from xgpt_runtime import Captioner
    from xgpt_runtime import SearchOptions as LiteOptions
    from xgpt_runtime.captioner import Regions

    images = json.loads(args.captions.read_text(encoding="utf-8"))["images"]
    chosen = [image for image in images if image["split"] == "val"][: args.count]
    files = [args.photos / image["filename"] for image in chosen]
    people = {image["filename"]: [each["raw"] for each in image["sentences"]] for image in chosen}
    references = References(args.captions, people)

    def cider(lists: Sequence[Sequence[Any]]) -> float:
        best = {image["filename"]: found[0].text for image, found in zip(chosen, lists, strict=True)}
        return float(score_captions(best, references, ["cider"]).corpus["CIDEr"])

    model = XGPTModel.from_pretrained()
    regions = model.extractor.extract([model.extractor.load(file) for file in files])
    expected = {
        beam: [each for some in batches(regions) for each in model.candidates_of_regions(some, SearchOptions(beam))]
        for beam in BEAMS
    }
    print(f"{len(files)} photos, CIDEr of beam 2 in torch {cider(expected[2]):.4f}\n")
    print("| storage | MB | beam | captions that differ | n-best lists that differ | largest difference of a score |")
    print("|---" * 6 + "|")
    for storage in ("float32", "16-bit", "mixed"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "captioner"
            export.main([str(RELEASED), "--onnx", "--storage", storage, "--output", str(folder)])
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            lite = Captioner(folder)
            own = [lite.regions(lite.load(file)) for file in files]
            given = [Regions(each.features, each.boxes) for each in regions]
            for shown, inputs in ((storage, own), (f"{storage}, the same regions", given)):
                if inputs is given and storage != "float32":
                    continue
                for beam in BEAMS:
                    options = LiteOptions(beam)
                    found = [each for some in batches(inputs) for each in lite.candidates(some, options)]
                    row = [shown, f"{size:.1f}", str(beam), *differences(found, expected[beam])]
                    print("| " + " | ".join(row) + " |", flush=True)
                    if beam == 2 and inputs is own:
                        print(f"CIDEr of beam 2, {storage}: {cider(found):.4f}", file=sys.stderr)


def batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def differences(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> list[str]:
    """Captions and lists that differ, and the largest difference of the scores of lists that do not."""
    captions = lists = 0
    far = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        captions += ours[0].text != theirs[0].text
        same = [each.text for each in ours] == [each.text for each in theirs]
        lists += not same
        if same:
            far = max(far, *(abs(a.score - b.score) for a, b in zip(ours, theirs, strict=True)))
    return [str(captions), str(lists), f"{far:.1e}"]


def page(args: argparse.Namespace) -> None:
    """Compare the captions of the page, in a browser, with those of the runtime."""
    sys.path.insert(0, str(Path("runtime").resolve()))
    from tests.pages.browser import opened
    from xgpt_runtime import Captioner

    photos = sorted(path for path in args.photos.iterdir() if path.is_file())[: args.count]
    expected = dict(zip([photo.name for photo in photos], Captioner(args.captioner).caption(photos), strict=True))
    with opened() as tab:
        asked: list[str] = []
        tab.on("request", lambda each: asked.append(each.url))
        tab.goto(args.page.resolve().as_uri())
        tab.set_input_files("#photos", list(map(str, photos)))
        began = time.perf_counter()
        while tab.locator("article[aria-busy=true]").count():
            time.sleep(0.5)
        seconds = time.perf_counter() - began
        cards = tab.locator("article").all()
        found = {card.locator("h2").inner_text(): card.locator(".caption").inner_text() for card in cards}
    wrong = [name for name, text in expected.items() if found[name] != text]
    others = [address for address in asked[1:] if not address.startswith("blob:")]
    print(f"{len(wrong)} of {len(photos)} captions differ; {len(others)} requests; {seconds:.0f} s")


def kinds(args: argparse.Namespace) -> None:
    """Compare captions of photos in files of all kinds: of both programs, and of what a browser decodes."""
    import dataclasses

    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(Path("runtime").resolve()))
    from tests.odd_photos import ALL
    from tests.pages.browser import opened
    from tests.pages.decoding import decoded, make_decoding
    from xgpt_fairseq.models.xgpt import XGPTModel
    from xgpt_runtime import Captioner
    from xgpt_runtime.photos import Photo

    model, lite = XGPTModel.from_pretrained(), Captioner(args.captioner)
    form = dataclasses.asdict(lite._form)
    photos = sorted(path for path in args.photos.iterdir() if path.is_file())[: args.count]
    print(f"{len(photos)} photos of each kind\n")
    print("| kind | captions that differ from torch's | grey levels in a browser | captions that differ there |")
    print("|---" * 4 + "|")
    with opened() as tab, tempfile.TemporaryDirectory() as folder:
        make_decoding(tab)
        file = Path(folder) / "photo"
        chosen = [kind for kind in ALL if not args.kinds or kind.startswith(tuple(args.kinds))]
        for kind, make in ((kind, ALL[kind]) for kind in chosen):
            differ = seen_otherwise = levels = 0
            for photo in photos:
                content = make(Image.open(photo).convert("RGB"))
                file.write_bytes(content)
                [ours] = lite.caption(file)
                differ += [ours] != model.caption(file)
                seen = decoded(tab, content, form)
                assert not seen.error, (kind, photo, seen.error)
                away = int(np.abs(seen.pixels.astype(int) - lite.load(file).pixels).max())
                levels = max(levels, away)
                if away:  # else the captions are the same
                    seen_otherwise += lite.candidates([lite.regions(Photo(seen.pixels, seen.size))])[0][0].text != ours
            print(f"| {kind} | {differ} | {levels} | {seen_otherwise} |", flush=True)


def cost(args: argparse.Namespace) -> None:
    """Install the wheel into an empty environment, and measure both programs there and here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "lite"], check=True)
        before = megabytes(folder / "lite")
        pip = [folder / "lite" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", args.wheel]
        subprocess.run(pip, check=True)
        listed = subprocess.run([folder / "lite/bin/pip", "list", "--format=freeze"], capture_output=True, text=True)
        print(f"installed {megabytes(folder / 'lite') - before:.0f} MB: {' '.join(listed.stdout.split())}\n")
        photos = sorted(path for path in args.photos.iterdir() if path.is_file())[: args.count]
        (folder / "all").mkdir()
        for photo in photos:
            shutil.copy(photo, folder / "all")
        programs = {
            "xgpt-caption-lite": [folder / "lite" / "bin" / "xgpt-caption-lite"],
            "xgpt-caption": [sys.executable, "-m", "xgpt_fairseq.cli.caption"],
        }
        print(
            "| photos | program | seconds, median of rounds | lowest to highest | most memory, MB |\n"
            + "|---" * 5
            + "|"
        )
        for shown, given, rounds in (("1", photos[0], ROUNDS), (str(len(photos)), folder / "all", 1)):
            runs: dict[str, list[tuple[float, float, str]]] = {program: [] for program in programs}
            for _ in range(rounds):
                for program, command in programs.items():
                    runs[program].append(measured([*command, given]))
            for program, of in runs.items():
                times = [seconds for seconds, *_ in of]
                row = [shown, program, f"{statistics.median(times):.2f}", f"{min(times):.2f} to {max(times):.2f}"]
                print("| " + " | ".join([*row, f"{max(memory for _, memory, _ in of):.0f}"]) + " |", flush=True)
            lines = [of[0][2].splitlines() for of in runs.values()]
            print(
                f"{sum(a != b for a, b in zip(*lines, strict=True))} of {len(lines[0])} lines differ", file=sys.stderr
            )


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


def measured(command: Sequence[object]) -> tuple[float, float, str]:
    """Seconds and most megabytes of a command, and what it printed."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        output.seek(0)
        return seconds, usage.ru_maxrss / 1000, output.read()


if __name__ == "__main__":
    main()
