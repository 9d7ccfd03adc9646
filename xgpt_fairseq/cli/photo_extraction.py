"""The work of `xgpt-extract-regions`: photos read by several processes, extracted in chunks, written to a store."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from xgpt_fairseq.cli.extract_options import MOST_WORKERS, build_extractor, check_options
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import interrupted
from xgpt_fairseq.io.resumable import partial_path
from xgpt_fairseq.io.workers import MAX_PENDING_CALLS, available_cores, submit_ordered, worker_pool
from xgpt_fairseq.regions.format import MANIFEST
from xgpt_fairseq.regions.left_out import LeftOut
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS
from xgpt_fairseq.regions.merge import MAY_LACK
from xgpt_fairseq.regions.names import named_paths
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter
from xgpt_fairseq.vision.choices import TOKENS
from xgpt_fairseq.vision.detections import Detections
from xgpt_fairseq.vision.photo_extractor import PhotoExtractor, Regions
from xgpt_fairseq.vision.photo_files import are_of_one_tar, stored_names
from xgpt_fairseq.vision.photo_formats import reader_versions
from xgpt_fairseq.vision.photo_list import PhotoList, listed_at, listed_photos, remove_list
from xgpt_fairseq.vision.photo_shards import (
    Shard,
    check_parts_of_store,
    chosen_shard,
    parts_folder,
    shard_range,
)
from xgpt_fairseq.vision.photos import Photo, PhotoError, PhotoFile, PhotoForm, VanishedError, load_photo
from xgpt_fairseq.vision.pooling import WHOLE_LABEL, max_boxes
from xgpt_fairseq.vision.views import view_of

# The extractor gets photos in chunks of at least this many photos and batches, so that several have the same shape, and
# all cores have work. Chunks begin at multiples of their size, also after an interruption, since the last bits can
# depend on which photos share a batch.
CHUNK_PHOTOS = 64
CHUNK_BATCHES = 4
# Of so many photos, some would not be square, if they had not been made so.
SQUARES = 100


@dataclass(frozen=True)
class Loaded:
    """A photo, or the reason why it could not be read."""

    path: Path
    image_id: str = ""
    folder: str = ""
    photo: Photo | None = None
    reason: str = ""


def extract(args: argparse.Namespace) -> None:
    """Write the region store, and print a summary.

    Raises:
        DataError: an option, the photos or a file are not usable; or, with --strict, a photo could not be read.
    """
    began, given = time.monotonic(), args.output
    try:
        store, unreadable, resumed_at = _extract(args)
    except (OSError, BrokenProcessPool) as error:
        raise interrupted(error, args.output) from None
    finally:
        if not partial_path(given.resolve()).is_dir():  # finished, or nothing to go on with
            remove_list(_photos_path(given))
    images = 0 if store is None else len(store)
    if store is not None:
        _print_summary(args, store, unreadable, resumed_at, time.monotonic() - began)
    else:
        print(f"none of the {unreadable} files of this shard could be read, listed in {_list_path(args.output)}")
    if store is None or "shard" in store.source:
        whole = str(args.output.parent).removesuffix(".parts")
        print(f"when all shards are done: xgpt-regions merge {args.output.parent} --output {whole}")
    if args.strict and unreadable:
        raise DataError(
            f"--strict: {unreadable} of {images + unreadable} files could not be read; "
            f"{_list_path(args.output)} says why{f'. {args.output} holds the others' if images else ''}"
        )


def _extract(args: argparse.Namespace) -> tuple[RegionStore | None, int, int]:
    """Returns the store, the number of unreadable files, and the number of images before an interruption.

    A part of a store whose files are all unreadable is none: it has only their list.
    """
    check_options(args)
    store = args.output
    shard = chosen_shard(args.num_shards, args.shard_id, os.environ)
    if args.num_shards != 1:
        check_parts_of_store(store, shard)
    if shard is not None:
        args.output = shard.output(store)
        args.output.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_list(args, store, shard)) as files:
        try:
            return _extract_listed(args, files, shard)
        except VanishedError as error:  # the list has it, and so would the next run
            again = "pass --overwrite" if shard is None else f"remove {parts_folder(store)}, with all parts"
            raise VanishedError(f"{error}; to look for photos again, {again}") from None


def _extract_listed(
    args: argparse.Namespace, files: PhotoList, shard: Shard | None
) -> tuple[RegionStore | None, int, int]:
    """See `_extract`."""
    args.max_regions = args.max_regions or (DEFAULT_REGIONS if args.detections or args.detector else None)
    detections = None if args.detections is None else _read_detections(args, files)
    workers = min(available_cores(), MOST_WORKERS) if args.workers is None else args.workers
    with worker_pool(workers) as pool:  # before a GPU is touched: the processes are forked
        extractor = build_extractor(args)
        most = args.max_regions or max(DEFAULT_REGIONS, extractor.regions)
        options = {"max_regions": most, "overwrite": args.overwrite, "unique_ids": True}  # by the list of photos
        source = _source(args, files, extractor)
        if shard is not None:
            group = 1 if extractor.batch_size == 1 else _chunk_size(extractor.batch_size)
            part = shard_range(files, shard, group)
            source["shard"] = {"index": shard.index, "count": shard.count, "first": part.start, "files": len(part)}
            files = files[part.start : part.stop]
            print(f"shard {shard.index} of {shard.count} ({shard.said_by}): {len(files)} files, to {args.output}")
            if not args.overwrite and _is_made(args.output, source):
                # no error: torchrun, started again, would stop the processes of the unfinished parts
                print("this part was finished by an earlier run")
                made = RegionStore(args.output)
                return made, len(files) - len(made), len(made)
        with RegionWriter(args.output, extractor.feature_dim, source=source, **options) as writer:
            resumed_at = writer.images
            if resumed_at:
                print(f"resuming an interrupted extraction after {resumed_at} images")
            unreadable = LeftOut(partial_path(writer.path) / "unreadable.jsonl", writer.position)
            with tqdm(total=len(files), initial=writer.position, unit="photo", disable=None) as bar:
                for chunk in _chunks(files, extractor, writer.position, pool, MAX_PENDING_CALLS * workers, args):
                    _write_chunk(writer, unreadable, chunk, extractor, detections, bar)
            unreadable.write_list(_list_path(args.output))
            if writer.images == 0 and shard is not None:  # other parts have photos, or else merging them will fail
                return None, len(unreadable), 0
            if writer.images == 0:
                _, file, reason = unreadable.found[0]
                raise DataError(
                    f"none of the {len(files)} files could be read as a photo; {_list_path(args.output)} says why. The "
                    f"first: {file}: {reason}"
                )
            writer.finish()
    return RegionStore(args.output), len(unreadable), resumed_at


def _is_made(path: Path, source: dict[str, Any]) -> bool:
    """Whether *path* is a finished store of these photos and settings."""
    if not (path / MANIFEST).exists():
        return False
    made, wanted = RegionStore(path).source, json.loads(json.dumps(source))
    for name in MAY_LACK - made.keys():
        wanted.pop(name, None)
    return made == wanted


def _list(args: argparse.Namespace, store: Path, shard: Shard | None) -> PhotoList:
    """The photos: as an unfinished extraction, or another process of this one, has listed them, or listed now."""
    own = [store, store.resolve(), _list_path(store), parts_folder(store), parts_folder(store.resolve())]
    place = _photos_path(store) if shard is None else parts_folder(store) / "photos"
    if shard is None and store.exists() and not args.overwrite:
        raise DataError(f"{store.resolve()} exists; pass --overwrite to replace it")
    again = shard is None and (args.overwrite or not partial_path(store.resolve()).is_dir())
    files, made = listed_photos(args.photos, place, given=args.given, exclude=own, again=again)
    if made is not None:
        print(f"{len(files)} files, as listed on {listed_at(made)} in {place}: what came later is left out")
    return files


def _photos_path(store: Path) -> Path:
    """Where the list of photos lies while they are extracted."""
    store = store.resolve()
    return store.with_name(f".{store.name}.photos")


def _chunk_size(batch: int) -> int:
    return max(CHUNK_BATCHES, -(-CHUNK_PHOTOS // batch)) * batch


def _chunks(
    files: Sequence[PhotoFile],
    extractor: PhotoExtractor,
    position: int,
    pool: ProcessPoolExecutor | None,
    ahead: int,
    args: argparse.Namespace,
) -> Iterator[list[tuple[Loaded, int]]]:
    """Photos and their positions, from the beginning of the chunk that contains *position*."""
    size = _chunk_size(extractor.batch_size)
    start = position // size * size
    loaded = submit_ordered(_calls(files, start, extractor.form, args.photos, args.view), pool, ahead)
    while chunk := list(itertools.islice(loaded, size)):
        yield chunk


def _calls(
    files: Sequence[PhotoFile], start: int, form: PhotoForm, given: Sequence[Path], view: int | None = None
) -> Iterator[tuple[Callable[[], Loaded], int]]:
    """What reads each photo from *start* on, and its position. It goes to another process, and so holds little."""
    named, in_one_tar = frozenset(given), are_of_one_tar(given)
    for at in range(start, len(files)):
        file = files[at]
        yield partial(_load, file, form, may_be_missing=file.path in named, in_one_tar=in_one_tar, view=view), at


def _write_chunk(
    writer: RegionWriter,
    unreadable: LeftOut,
    chunk: list[tuple[Loaded, int]],
    extractor: PhotoExtractor,
    detections: Detections | None,
    bar: tqdm,
) -> None:
    """Extract the regions of a chunk, and write those that the interrupted run has not yet written."""
    resumed_at = writer.position
    photos = [(item.image_id, item.photo) for item, _ in chunk if item.photo is not None]
    for item, _ in chunk:
        if item.photo is not None and (why := extractor.why_unfit(item.photo)):
            squeeze = "" if extractor.form.square else "squeeze photos to squares (--square), or "
            raise DataError(f"{item.path}: {why}: {squeeze}choose a larger --image-size")
    boxes = None if detections is None else [detections.normalised(name, photo.size) for name, photo in photos]
    regions = iter(extractor.extract([photo for _, photo in photos], boxes))
    unreadable.add((at, item.path, item.reason) for item, at in chunk if item.photo is None and at >= resumed_at)
    if len(unreadable):
        bar.set_postfix(unreadable=len(unreadable), refresh=False)
    for item, position in chunk:
        if item.photo is not None:
            of_photo = next(regions)
            if position >= resumed_at:
                if detections is not None:
                    of_photo = _with_labels(of_photo, item.image_id, detections)
                try:
                    _add(writer, item.image_id, item.photo, of_photo, position + 1, item.folder)
                except DataError as error:
                    raise DataError(f"{item.path}: {error}") from None
        bar.update(position >= resumed_at)


def _with_labels(regions: Regions, image_id: str, detections: Detections) -> Regions:
    """*regions* with the confidences and categories of a file of detections."""
    detected = detections.of(image_id)
    return replace(
        regions,
        scores=np.concatenate([np.ones(1, dtype=np.float32), detected.scores]),
        labels=(WHOLE_LABEL, *map(str, detected.categories.tolist())),
        truncated=detected.truncated,
    )


def _add(writer: RegionWriter, image_id: str, photo: Photo, regions: Regions, next_position: int, folder: str) -> None:
    writer.add(
        image_id,
        regions.features,
        regions.boxes,
        position=next_position,
        size=photo.size,
        folder=folder,
        scores=regions.scores,
        labels=regions.labels,
        truncated=regions.truncated,
        is_canonical=True,
    )


def _load(
    file: PhotoFile, form: PhotoForm, *, may_be_missing: bool, in_one_tar: bool, view: int | None = None
) -> Loaded:
    """Read a photo, or a view of it.

    One that was found in a folder must be there; what the user named itself may be missing.

    Raises:
        VanishedError: it is gone.
    """
    try:
        image_id, folder = stored_names(file, in_one_tar=in_one_tar)
        seen = None if view is None else view_of(view, image_id)
        return Loaded(file.path, image_id, folder, load_photo(file, form, view=seen))
    except PhotoError as error:
        if file.is_file and not may_be_missing and not os.path.lexists(file.path):
            raise VanishedError(
                f"{file.path} was there when photos were looked for, and is gone: put it back, or an empty file, which "
                "is listed as unreadable"
            ) from None
        return Loaded(file.path, reason=error.reason)


def _read_detections(args: argparse.Namespace, files: Sequence[PhotoFile]) -> Detections:
    wanted = [file.image_id for file in files]
    detections = Detections(args.detections, wanted, max_boxes(args.max_regions))
    others = f"; {detections.others} of other photos are left out" if detections.others else ""
    print(f"found {detections.boxes} boxes of {detections.photos} photos in {args.detections}{others}")
    return detections


def _source(args: argparse.Namespace, files: PhotoList, extractor: PhotoExtractor) -> dict[str, Any]:
    """How the store is made: goes into `store.json`, and a resumed extraction must find it unchanged."""
    # Positions count files, so that another set of names makes them mean something else. Names have folders where image
    # ids have; the others have none, as in unfinished extractions of earlier versions, which had ids without folders.
    source: dict[str, Any] = {
        "format": "photos",
        "path": named_paths(args.photos),
        "files": len(files),
        "names_sha256": files.names_sha256,
        "boxes": _boxes(args),
        "extractor": extractor.settings,
        "device": extractor.device.type,
        "batch_size": extractor.batch_size,
        **({"compiled": True} if args.compile else {}),
        **({} if args.view is None else {"view": args.view}),
        "versions": {**extractor.versions, **reader_versions()},
    }
    if args.detector is not None:
        source["labels"] = [f"{path} ({_digest(path)[:16]})" for path in args.label_names]
    if args.detections is not None:
        source |= {
            "boxes": "detections",
            "detections": str(args.detections),
            "detections_sha256": _digest(args.detections),
            "max_regions": args.max_regions,
            "labels": "category numbers",
        }
    return source


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _boxes(args: argparse.Namespace) -> str:
    """What the regions are, in the store's words."""
    if args.detector is not None:
        return f"detector {args.detector}"
    return TOKENS if args.grid == TOKENS else f"grid {args.grid} x {args.grid}"


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
    if args.detections is not None or args.detector is not None:
        print(f"cut to {args.max_regions:<7} {store.manifest.truncated_images} images")
    print(f"feature width  {store.feature_dim}")
    print(f"size on disk   {store.num_bytes / 1e6:.1f} MB")
    print(f"boxes          {store.source['boxes']}")
    print(f"device         {store.source['device']}, batches of {store.source['batch_size']}")
    print(f"seconds        {seconds:.1f}, {1000 * seconds / max(len(store) - resumed_at, 1):.0f} ms per image")
    print(f"wrote {args.output}")
    if not store.source["extractor"].get("square") and args.detector is None and _all_square(store):
        print(
            f"note: all {len(store)} photos are squares. If they were squeezed, extract them with --square, so that "
            "xgpt-caption squeezes other photos, too"
        )


def _all_square(store: RegionStore) -> bool:
    """Whether all of many photos are squares, as no camera takes them."""
    sizes = store.array("sizes")
    return len(sizes) >= SQUARES and bool((sizes[:, 0] == sizes[:, 1]).all())
