"""Makes one region store of the parts that several processes made."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_directory, atomic_write, write_json
from xgpt_fairseq.io.resumable import partial_path
from xgpt_fairseq.regions.append_only_file import AppendOnlyArray, AppendOnlyLines
from xgpt_fairseq.regions.format import MANIFEST, ArrayFile, Manifest
from xgpt_fairseq.regions.limits import MAX_REGIONS
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.regions.writer import RegionWriter

# What becomes of the features: hard links to the parts' files, copies, or the parts' paths.
WAYS: Final = ("link", "copy", "refer")
UNREADABLE: Final = "unreadable.txt"
# What the source of a part that an earlier version made does not say: such parts, of which an extraction may have made
# some before this version makes the others, are not compared by it.
MAY_LACK: Final = frozenset({"max_regions"})


def merge(
    places: Sequence[Path],
    output: Path,
    *,
    way: str = "link",
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda images: None,
) -> RegionStore:
    """Write the region store *output* of all parts of one extraction.

    A part whose files are all unreadable has only their list, beside the others.

    Args:
        places: the parts, or a folder of them.
        output: the store.
        way: "link": features are the parts' own files, by hard links, so the parts can be removed; "copy": the store is
            byte for byte that of one run; "refer": the store names the parts' files, which must stay.
        overwrite: replace a store of this name.
        progress: called with a number of images as they are done.

    Raises:
        DataError: a part is missing, unfinished or damaged, or of another extraction, or an image is in two; or
            hard links are not possible.
    """
    parts, lists = _in_order(places)
    _check_ids(parts)
    source = {name: value for name, value in parts[0].source.items() if name != "shard"}
    if output.exists() and not (overwrite and (output / MANIFEST).exists()):
        reason = "pass --overwrite to replace it" if (output / MANIFEST).exists() else "it is no region store"
        raise DataError(f"{output} exists; {reason}")
    if way == "copy":
        _copy(parts, output, source, overwrite, progress)
    else:
        _join(parts, output, source, way, progress)
    _merge_lists(lists, output)
    return RegionStore(output)


def _in_order(places: Sequence[Path]) -> tuple[list[RegionStore], list[Path]]:
    """The parts, complete, of one extraction; and the lists of their unreadable files, of those that have any."""
    paths: list[Path] = []
    for place in places:
        inside = sorted(each.parent for each in place.glob(f"*/{MANIFEST}")) if place.is_dir() else []
        paths += [place] if (place / MANIFEST).exists() or not inside else inside
    parts: dict[int, RegionStore] = {}
    for path in paths:
        store = RegionStore(path)
        shard = store.source.get("shard")
        if shard is None:
            raise DataError(f"{path} is no part of a store: it was made without --num-shards")
        if shard["index"] in parts:
            raise DataError(f"{path} and {parts[shard['index']].path} are both part {shard['index']}")
        parts[shard["index"]] = store
    stores = [parts[index] for index in sorted(parts)]
    first = stores[0]
    for other in stores[1:]:
        _check_same(first, other)
    count = first.source["shard"]["count"]
    named = {index: first.path.with_name(f"{index}-of-{count}") for index in range(count)}
    named |= {index: part.path for index, part in parts.items()}
    lists = [path.with_name(f"{path.name}.{UNREADABLE}") for path in named.values()]
    if missing := _missing(parts, lists):
        state = " (unfinished: run it again)" if partial_path(named[missing[0]]).exists() else ""
        some = ", ".join(map(str, missing[:10]))
        raise DataError(f"of {count} parts these are missing: {some}{' …' if len(missing) > 10 else ''}{state}")
    return stores, [file for file in lists if file.exists()]


def _missing(parts: dict[int, RegionStore], lists: Sequence[Path]) -> list[int]:
    """Which parts are missing: they are no stores, and not all of their files are listed as unreadable.

    Such a list may be of an earlier extraction, or of one that was interrupted. It is not taken for a part unless it
    has as many files as lie between the parts around it.
    """
    missing, row = [], 0
    for has_photos, group in itertools.groupby(range(len(lists)), key=parts.__contains__):
        indices = list(group)
        if has_photos:
            last = parts[indices[-1]].source["shard"]
            row = last["first"] + last["files"]
            continue
        after = parts.get(indices[-1] + 1)
        files = (next(iter(parts.values())).source["files"] if after is None else after.source["shard"]["first"]) - row
        if sum(map(_lines, [lists[index] for index in indices])) != files:
            missing += [index for index in indices if not lists[index].exists()] or indices
    return missing


def _lines(file: Path) -> int:
    if not file.exists():
        return 0
    with open(file, "rb") as lines:
        return sum(1 for _ in lines)


def _check_same(first: RegionStore, other: RegionStore) -> None:
    """Raise DataError unless two parts are of one extraction."""
    values = [
        {**store.source, "shard": store.source["shard"]["count"], "feature_dim": store.feature_dim}
        for store in (first, other)
    ]
    for name in dict.fromkeys([*values[0], *values[1]]):
        one, two = (value.get(name) for value in values)
        unknown = name in MAY_LACK and not all(name in value for value in values)
        if one != two and not unknown:
            raise DataError(f"{other.path} is of another extraction than {first.path}: {name} {two!r} against {one!r}")
    optional = [set(store.manifest.arrays) - {"folders"} for store in (first, other)]
    if optional[0] != optional[1]:
        raise DataError(f"{other.path} has {sorted(optional[1])}, {first.path} has {sorted(optional[0])}")


def _check_ids(parts: Sequence[RegionStore]) -> None:
    """Raise DataError if an image is in two parts. Sorting arrays takes a fraction of a dictionary's memory."""
    ids = np.concatenate([_closed(part, part.array("ids")) for part in parts])
    order = np.argsort(ids, kind="stable")
    [same] = np.nonzero(ids[order[1:]] == ids[order[:-1]])
    if len(same):
        ends = np.cumsum([len(part) for part in parts])
        one, other = (parts[int(np.searchsorted(ends, order[at], side="right"))] for at in (same[0], same[0] + 1))
        raise DataError(f"image {bytes(ids[order[same[0]]]).decode()} is in two parts, {one.path} and {other.path}")


def _closed(part: RegionStore, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of one of the arrays of *part*, whose files are closed: of hundreds of parts, not all can be open."""
    copy = array.copy()
    part.close()
    return copy


def _folder(part: RegionStore, image_index: int) -> str:
    """The folder of a photo; of a part that keeps none, the ids say it."""
    if "folders" in part.manifest.arrays:
        return bytes(part.array("folders")[image_index]).decode()
    return part.image_id(image_index).rpartition("/")[0]


def _copy(
    parts: Sequence[RegionStore], output: Path, source: dict[str, Any], overwrite: bool, progress: Callable[..., object]
) -> None:
    """Write all images again; resumed where it was interrupted."""
    places = _in_turn(parts)
    width = parts[0].feature_dim
    kept = any("folders" in part.manifest.arrays for part in parts)
    with RegionWriter(
        output,
        width,
        max_regions=MAX_REGIONS,
        overwrite=overwrite,
        source=source,
        unique_ids=True,  # by _check_ids
    ) as writer:
        progress(writer.position)
        rest = itertools.islice(places, writer.position, None)
        for position, (part, at) in enumerate(rest, start=writer.position + 1):
            writer.add(
                part.image_id(at),
                part.features(at),
                part.boxes(at),
                position=position,
                scores=part.scores(at),
                labels=part.labels(at),
                size=part.size(at),
                folder=_folder(part, at) if kept else None,
                is_canonical=True,
            )
            progress(1)
        writer.truncated_images = sum(part.manifest.truncated_images for part in parts)
        writer.finish()


def _in_turn(parts: Sequence[RegionStore]) -> Iterator[tuple[RegionStore, int]]:
    """All images, as part and place; a part's files are closed behind its last."""
    for part in parts:
        for image_index in range(len(part)):
            yield part, image_index
        part.close()


def _join(
    parts: Sequence[RegionStore], output: Path, source: dict[str, Any], way: str, progress: Callable[..., object]
) -> None:
    """Write all arrays but the features, whose files are linked or referred to."""
    names = [name for name in parts[0].manifest.arrays if name != "folders"]
    kept = any("folders" in part.manifest.arrays for part in parts)
    with (
        atomic_directory(output, last=MANIFEST, files=["*.npy", MANIFEST]) as aside,
        tempfile.TemporaryDirectory(dir=aside.parent, prefix=f".{output.name}.") as lines,
    ):
        arrays = {name: _array(name, parts, aside, Path(lines)) for name in names}
        if kept:
            column = AppendOnlyLines(Path(lines) / "folders.txt", aside / "folders.npy")
            for part in parts:
                column.append([_folder(part, at).encode() for at in range(len(part))])
                part.close()
            arrays["folders"] = column.finish()
        shards: list[ArrayFile] = []
        for part in parts:
            for shard in part.manifest.shards:
                file = f"features-{len(shards):05}.npy"
                if way == "link":
                    _link(part.path / shard.file, aside / file)
                else:
                    file = os.path.relpath(part.path / shard.file, output.resolve())
                shards.append(ArrayFile(file, shard.dtype, shard.shape, shard.bytes, shard.crc32))
            progress(len(part))
        manifest = Manifest(
            feature_dim=parts[0].feature_dim,
            images=sum(map(len, parts)),
            num_regions=sum(part.num_regions for part in parts),
            truncated_images=sum(part.manifest.truncated_images for part in parts),
            shards=tuple(shards),
            arrays=arrays,
            source=source,
        )
        write_json(aside / MANIFEST, manifest.to_json())


def _array(name: str, parts: Sequence[RegionStore], folder: Path, lines: Path) -> ArrayFile:
    """One of the arrays, of all parts."""
    first = parts[0].array(name)
    if first.dtype.kind == "S":
        strings = AppendOnlyLines(lines / f"{name}.txt", folder / f"{name}.npy")
        for part in parts:
            strings.append(part.array(name).tolist())
            part.close()
        return strings.finish()
    column = AppendOnlyArray(folder / f"{name}.npy", first.dtype.str, first.shape[1:])
    total = 0
    for part in parts:
        rows = part.array(name)
        if name == "offsets":  # each part's begin at 0
            rows = rows + np.int64(total) if not total else rows[1:] + np.int64(total)
            total = int(rows[-1])
        column.append(np.ascontiguousarray(rows))
        part.close()
    return column.finish()


def _link(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except OSError as error:
        raise DataError(
            f"{file} can't be linked to {link.parent} ({error.strerror}); --copy copies features, --refer names them"
        ) from None


def _merge_lists(lists: Sequence[Path], output: Path) -> None:
    """One list of the unreadable files of all parts, beside the store."""
    output = output.resolve()
    merged = output.with_name(f"{output.name}.{UNREADABLE}")
    if not lists:
        merged.unlink(missing_ok=True)
        return
    with atomic_write(merged) as aside, open(aside, "wb") as file:
        for each in lists:
            with open(each, "rb") as lines:
                shutil.copyfileobj(lines, file)
