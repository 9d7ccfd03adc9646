"""`xgpt-caption`: captions of photos, folders, tars and tables of them, or of a region store; or a local page."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.novelty_warnings import NoveltyWarnings
from xgpt_fairseq.devices import default_device
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.hub_interface import PHOTOS_AT_ONCE, LoadedPhoto, XGPTHubInterface
from xgpt_fairseq.io.atomic import atomic_write, check_writable, write_json
from xgpt_fairseq.regions.format import DEFAULT_REGIONS
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.serving.limits import BEAMS, DEFAULT_PORT, HOST, IN_WORDS

if TYPE_CHECKING:
    from xgpt_fairseq.vision.detections import Detections
    from xgpt_fairseq.vision.photos import PhotoFile

LOADERS = 4  # threads that decode photos; more would only wait for the backbone

_EXAMPLE = """\
Each caption is printed as a line: file (or image id), tab, caption. Files that cannot be read as photos are listed on
standard error; the exit status is 1 only if none could be read (with --strict, if any could not). Images that look
unlike those that the captioner was trained on are named there, too: their captions are probably wrong.

With --serve, the browser of this machine, and no other, gets a page where photos are dropped and captioned; --beam is
what it begins with. Its limits: LIMITS.

examples:
  xgpt-caption photos holiday.jpg --path bundle --json captions.json --html captions.html
  xgpt-caption --path bundle --serve
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: caption(_parse(arguments)))


def caption(args: argparse.Namespace) -> None:
    """Caption, print, and write the requested files; or serve the page; or print what the captioner is."""
    if args.about:
        if args.photos or args.serve:
            raise DataError("--about prints what the captioner is; it captions nothing: leave photos and --serve out")
        print(about(XGPTHubInterface.from_path(args.path, data=args.data).bundle))
        return
    if args.serve:
        _check_serve(args)
    for output in (args.json, args.html):
        if output is not None:
            check_writable(output, overwrite=args.overwrite)
    check_at_least("--beam", args.beam, 1)
    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--max-len", args.max_len, 1)
    check_at_least("--no-repeat-ngram-size", args.no_repeat_ngram_size, 0)
    device = args.device or default_device()
    captioner = XGPTHubInterface.from_path(
        args.path, data=args.data, backbone_weights=args.backbone_weights, offline=args.offline
    ).to(device)
    options = SearchOptions(
        beam=args.beam,
        lenpen=args.lenpen,
        max_len_b=args.max_len,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        cpu_bf16=args.cpu_bf16,
    )
    if args.serve:
        from xgpt_fairseq.serving.server import serve

        serve(captioner, options, port=args.port, title=args.title)
    elif any((path / "store.json").is_file() for path in args.photos):
        _caption_store(args, captioner, options)
    else:
        _caption_photos(args, captioner, options)


def about(bundle: Bundle) -> str:
    """What a captioner is, in lines, and its model card."""
    config, training, settings = bundle.config, bundle.training, bundle.extractor_settings
    parameters = sum(each.numel() for each in bundle.model.parameters())
    lines = [
        f"model       {parameters:,} parameters, {config.layers} layers, {config.hidden_size} wide, {config.sharing}",
        f"vocabulary  {len(bundle.vocabulary.dictionary):,} entries",
        f"regions     {bundle.trained_on}, {config.feature_dim} wide",
    ]
    if settings is not None:
        from xgpt_fairseq.vision.rebuilding import in_words

        lines.append(f"photos      {in_words(settings)}")
    if training:
        updates = f", {training['updates']:,} updates" if training.get("updates") else ""
        start = f", started from {training['started_from']}" if training.get("started_from") else ""
        lines.append(
            f"trained on  {training['data']}: {training['images']:,} images, {training['captions']:,} captions"
            f"{updates}{start}"
        )
    return "\n".join([*lines, "", bundle.card.strip() or "It has no model card."])


def _check_serve(args: argparse.Namespace) -> None:
    """Refuse what makes no sense with --serve."""
    if args.photos:
        raise DataError(
            "--serve captions the photos that are dropped on its page; without --serve, those of the command are "
            f"captioned: {', '.join(map(str, args.photos))}"
        )
    for name in ("json", "html", "detections", "strict", "overwrite"):
        if getattr(args, name):
            raise DataError(f"--{name} is for the photos of a command, not for --serve")
    if args.beam not in BEAMS:
        raise DataError(f"--beam must be {BEAMS[0]} to {BEAMS[-1]} with --serve, got {args.beam}")
    if not 0 <= args.port <= 65535:
        raise DataError(f"--port must be 0 to 65535, got {args.port}")


def _caption_store(args: argparse.Namespace, captioner: XGPTHubInterface, options: SearchOptions) -> None:
    if len(args.photos) > 1:
        raise DataError(f"one region store at a time: {', '.join(map(str, args.photos))}")
    if args.detections:
        raise DataError("--detections is for photos; a region store has its regions")
    store = RegionStore(args.photos[0])
    captions: list[tuple[str, str]] = []
    found = captioner.caption_store(store, options, args.batch_size)
    unlike = NoveltyWarnings(captioner.bundle.novelty)
    for image_id, best, novelty in tqdm(found, total=len(store), unit=" images", disable=None):
        captions.append((image_id, best.text))
        tqdm.write(f"{image_id}\t{best.text}", file=sys.stdout)
        for line in unlike.of(image_id, novelty):
            tqdm.write(line, file=sys.stderr)
    unlike.print_summary()
    if args.json is not None:
        _write_json(args.json, [{"image_id": image_id, "caption": text} for image_id, text in captions])
    if args.html is not None:
        from xgpt_fairseq.pages.caption_page import CaptionedPicture, render_captions
        from xgpt_fairseq.pages.gallery import picture

        cards = [CaptionedPicture(name, picture(name, None, store, overlay=False), text) for name, text in captions]
        _write_page(args.html, render_captions(cards, title=args.title))


def _caption_photos(args: argparse.Namespace, captioner: XGPTHubInterface, options: SearchOptions) -> None:
    from xgpt_fairseq.vision.photo_files import check_ids, find_photos

    files = find_photos(args.photos)
    if not files:
        raise DataError(f"there are no files in {', '.join(map(str, args.photos))}")
    needed = captioner.extractor.needs_boxes
    if needed != (args.detections is not None):
        raise DataError(
            "the model was trained on the boxes of a detector: give those of the photos, --detections results.json"
            if needed
            else f"--detections: the model was trained on {captioner.extractor.in_words}, not on boxes from a file"
        )
    if needed or args.json is not None:
        check_ids(files)
    detections = _read_detections(args.detections, files) if needed else None
    captions: list[tuple[PhotoFile, str]] = []
    unreadable: list[tuple[str, str]] = []
    unlike = NoveltyWarnings(captioner.bundle.novelty)
    with tqdm(total=len(files), unit=" photos", disable=None) as bar:

        def missed(file: PhotoFile, reason: str) -> None:
            unreadable.append((str(file.path), reason))
            bar.write(f"not read: {file.path}: {reason}", file=sys.stderr)
            bar.update()

        photos = _load(captioner, files, detections, missed)
        for file, best, novelty in captioner.caption_loaded(photos, options=options, batch_size=args.batch_size):
            captions.append((file, best.text))
            bar.write(f"{file.path}\t{best.text}", file=sys.stdout)
            for line in unlike.of(str(file.path), novelty):
                bar.write(line, file=sys.stderr)
            bar.update()
    unlike.print_summary()
    if args.json is not None:
        named = [{"file": str(file.path), "image_id": file.image_id, "caption": text} for file, text in captions]
        _write_json(args.json, named)
    if args.html is not None and captions:
        from xgpt_fairseq.pages.caption_page import CaptionedPicture, render_captions
        from xgpt_fairseq.pages.gallery import picture_of_photo

        cards = [CaptionedPicture(str(file.path), picture_of_photo(file), text) for file, text in captions]
        _write_page(args.html, render_captions(cards, title=args.title, unreadable=unreadable))
    if not captions:
        raise DataError(f"none of the {len(files)} files could be read as a photo")
    if args.strict and unreadable:
        raise DataError(f"--strict: {len(unreadable)} of {len(files)} files could not be read")


def _load(
    captioner: XGPTHubInterface,
    files: Sequence[PhotoFile],
    detections: Detections | None,
    missed: Callable[[PhotoFile, str], None],
) -> Iterator[LoadedPhoto[PhotoFile]]:
    """Read photos, some ahead of those that are captioned; tell *missed* of those that are none."""
    from xgpt_fairseq.vision.photos import Photo, PhotoError

    def load(file: PhotoFile) -> Photo | PhotoError:
        try:
            return captioner.extractor.load(file)
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(LOADERS) as pool:
        rest = iter(files)
        waiting = deque((file, pool.submit(load, file)) for file in islice(rest, PHOTOS_AT_ONCE))
        while waiting:
            file, future = waiting.popleft()
            for following in islice(rest, 1):
                waiting.append((following, pool.submit(load, following)))
            photo = future.result()
            if isinstance(photo, PhotoError):
                missed(file, photo.reason)
                continue
            boxes = None if detections is None else detections.normalised(file.image_id, photo.size)
            yield file, photo, boxes


def _read_detections(path: Path, files: Sequence[PhotoFile]) -> Detections:
    from xgpt_fairseq.vision.detections import Detections
    from xgpt_fairseq.vision.pooling import max_boxes

    return Detections(path, [file.image_id for file in files], max_boxes(DEFAULT_REGIONS))


def _write_json(path: Path, value: list[dict[str, str]]) -> None:
    write_json(path, value)


def _write_page(path: Path, page: str) -> None:
    with atomic_write(path) as aside:
        aside.write_text(page, encoding="utf-8", errors="replace")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    if not args.photos and not args.serve and not args.about:
        parser.error("the following arguments are required: PHOTO, or --serve, or --about")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xgpt-caption",
        description=__doc__,
        epilog=_EXAMPLE.replace("LIMITS", IN_WORDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "photos",
        type=Path,
        nargs="*",
        metavar="PHOTO",
        help="photos, folders, tars or tables of photos, or a region store",
    )
    parser.add_argument(
        "--path",
        type=Path,
        metavar="BUNDLE",
        help="a bundle of xgpt-export, or a checkpoint [the captioner in the package]",
    )
    parser.add_argument("--data", type=Path, help="data directory of a checkpoint [the one it was trained on]")
    parser.add_argument(
        "--detections", type=Path, metavar="JSON", help="boxes of the photos, for a model that was trained on boxes"
    )
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="weights of the network that sees the photos, a folder for transformers [the published ones]",
    )
    parser.add_argument("--offline", action="store_true", help="never fetch those weights")
    parser.add_argument("--beam", type=int, default=2, help="beam size (%(default)s)")
    parser.add_argument("--lenpen", type=float, default=1.0, help="> 1: longer captions, < 1: shorter (%(default)s)")
    parser.add_argument("--max-len", type=int, default=60, help="longest caption in tokens (%(default)s)")
    parser.add_argument(
        "--no-repeat-ngram-size",
        type=int,
        default=0,
        metavar="N",
        help="no sequence of N tokens occurs twice in a caption [0: any may]",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … [a GPU if there is one]")
    parser.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU with bfloat16 arithmetic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the captions: a list of file, id and caption")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of the images with their captions")
    parser.add_argument("--title", default="Captions", help="title of the page")
    parser.add_argument("--about", action="store_true", help="print what the captioner is, and its model card")
    parser.add_argument("--serve", action="store_true", help=f"serve a page that captions photos, on {HOST} alone")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of --serve (%(default)s); 0: any free one")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if any file could not be read")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --json and --html")
    return parser


if __name__ == "__main__":
    main()
