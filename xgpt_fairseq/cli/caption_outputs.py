"""Where xgpt-caption's captions go: lines to print, a list in JSON, lines of JSON, a page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.cli.caption_results import Result
from xgpt_fairseq.cli.novelty_warnings import NoveltyWarnings
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write, write_json
from xgpt_fairseq.io.text_lines import as_field

if TYPE_CHECKING:
    from tqdm import tqdm

    from xgpt_fairseq.io.resumable_lines import ResumableLines
    from xgpt_fairseq.regions.novelty import NoveltyDetector

TITLE = "Captions"  # of the page, by default


def print_and_write(
    groups: Iterable[list[Result]], total: int, novelty: NoveltyDetector | None, args: argparse.Namespace
) -> list[Result]:
    """Print the results as they come, and write the files of --json and --html at the end.

    Returns:
        list: all results.

    Raises:
        DataError: none of the images could be read; or, with --strict, not all. Or a photo can no longer be read for
            the page; the file of --json is written.
    """
    from tqdm import tqdm

    unlike = NoveltyWarnings(novelty)
    results: list[Result] = []
    with tqdm(total=total, unit=" images", disable=None) as bar:
        for group in groups:
            for result in group:
                _print(result, unlike, bar)
                bar.update()
            results += group
    unlike.print_summary()
    captioned = [(result, result.best.text) for result in results if result.best is not None]
    if args.json is not None:  # before the page, for which a photo may no longer be there
        write_json(args.json, [{**result.named, "caption": text} for result, text in captioned])
    if args.html is not None and captioned:
        page = _page(args, results, novelty)
        with atomic_write(Path(args.html)) as aside:
            aside.write_text(page, encoding="utf-8", errors="replace")
    _check_read(len(captioned), total, args)
    return results


def write_lines(
    groups: Iterable[list[Result]],
    lines: ResumableLines,
    total: int,
    group: int,
    novelty: NoveltyDetector | None,
    args: argparse.Namespace,
    *,
    part: bool,
) -> None:
    """Write the results as lines of JSON, as they come; *lines* has some of them already.

    Args:
        part: whether these are only some of the images: that none of them can be read is no error, then.

    Raises:
        DataError: as `print_and_write`, of all images, those of an interrupted run included.
    """
    from tqdm import tqdm

    before = min(lines.groups * group, total)
    captioned = before - _errors(lines.path) if before else 0
    with tqdm(total=total, initial=before, unit=" images", disable=None) as bar:
        for results in groups:
            lines.write([_line(result, novelty) for result in results])
            captioned += sum(result.best is not None for result in results)
            bar.update(len(results))
    lines.finish()
    print(f"{captioned} of {total} images captioned: {lines.path}")
    if captioned or not part or args.strict:
        _check_read(captioned, total, args)


def _errors(path: Path) -> int:
    """How many lines say that a file can't be read."""
    with open(path, "rb") as lines:
        return sum(b'"error": ' in line and "error" in json.loads(line) for line in lines)


def _line(result: Result, novelty: NoveltyDetector | None) -> Mapping[str, Any]:
    if result.best is None:
        return {**result.named, "error": result.reason}
    line = {**result.named, "caption": result.best.text, "score": round(result.best.score, 4)}
    if novelty is not None and result.novelty is not None:
        line["unlike"] = result.novelty > novelty.limit
    return line


def _print(result: Result, unlike: NoveltyWarnings, bar: tqdm) -> None:
    name = as_field(result.name)
    if result.best is None:
        bar.write(f"not read: {name}: {as_field(result.reason)}", file=sys.stderr)
        return
    bar.write(f"{name}\t{result.best.text}", file=sys.stdout)
    for line in unlike.of(name, result.novelty):
        bar.write(line, file=sys.stderr)


def _check_read(captioned: int, total: int, args: argparse.Namespace) -> None:
    if not captioned:
        raise DataError(f"none of the {total} files could be read as a photo")
    if args.strict and captioned < total:
        raise DataError(f"--strict: {total - captioned} of {total} files could not be read")


def _page(args: argparse.Namespace, results: list[Result], novelty: NoveltyDetector | None) -> str:
    from xgpt_fairseq.pages.caption_page import CaptionedPicture, render_captions
    from xgpt_fairseq.pages.pictures import Regions, picture
    from xgpt_fairseq.regions.store import RegionStore

    store = RegionStore(args.photos[0]) if results[0].photo is None else None
    images = []
    for result in results:
        if result.best is None:
            continue
        shown = picture(result.image_id, result.photo, store)
        if result.best.attention is not None and shown.regions is None:
            shown = dataclasses.replace(shown, regions=Regions(result.best.attention.boxes.tolist()))
        unlike = novelty is not None and result.novelty is not None and result.novelty > novelty.limit
        # by its name, not its id, which photos may share
        name = result.short_name
        images.append(CaptionedPicture(name, name, shown, result.best, result.best.others, unlike))
    unreadable = [(result.short_name, result.reason) for result in results if result.best is None]
    return render_captions(images, title=args.title or TITLE, lenpen=args.lenpen, unreadable=unreadable)
