"""`xgpt-caption`: captions of photos, folders, tars and tables of them, or of a region store; or a local page."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.about import about
from xgpt_fairseq.cli.caption_checks import check_effects, check_outputs, check_serve, check_store
from xgpt_fairseq.cli.caption_outputs import TITLE, print_and_write, write_lines
from xgpt_fairseq.cli.caption_results import Result, photo_group, photo_results, store_results
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.cli.path_lists import add_list_option, with_listed_paths
from xgpt_fairseq.errors import DataError, check_at_least, check_between
from xgpt_fairseq.io.folders import is_file
from xgpt_fairseq.io.resumable import partial_path
from xgpt_fairseq.io.resumable_lines import ResumableLines
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS
from xgpt_fairseq.serving.limits import DEFAULT_PORT, HOST, IN_WORDS

if TYPE_CHECKING:
    from xgpt_fairseq.hub_interface import XGPTHubInterface
    from xgpt_fairseq.search.generator import SearchOptions
    from xgpt_fairseq.vision.detections import Detections
    from xgpt_fairseq.vision.photo_list import PhotoList
    from xgpt_fairseq.vision.photo_shards import Shard
    from xgpt_fairseq.vision.photos import PhotoFile
    from xgpt_fairseq.word_attention import Heads

_EXAMPLE = """\
Each caption is printed as a line: file (or image id), tab, caption. Files that cannot be read as photos are listed on
standard error; the exit status is 1 only if none could be read (with --strict, if any could not). Images that look
unlike those that the captioner was trained on are named there, too: their captions are probably wrong. With --jsonl,
both are said in the lines: "error" and "unlike".

With --serve, the browser of this machine, and no other, gets a page where photos are dropped and captioned; --beam is
what it begins with. Its limits: LIMITS.

examples:
  xgpt-caption photos holiday.jpg --path bundle --json captions.json --html captions.html
  xgpt-caption --path bundle --serve
  torchrun --nproc-per-node 8 -m xgpt_fairseq.cli.caption shards/*.tar --path bundle --jsonl captions.jsonl
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: caption(_parse(arguments)))


def caption(args: argparse.Namespace) -> None:
    """Caption, print, and write the requested files; or serve the page; or print what the captioner is."""
    from xgpt_fairseq.devices import own_device, usable_device
    from xgpt_fairseq.hub_interface import XGPTHubInterface
    from xgpt_fairseq.precision import check_cpu_bfloat16
    from xgpt_fairseq.search.generator import LENPEN, SearchOptions

    if args.about:
        if args.photos or args.serve:
            raise DataError("--about prints what the captioner is; it captions nothing: leave photos and --serve out")
        print(about(XGPTHubInterface.from_path(args.path, data=args.data, regions=args.regions).bundle))
        return
    if args.serve:
        check_serve(args)
    elif args.title is not None and args.html is None:
        raise DataError("--title is the title of a page: it needs --html or --serve")
    for path in args.photos:
        if is_file(path / "dataset.json"):
            raise DataError(
                f"{path} is a data directory: fairseq-generate captions its images; a region store, such as the one "
                "it was prepared with, is captioned here"
            )
    check_outputs(args)
    stored = any(is_file(path / "store.json") for path in args.photos)
    if stored:
        check_store(args)
    check_at_least("--beam", args.beam, 1)
    check_between("--lenpen", args.lenpen, -LENPEN, LENPEN)
    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--max-len", args.max_len, 1)
    check_at_least("--no-repeat-ngram-size", args.no_repeat_ngram_size, 0)
    if args.no_early_stop and args.no_repeat_ngram_size:
        raise DataError("--no-early-stop is for plain beam search: leave out --no-repeat-ngram-size")
    device = usable_device(args.device or own_device())
    if args.cpu_bf16:
        check_cpu_bfloat16(device)
    captioner = XGPTHubInterface.from_path(
        args.path,
        data=args.data,
        regions=args.regions,
        backbone_weights=args.backbone_weights,
        offline=args.offline,
    ).to(device)
    options = SearchOptions(
        beam=args.beam,
        lenpen=args.lenpen,
        max_len_b=args.max_len,
        no_repeat_ngram_size=args.no_repeat_ngram_size,
        no_early_stop=args.no_early_stop,
        cpu_bf16=args.cpu_bf16,
    )
    if args.serve:
        from xgpt_fairseq.serving.server import serve

        serve(captioner, options, port=args.port, title=args.title or TITLE)
    elif stored:
        _caption_store(args, captioner, options)
    else:
        _caption_photos(args, captioner, options)


def _caption_store(args: argparse.Namespace, captioner: XGPTHubInterface, options: SearchOptions) -> None:
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.vision.photo_shards import row_range

    store, group = RegionStore(args.photos[0]), args.batch_size
    rows, name = range(len(store)), args.jsonl
    if (shard := _shard(args)) is not None:
        rows, name = row_range(len(store), shard, group), shard.file(args.jsonl)

    def results(first: int) -> Iterator[list[Result]]:
        return store_results(
            captioner, store, rows[first:], options=options, batch_size=args.batch_size, attention=_attention(args)
        )

    images = {"store": str(store.path.resolve()), "checksums": store.sha256}
    _write(args, captioner, results, len(rows), name, group, images=images)


def _caption_photos(args: argparse.Namespace, captioner: XGPTHubInterface, options: SearchOptions) -> None:
    from xgpt_fairseq.vision.photo_files import check_ids, find_photos

    needed = captioner.extractor.needs_boxes
    if needed != (args.detections is not None):
        raise DataError(
            "the model was trained on the boxes of a detector: give those of the photos, --detections results.json"
            if needed
            else f"--detections: the model was trained on {captioner.extractor.in_words}, not on boxes from a file"
        )
    if args.jsonl is not None:
        _caption_list(args, captioner, options)
        return
    _shard(args)
    files = find_photos(args.photos)
    if not files:
        raise DataError(f"there are no files in {', '.join(map(str, args.photos))}")
    if needed or args.json is not None:
        check_ids(files)
    detections = _read_detections(args.detections, files, captioner) if needed else None
    found = photo_results(
        captioner,
        files,
        detections=detections,
        options=options,
        batch_size=args.batch_size,
        attention=_attention(args),
    )
    print_and_write(found, len(files), captioner.bundle.novelty, args)


def _caption_list(args: argparse.Namespace, captioner: XGPTHubInterface, options: SearchOptions) -> None:
    """Write lines of the photos, from a list that is made once, and that all shards share."""
    from xgpt_fairseq.vision.photo_list import listed_at, listed_photos, remove_list

    shard = _shard(args)
    place = args.jsonl.with_name(f"{args.jsonl.name}.photos")
    if shard is None:
        place = place.with_name(f".{place.name}")
    needed = captioner.extractor.needs_boxes
    partial = partial_path(Path(os.path.realpath(args.jsonl)))
    again = shard is None and (args.overwrite or not partial.is_dir())
    own = [args.jsonl, place] if shard is None else [args.jsonl, place, *shard.files(args.jsonl)]
    try:
        files, made = listed_photos(args.photos, place, given=args.given, exclude=own, again=again, unique=needed)
        with contextlib.closing(files):
            if made is not None:
                print(f"{len(files)} files, as listed on {listed_at(made)} in {place}: what came later is left out")
            _caption_listed(args, captioner, options, files, shard)
    finally:
        if shard is None and not partial.is_dir():
            remove_list(place)


def _caption_listed(
    args: argparse.Namespace,
    captioner: XGPTHubInterface,
    options: SearchOptions,
    files: PhotoList,
    shard: Shard | None,
) -> None:
    from xgpt_fairseq.vision.photo_shards import shard_range

    group, name = photo_group(args.batch_size), args.jsonl
    # what the list is of, as it is recorded there: an earlier version may have said it in other words than args.given
    images: dict[str, Any] = {"given": files.given, "photos": len(files), "names_sha256": files.names_sha256}
    if shard is not None:
        part = shard_range(files, shard, group)
        files, name = files[part.start : part.stop], shard.file(args.jsonl)
    detections = None if args.detections is None else _read_detections(args.detections, files, captioner)

    def results(first: int) -> Iterator[list[Result]]:
        return photo_results(
            captioner, files[first:], detections=detections, options=options, batch_size=args.batch_size
        )

    if args.detections is not None:
        with open(args.detections, "rb") as file:
            images["detections_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        if captioner.bundle.max_regions != DEFAULT_REGIONS:  # which an earlier version had for all
            images["max_regions"] = captioner.bundle.max_regions
    _write(args, captioner, results, len(files), name, group, images=images)


def _write(
    args: argparse.Namespace,
    captioner: XGPTHubInterface,
    results: Callable[[int], Iterator[list[Result]]],
    total: int,
    jsonl: Path | None,
    group: int,
    *,
    images: Mapping[str, Any],
) -> None:
    """Write what *results* says of the images behind a first number of them, wherever the user wants it.

    Args:
        jsonl: the file of --jsonl.
        group: images of a group of results.
        images: what decides which images these are, as JSON.
    """
    novelty = captioner.bundle.novelty
    if jsonl is None:
        print_and_write(results(0), total, novelty, args)
        return
    search = ("beam", "lenpen", "max_len", "no_repeat_ngram_size", "no_early_stop", "batch_size", "cpu_bf16")
    how: dict[str, Any] = {"captioner": captioner.bundle.sha256(), "extractor": captioner.bundle.extractor_settings}
    how |= {"device": captioner.device.type, **{name: getattr(args, name) for name in search}}
    part = jsonl != args.jsonl  # of a shard: torchrun, started again, would stop all for one that has an error
    options = {**how, **images}
    with ResumableLines(jsonl, options, group=group, overwrite=args.overwrite, keep_options=part) as lines:
        if lines.finished:
            print("this part was finished by an earlier run")
            return
        if lines.groups:
            print(f"resuming an interrupted run after {min(lines.groups * group, total)} images")
        write_lines(results(lines.groups * group), lines, total, group, novelty, args, part=part)


def _attention(args: argparse.Namespace) -> Heads | None:
    from xgpt_fairseq.word_attention import Heads

    return Heads() if args.attention else None


def _shard(args: argparse.Namespace) -> Shard | None:
    from xgpt_fairseq.vision.photo_shards import check_parts_of_file, chosen_shard

    shard = chosen_shard(args.num_shards, args.shard_id, os.environ)
    if shard is not None and (args.jsonl is None or args.json is not None or args.html is not None):
        raise DataError(
            f"shard {shard.index} of {shard.count} ({shard.said_by}): each shard writes its own file of --jsonl; leave "
            "--json and --html out, or caption all images by one process (--num-shards 1)"
        )
    if args.jsonl is not None and args.num_shards != 1:
        check_parts_of_file(args.jsonl, shard)
    if shard is not None:
        print(f"shard {shard.index} of {shard.count} ({shard.said_by}), to {shard.file(args.jsonl)}")
    return shard


def _read_detections(path: Path, files: Sequence[PhotoFile], captioner: XGPTHubInterface) -> Detections:
    """The boxes of *files*, as many of a photo as of one in training."""
    from xgpt_fairseq.vision.detections import Detections
    from xgpt_fairseq.vision.pooling import max_boxes

    return Detections(path, [file.image_id for file in files], max_boxes(captioner.bundle.max_regions))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(arguments)
    check_effects(parser, args)
    if args.serve or args.about:
        if args.list is not None:
            parser.error("--list names photos of a command; leave it out with --serve and --about")
        return args
    return with_listed_paths(parser, args, "PHOTO, or --list, or --serve, or --about")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
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
    add_list_option(parser)
    parser.add_argument(
        "--path",
        type=Path,
        metavar="BUNDLE",
        help="a bundle of xgpt-export, or a checkpoint [the captioner in the package]",
    )
    parser.add_argument("--data", type=Path, help="data directory of a checkpoint [the one it was trained on]")
    parser.add_argument(
        "--regions", type=Path, metavar="STORE", help="region store of a checkpoint [the one it was trained on]"
    )
    parser.add_argument(
        "--detections", type=Path, metavar="JSON", help="boxes of the photos, for a model that was trained on boxes"
    )
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="weights of the network that sees the photos, a folder for transformers [in the bundle, or published]",
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
    parser.add_argument(
        "--no-early-stop",
        action="store_true",
        help="search on when there are as many captions as beams, as long as an unfinished one may become better",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … [a GPU if there is one]")
    parser.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU with bfloat16 arithmetic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the captions: a list of file, id and caption")
    parser.add_argument(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="write a line of JSON for each image as it comes, and print none; killed, the same command goes on",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of the images with their captions")
    parser.add_argument("--attention", action="store_true", help="also show on the page where the model looks")
    parser.add_argument("--title", help=f"title of the page [{TITLE}]")
    parser.add_argument("--about", action="store_true", help="print what the captioner is, and its model card")
    parser.add_argument("--serve", action="store_true", help=f"serve a page that captions photos, on {HOST} alone")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port of --serve (%(default)s); 0: any free one")
    parser.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="caption one of N parts of the images, to a file of --jsonl of its own [as torchrun or SLURM says]",
    )
    parser.add_argument("--shard-id", type=int, metavar="I", help="which part, from 0 [as torchrun or SLURM says]")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if any file could not be read")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of --json, --jsonl and --html")
    return parser


if __name__ == "__main__":
    main()
