"""Import published region features into a region store.

    xgpt-import-regions data/cocobu --output data/regions \\
        --sizes annotations/instances_train2014.json --sizes annotations/instances_val2014.json

SOURCE is a file or folder in one of the formats that docs/regions.md describes. If it is interrupted, the same
command resumes. STORE appears when it is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.archives.registry import FORMATS, open_archive
from xgpt_fairseq.captions.json_values import image_id_of
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import interrupted
from xgpt_fairseq.io.json_files import read_json
from xgpt_fairseq.io.workers import MAX_PENDING_CALLS, submit_ordered, worker_pool
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS, MAX_REGIONS, NO_BOXES

if TYPE_CHECKING:
    import numpy.typing as npt
    from tqdm import tqdm

    from xgpt_fairseq.archives.base import BoxKind, Pending, Record, RegionReader
    from xgpt_fairseq.archives.broken_records import BrokenRecords
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.regions.writer import RegionWriter

# Images that are read to detect the unit of boxes.
SAMPLE_IMAGES = 64

# Values of --boxes with which an archive's boxes, if it has any, do not count.
WITHOUT_BOXES = ("grid", NO_BOXES)

# What names an image in Karpathy's and COCO's JSON.
_ID_KEYS = ("cocoid", "id", "filename", "file_name", "imgid")

Sizes = dict[str, tuple[int, int]]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the archive: a file or folder")
    parser.add_argument("--output", metavar="STORE", type=Path, required=True, help="the region store to write")
    parser.add_argument(
        "--format",
        choices=("auto", *FORMATS),
        default="auto",
        help="default: auto, which detects the format and prints it",
    )
    parser.add_argument(
        "--sizes",
        metavar="JSON",
        type=Path,
        action="append",
        default=[],
        help="width and height of the photos: Karpathy's or COCO's JSON; needed if boxes are in pixels and the "
        "archive has no sizes. Can be given more than once",
    )
    parser.add_argument(
        "--boxes",
        choices=("auto", "pixel", "normalised", "grid", "none"),
        default="auto",
        help=f"what boxes are measured in; auto: what the format says, else by the first {SAMPLE_IMAGES} images. grid: "
        "regions are the cells of a square grid, row by row; none: there are no boxes. With these two, SOURCE may be "
        "a folder of features alone",
    )
    parser.add_argument(
        "--max-regions",
        metavar="N",
        type=int,
        default=DEFAULT_REGIONS,
        help=f"most regions per image: the most confident are kept (default: %(default)s; {MAX_REGIONS} at most)",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=0, help="decoding processes (default: only this one)"
    )
    parser.add_argument("--limit", metavar="N", type=int, help="stop after N images")
    parser.add_argument(
        "--skip-broken",
        metavar="N",
        type=int,
        default=0,
        help="leave out up to N broken records, which are listed in STORE.broken.txt (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace STORE, or an unfinished import of it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: import_regions(parse_arguments(arguments)))


def import_regions(args: argparse.Namespace) -> None:
    """Import the archive, and print a summary."""
    from xgpt_fairseq.archives.broken_records import list_path

    began = time.monotonic()
    check_at_least("--skip-broken", args.skip_broken, 0)
    check_at_least("--max-regions", args.max_regions, 1)
    check_at_least("--limit", args.limit, 1)
    try:
        reader, store, resumed_at, broken = _import(args)
    except (OSError, BrokenProcessPool) as error:
        raise interrupted(error, args.output) from None
    counts = store.region_counts()
    print(f"images         {len(store)}" + (f" ({resumed_at} of them before it was interrupted)" if resumed_at else ""))
    if broken:
        print(f"left out       {broken} broken records, listed in {list_path(args.output)}")
    print(f"regions        {store.num_regions}")
    print(f"per image      min {counts.min()}, mean {counts.mean():.1f}, max {counts.max()}")
    print(f"cut to {args.max_regions:<7} {store.manifest.truncated_images} images")
    print(f"feature width  {store.feature_dim}")
    print(f"size on disk   {store.num_bytes / 1e6:.1f} MB")
    print(f"format         {reader.name}, boxes {store.source['boxes']}")
    print(f"seconds        {time.monotonic() - began:.1f}")
    print(f"wrote {args.output}")


def _import(args: argparse.Namespace) -> tuple[RegionReader, RegionStore, int, int]:
    reader, found = open_archive(args.source, args.format, needs_boxes=args.boxes not in WITHOUT_BOXES)
    with contextlib.closing(reader):
        print(f"found {reader.name}: {found}")
        return _write_store(args, reader)


def _write_store(args: argparse.Namespace, reader: RegionReader) -> tuple[RegionReader, RegionStore, int, int]:
    from tqdm import tqdm

    from xgpt_fairseq.archives.broken_records import BrokenRecords, decode_as_stored, sample_records
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.regions.writer import RegionWriter

    sizes = load_sizes(args.sizes)
    wanted = SAMPLE_IMAGES if args.boxes == "auto" and reader.box_kind == "unknown" else 1
    sample = sample_records(reader, min(wanted, args.limit or wanted), args.skip_broken)
    if not sample:
        raise DataError(f"{args.source}: no images in it")
    box_kind = _box_kind(args.boxes, reader, sample, args.skip_broken)
    source: dict[str, Any] = {
        **reader.describe(),
        "path": str(args.source),
        "boxes": args.boxes if args.boxes in WITHOUT_BOXES else box_kind,
        "sizes": [str(path) for path in args.sizes],
        "limit": args.limit,
    }
    feature_dim = sample[0].features.shape[1]
    options = {"max_regions": args.max_regions, "overwrite": args.overwrite, "source": source}
    with worker_pool(args.workers) as pool, RegionWriter(args.output, feature_dim, **options) as writer:
        resumed_at = writer.images
        if resumed_at:
            print(f"resuming an interrupted import after {resumed_at} images")
        broken = BrokenRecords(args.output, writer, args.skip_broken)
        left = None if args.limit is None else args.limit - resumed_at
        most = None if left is None else left + broken.allowed
        pending = itertools.islice(reader.pending(writer.position), most)
        calls = ((partial(decode_as_stored, item, feature_dim), (item, following)) for item, following in pending)
        records = submit_ordered(calls, pool, MAX_PENDING_CALLS * args.workers)
        by_bytes = reader.unit == "B"
        with tqdm(
            total=reader.end, initial=writer.position, unit=reader.unit, unit_scale=by_bytes, disable=None
        ) as bar:
            size_of = partial(_size, sizes, args.sizes, is_needed=box_kind == "pixel")
            _write_records(writer, records, broken, size_of, args.boxes, box_kind, args.limit, bar)
        _check_unchanged(args, reader)
        broken.write_list()
        writer.finish()
    return reader, RegionStore(args.output), resumed_at, len(broken)


def _check_unchanged(args: argparse.Namespace, reader: RegionReader) -> None:
    """Raise DataError where the archive has been cut, or is another, since it was opened: images would be missing."""
    again, _ = open_archive(args.source, args.format, needs_boxes=args.boxes not in WITHOUT_BOXES)
    with contextlib.closing(again):
        before, now = reader.describe(), again.describe()
    if different := [name for name in before if before[name] != now.get(name)]:
        raise DataError(f"{args.source} was changed while it was read ({', '.join(different)}): import it again")


def _write_records(
    writer: RegionWriter,
    records: Iterator[tuple[Record | str, tuple[Pending, int]]],
    broken: BrokenRecords,
    size_of: Callable[[Record], tuple[int, int] | None],
    option: str,
    box_kind: BoxKind,
    limit: int | None,
    bar: tqdm,
) -> None:
    for record, (item, next_position) in records:
        if writer.images == limit:
            return
        if isinstance(record, str):
            broken.add(item, next_position, record)
        else:
            try:
                writer.add(
                    record.image_id,
                    record.features,
                    _boxes(record, option, writer.max_regions),
                    position=next_position,
                    scores=record.scores,
                    labels=record.labels,
                    size=size_of(record),
                    pixel=box_kind == "pixel",
                )
            except DataError as error:
                broken.add(item, next_position, f"{item.where()}: {error}")
        bar.update(next_position - bar.n)


def _size(sizes: Sizes, files: Sequence[Path], record: Record, *, is_needed: bool) -> tuple[int, int] | None:
    """Width and height of a record's photo; None if they are not known.

    Raises:
        DataError: they are needed, and none of *files*, those of --sizes, has them.
    """
    size = record.size or sizes.get(canonical_image_id(record.image_id))
    if size is None and is_needed and files:
        names = " and ".join(map(str, files))
        raise DataError(
            f"image {canonical_image_id(record.image_id)}: its boxes are in pixels, and no file of --sizes has its "
            f"size: {names}"
        )
    return size


def _boxes(record: Record, option: str, most: int) -> npt.NDArray[Any]:
    """The boxes of a record, or those that --boxes grid or none give its regions.

    Raises:
        DataError: with `grid`, the regions are no square, or more than *most*, so that cells would be cut off.
    """
    if option not in WITHOUT_BOXES:
        return record.boxes
    import numpy as np

    from xgpt_fairseq.vision.pooling import FULL_IMAGE_BOX, grid_boxes

    count = len(record.features)
    if option == NO_BOXES:
        return np.tile(np.array(FULL_IMAGE_BOX, dtype=np.float32), (count, 1))
    cells = math.isqrt(count)
    if cells * cells != count:
        raise DataError(f"image {record.image_id} has {count} regions, which are not the cells of a square grid")
    if count > MAX_REGIONS:
        raise DataError(
            f"image {record.image_id} has a grid of {cells} x {cells} cells; {MAX_REGIONS} regions are possible (pool "
            "the features to a smaller grid)"
        )
    if count > most:
        raise DataError(
            f"image {record.image_id} has a grid of {cells} x {cells} cells, more than --max-regions {most}: pass "
            f"--max-regions {count}"
        )
    return grid_boxes(cells)


def _box_kind(option: str, reader: RegionReader, sample: list[Record], skip_broken: int) -> BoxKind:
    """What the boxes are measured in: decided once for the whole archive.

    Raises:
        DataError: some of the sample seem to be in pixels and few enough to be broken, so that nothing is sure.
    """
    from xgpt_fairseq.regions.validation import NORMALISED_TOLERANCE

    if option == "pixel":
        return "pixel"
    if option in ("normalised", *WITHOUT_BOXES):
        return "normalised"
    if reader.box_kind != "unknown":
        return reader.box_kind
    each = [float(record.boxes.max(initial=0.0)) for record in sample]
    above = sum(not value <= 1 + NORMALISED_TOLERANCE for value in each)
    if above and above <= skip_broken and above < len(each):
        raise DataError(
            f"{above} of the first {len(sample)} images have coordinates above 1, or not finite: if they are broken, "
            "pass --boxes normalised, else --boxes pixel"
        )
    largest = max(each)
    kind: BoxKind = "normalised" if largest <= 1 + NORMALISED_TOLERANCE else "pixel"
    print(f"boxes are {kind}: in the first {len(sample)} images the largest coordinate is {largest:g}")
    return kind


def load_sizes(paths: Sequence[Path]) -> Sizes:
    """Width and height of images by canonical id, from Karpathy's or COCO's JSON files.

    Raises:
        DataError: a file is not such JSON, or has no sizes, or an image has no id, or one that is none.
    """
    sizes: Sizes = {}
    second_names: Sizes = {}
    for path in paths:
        value = read_json(path)
        images = value.get("images") if isinstance(value, dict) else None
        if not isinstance(images, list):
            raise DataError(f"{path}: no list \"images\"; Karpathy's or COCO's JSON expected")
        for number, image in enumerate(images):
            try:
                size = int(image["width"]), int(image["height"])
            except (KeyError, TypeError, ValueError, OverflowError):
                raise DataError(
                    f"{path}: images[{number}] has no width and height. Karpathy's own files have none; COCO's "
                    "instances_*.json and captions_*.json do"
                ) from None
            if not 1 <= min(size) <= max(size) < 2**31:
                raise DataError(f"{path}: images[{number}] has the size {size[0]} x {size[1]}; no photo has that")
            first, *others = _image_names(image, f"{path}: images[{number}]")
            sizes[first] = size
            second_names.update(dict.fromkeys(others, size))
    return second_names | sizes


def _image_names(image: dict[str, Any], where: str) -> list[str]:
    """The possible ids of the image in an archive, the likeliest first.

    An image with a `cocoid` has only that id: its `imgid` is also a number, but another photo's id, also where the
    cocoid is missing. Numbers that became floats mean the same as in captions (`captions.karpathy`).
    """
    named = {key: value for key in _ID_KEYS if not _is_missing(value := image.get(key))}
    if "cocoid" in image:
        named.pop("imgid", None)
    if not named:
        raise DataError(f"{where} has no id: cocoid, id, filename, file_name or imgid expected")
    keys = ["cocoid"] if "cocoid" in named else list(named)
    return [image_id_of(where, key, named[key]) for key in keys]


def _is_missing(value: Any) -> bool:
    """Whether JSON has no value there: none, an empty one, or what pandas writes for none."""
    return value in (None, "") or (isinstance(value, float) and math.isnan(value))


if __name__ == "__main__":
    main()
