"""Make a region store from photos, with features of grid cells or of any detector's boxes.

    xgpt-extract-regions photos --output data/regions
    xgpt-extract-regions photos --output data/regions --detections results.json

PHOTOS are files, folders with all that is in them, tars (WebDataset), and tables with photos inside (Parquet files and
what Hugging Face's `save_to_disk` writes). Features are those of EfficientNet-lite0, whose weights come with the extra
`photos`, or of another --backbone: a network of timm, torchvision or transformers, with its own preprocessing. Killed
or stopped, the same command resumes. Files that cannot be read are listed in STORE.unreadable.txt. The store appears
under its name when it is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from xgpt_fairseq.cli import run
from xgpt_fairseq.devices import default_device
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.resumable import partial_path
from xgpt_fairseq.io.workers import MAX_PENDING_CALLS, submit_ordered, worker_pool
from xgpt_fairseq.regions.format import DEFAULT_REGIONS, MAX_REGIONS
from xgpt_fairseq.regions.image_ids import is_photo_name
from xgpt_fairseq.regions.left_out import LeftOut
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import DEFAULT, FAMILIES
from xgpt_fairseq.vision.detections import Detections
from xgpt_fairseq.vision.extractor import GRID, MOST_CELLS, TOKENS, RegionExtractor, Regions
from xgpt_fairseq.vision.malloc import keep_freed_memory
from xgpt_fairseq.vision.photo_files import check_ids, find_photos, photo_id
from xgpt_fairseq.vision.photo_formats import reader_versions
from xgpt_fairseq.vision.photo_shards import chosen_shard, parts_folder, shard_range
from xgpt_fairseq.vision.photos import IMAGE_SIZE, Photo, PhotoError, PhotoFile, PhotoForm, load_photo
from xgpt_fairseq.vision.pooling import max_boxes

# The extractor gets photos in chunks of at least this many photos and batches, so that several have the same shape, and
# all cores have work. Chunks begin at multiples of their size, also after an interruption, since the last bits can
# depend on which photos share a batch.
CHUNK_PHOTOS = 64
CHUNK_BATCHES = 4

# More loaders than this outrun the consumer.
MOST_WORKERS = 8

WHOLE_LABEL = "whole image"


@dataclass(frozen=True)
class Loaded:
    """A photo, or the reason why it could not be read."""

    path: Path
    image_id: str = ""
    photo: Photo | None = None
    reason: str = ""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos", metavar="PHOTOS", type=Path, nargs="+", help="photos, folders, tars and tables of photos"
    )
    parser.add_argument("--output", metavar="STORE", type=Path, required=True, help="the region store to write")
    regions = parser.add_mutually_exclusive_group()
    regions.add_argument(
        "--grid",
        "--pool",
        metavar="N",
        type=int,
        default=GRID,
        help="regions are the whole photo and a grid of N x N cells, with averages of the backbone's map as features; "
        f"N from 1 to {MOST_CELLS} (default: %(default)s)",
    )
    regions.add_argument(
        "--tokens",
        dest="grid",
        action="store_const",
        const=TOKENS,
        help="regions are the whole photo and each cell of the backbone's map: each token of a ViT",
    )
    regions.add_argument(
        "--detections",
        metavar="JSON",
        type=Path,
        help="regions are the whole photo and these boxes: COCO's detection results, [{image_id, bbox, category_id, "
        "score}, …] with bbox [x, y, width, height] in pixels of the upright photo",
    )
    parser.add_argument(
        "--max-regions",
        metavar="N",
        type=int,
        help="most regions per photo, the whole photo included: the most confident detections are kept (default: "
        f"{DEFAULT_REGIONS}, or as many as the grid has; {MAX_REGIONS} at most)",
    )
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        type=int,
        help="longer side of the photo for the backbone, a multiple of its stride, 32 for the default backbone "
        f"(default: {IMAGE_SIZE} for EfficientNet-lite, else what the backbone was trained on)",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        default=DEFAULT,
        help=f"the network whose last map makes the features: {', '.join(FAMILIES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=Path,
        help="the backbone's weights, for transformers a folder (default: the published ones, which are fetched where "
        "they are not here)",
    )
    parser.add_argument("--layer", metavar="LAYER", help="the backbone's layer: a number, or a module of torchvision's")
    parser.add_argument("--offline", action="store_true", help="fetch nothing: weights must be in a cache or --weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: cuda if there is one, else cpu)")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, help="photos per batch (default: 16 on a GPU, 1 on a CPU)"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        help=f"processes that load photos; 0: only this one (default: one per core, {MOST_WORKERS} at most)",
    )
    parser.add_argument(
        "--num-shards",
        metavar="N",
        type=int,
        help="make one of N parts of the store, in STORE.parts; xgpt-regions merge joins them (default: as torchrun or "
        "an array of SLURM says, else 1)",
    )
    parser.add_argument(
        "--shard-id", metavar="I", type=int, help="which part, from 0 (default: as torchrun or SLURM says)"
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if any file could not be read")
    parser.add_argument("--overwrite", action="store_true", help="replace STORE, or an unfinished extraction to it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: extract_regions(parse_arguments(arguments)))


def extract_regions(args: argparse.Namespace) -> None:
    """Write the region store, and print a summary."""
    began = time.monotonic()
    try:
        store, unreadable, resumed_at = _extract(args)
    except (OSError, BrokenProcessPool) as error:
        raise DataError(f"{error} (correct this, and the same command resumes where it stopped)") from None
    _print_summary(args, store, unreadable, resumed_at, time.monotonic() - began)
    if "shard" in store.source:
        whole = str(args.output.parent).removesuffix(".parts")
        print(f"when all shards are done: xgpt-regions merge {args.output.parent} --output {whole}")
    if args.strict and unreadable:
        raise DataError(
            f"--strict: {unreadable} of {len(store) + unreadable} files could not be read; "
            f"{_list_path(args.output)} says why. {args.output} holds the others"
        )


def _extract(args: argparse.Namespace) -> tuple[RegionStore, int, int]:
    """Returns the store, the number of unreadable files, and the number of images before an interruption."""
    _check_options(args)
    store = args.output
    own = [store, store.resolve(), _list_path(store), parts_folder(store), parts_folder(store.resolve())]
    files = find_photos(args.photos, exclude=own)
    if not files:
        raise DataError(f"there are no files in {', '.join(map(str, args.photos))}")
    check_ids(files)
    shard = chosen_shard(args.num_shards, args.shard_id, os.environ)
    if shard is not None:
        args.output = shard.output(store)
        args.output.parent.mkdir(parents=True, exist_ok=True)
    args.max_regions = args.max_regions or (DEFAULT_REGIONS if args.detections else None)
    detections = None if args.detections is None else _read_detections(args, files)
    workers = min(len(os.sched_getaffinity(0)), MOST_WORKERS) if args.workers is None else max(args.workers, 0)
    with worker_pool(workers) as pool:  # before a GPU is touched: the processes are forked
        extractor = _extractor(args)
        _check_regions(args, extractor)
        most = args.max_regions or max(DEFAULT_REGIONS, extractor.regions)
        options = {"max_regions": most, "overwrite": args.overwrite}
        source = _source(args, files, extractor)
        if shard is not None:
            group = 1 if extractor.batch_size == 1 else _chunk_size(extractor.batch_size)
            part = shard_range(files, shard, group)
            source["shard"] = {"index": shard.index, "count": shard.count, "first": part.start, "files": len(part)}
            files = files[part.start : part.stop]
            print(f"shard {shard.index} of {shard.count} ({shard.said_by}): {len(files)} files, to {args.output}")
        with RegionWriter(args.output, extractor.feature_dim, source=source, **options) as writer:
            resumed_at = writer.images
            if resumed_at:
                print(f"resuming an interrupted extraction after {resumed_at} images")
            unreadable = LeftOut(partial_path(writer.path) / "unreadable.jsonl", writer.position)
            with tqdm(total=len(files), initial=writer.position, unit="photo", disable=None) as bar:
                for chunk in _chunks(files, extractor, writer.position, pool, MAX_PENDING_CALLS * workers):
                    _write_chunk(writer, unreadable, chunk, extractor, detections, bar)
            unreadable.write_list(_list_path(args.output))
            if writer.images == 0:
                _, file, reason = unreadable.found[0]
                raise DataError(
                    f"none of the {len(files)} files could be read as a photo; {_list_path(args.output)} says why. The "
                    f"first: {file}: {reason}"
                )
            writer.finish(_folders(args, files))
    return RegionStore(args.output), len(unreadable), resumed_at


def _extractor(args: argparse.Namespace) -> RegionExtractor:
    device = args.device or default_device()
    if device == "cuda" and os.environ.get("LOCAL_RANK", "").isdigit():
        device = f"cuda:{os.environ['LOCAL_RANK']}"  # of torchrun: a GPU a process
    threads = 1
    if device == "cpu":
        # One photo per core, instead of all cores for each photo: faster, and independent of the number of cores.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        keep_freed_memory()
    return RegionExtractor(
        backbone=args.backbone,
        options=BackboneOptions(weights=args.weights, layer=args.layer, offline=args.offline),
        grid=args.grid if args.detections is None else None,
        image_size=args.image_size,
        device=device,
        batch_size=args.batch_size,
        threads=threads,
    )


def _chunk_size(batch: int) -> int:
    return max(CHUNK_BATCHES, -(-CHUNK_PHOTOS // batch)) * batch


def _chunks(
    files: Sequence[PhotoFile], extractor: RegionExtractor, position: int, pool: ProcessPoolExecutor | None, ahead: int
) -> Iterator[list[tuple[Loaded, int]]]:
    """Photos and their positions, from the beginning of the chunk that contains *position*."""
    size = _chunk_size(extractor.batch_size)
    start = position // size * size
    calls = ((partial(_load, files[at], extractor.form), at) for at in range(start, len(files)))
    loaded = submit_ordered(calls, pool, ahead)
    while chunk := list(itertools.islice(loaded, size)):
        yield chunk


def _write_chunk(
    writer: RegionWriter,
    unreadable: LeftOut,
    chunk: list[tuple[Loaded, int]],
    extractor: RegionExtractor,
    detections: Detections | None,
    bar: tqdm,
) -> None:
    """Extract the regions of a chunk, and write those that the interrupted run has not yet written."""
    resumed_at = writer.position
    photos = [(item.image_id, item.photo) for item, _ in chunk if item.photo is not None]
    boxes = None if detections is None else [detections.normalised(name, photo.size) for name, photo in photos]
    regions = iter(extractor.extract([photo for _, photo in photos], boxes))
    unreadable.add((at, item.path, item.reason) for item, at in chunk if item.photo is None and at >= resumed_at)
    if len(unreadable):
        bar.set_postfix(unreadable=len(unreadable), refresh=False)
    for item, position in chunk:
        if item.photo is not None:
            of_photo = next(regions)
            if position >= resumed_at:
                try:
                    _add(writer, item.image_id, item.photo, of_photo, position + 1, detections)
                except DataError as error:
                    raise DataError(f"{item.path}: {error}") from None
        bar.update(position >= resumed_at)


def _add(
    writer: RegionWriter,
    image_id: str,
    photo: Photo,
    regions: Regions,
    next_position: int,
    detections: Detections | None,
) -> None:
    extra: dict[str, Any] = {"is_canonical": True}
    if detections is not None:
        detected = detections.of(image_id)
        extra["scores"] = np.concatenate([np.ones(1, dtype=np.float32), detected.scores])
        extra["labels"] = [WHOLE_LABEL, *map(str, detected.categories.tolist())]
        extra["truncated"] = detected.truncated
    writer.add(image_id, regions.features, regions.boxes, position=next_position, size=photo.size, **extra)


def _load(file: PhotoFile, form: PhotoForm) -> Loaded:
    try:
        return Loaded(file.path, photo_id(file), load_photo(file, form))
    except PhotoError as error:
        return Loaded(file.path, reason=error.reason)


def _check_options(args: argparse.Namespace) -> None:
    if args.max_regions is not None and not 1 <= args.max_regions <= MAX_REGIONS:
        raise DataError(f"--max-regions is {args.max_regions}; 1 to {MAX_REGIONS} are allowed")


def _check_regions(args: argparse.Namespace, extractor: RegionExtractor) -> None:
    if args.max_regions is not None and args.max_regions < extractor.regions:
        what = "--tokens" if args.grid == TOKENS else f"--grid {args.grid}"
        raise DataError(
            f"{what} makes {extractor.regions} regions, the whole photo included; --max-regions is {args.max_regions}"
        )


def _read_detections(args: argparse.Namespace, files: Sequence[PhotoFile]) -> Detections:
    wanted = [file.image_id for file in files]
    detections = Detections(args.detections, wanted, max_boxes(args.max_regions))
    others = f"; {detections.others} of other photos are left out" if detections.others else ""
    print(f"found {detections.boxes} boxes of {detections.photos} photos in {args.detections}{others}")
    return detections


def _source(args: argparse.Namespace, files: Sequence[PhotoFile], extractor: RegionExtractor) -> dict[str, Any]:
    """How the store is made: goes into `store.json`, and a resumed extraction must find it unchanged."""
    # Positions count files, so that another set of names makes them mean something else. Names have folders where image
    # ids have; the others have none, as in unfinished extractions of earlier versions, which had ids without folders.
    names = hashlib.sha256("\n".join(file.name for file in files).encode("utf-8", "surrogateescape")).hexdigest()
    source: dict[str, Any] = {
        "format": "photos",
        "path": str(args.photos[0]) if len(args.photos) == 1 else f"{args.photos[0]} … {args.photos[-1]}",
        "files": len(files),
        "names_sha256": names,
        "boxes": TOKENS if args.grid == TOKENS else f"grid {args.grid} x {args.grid}",
        "extractor": extractor.settings,
        "device": extractor.device.type,
        "batch_size": extractor.batch_size,
        "versions": {**extractor.versions, **reader_versions()},
    }
    if args.detections is not None:
        with open(args.detections, "rb") as file:
            source |= {
                "boxes": "detections",
                "detections": str(args.detections),
                "detections_sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                "labels": "category numbers",
            }
    return source


def _folders(args: argparse.Namespace, files: Sequence[PhotoFile]) -> dict[str, str]:
    """Image id → the folder of its photo, below what was extracted; a tar is the folder of its photos."""
    named_as_photos_last = sorted(files, key=lambda file: is_photo_name(file.path.name))  # others may share their ids
    folders = {file.image_id: file.folder for file in named_as_photos_last}
    if len(args.photos) > 1 or args.photos[0].suffix.lower() != ".tar":
        return folders
    return {image_id: folder.partition("/")[2] for image_id, folder in folders.items()}


def _list_path(output: Path) -> Path:
    output = output.resolve()
    return output.with_name(f"{output.name}.unreadable.txt")


def _print_summary(
    args: argparse.Namespace, store: RegionStore, unreadable: int, resumed_at: int, seconds: float
) -> None:
    counts = store.region_counts()
    print(f"images         {len(store)}" + (f" ({resumed_at} of them before it was interrupted)" if resumed_at else ""))
    print(f"not read       {unreadable} files" + (f", listed in {_list_path(args.output)}" if unreadable else ""))
    print(f"regions        {store.num_regions}")
    print(f"per image      min {counts.min()}, mean {counts.mean():.1f}, max {counts.max()}")
    if args.detections is not None:
        print(f"no detections  {(counts == 1).sum()} images: the whole photo alone")
        print(f"cut to {args.max_regions:<7} {store.manifest.truncated_images} images")
    print(f"feature width  {store.feature_dim}")
    print(f"size on disk   {store.num_bytes / 1e6:.1f} MB")
    print(f"boxes          {store.source['boxes']}")
    print(f"device         {store.source['device']}, batches of {store.source['batch_size']}")
    print(f"seconds        {seconds:.1f}, {1000 * seconds / max(len(store) - resumed_at, 1):.0f} ms per image")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
