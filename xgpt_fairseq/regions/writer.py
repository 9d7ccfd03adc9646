"""Writing a region store: image by image, checked, resumable after any interruption.

The store is built in a folder beside it and renamed at the end, so that what has the store's name is whole:

    .STORE.partial/store/        the coming store; its files only grow
    .STORE.partial/ids.txt       image ids, one a line (their array needs the longest one, known at the end)
    .STORE.partial/labels.txt    class names, one a line, likewise
    .STORE.partial/journal.json  how long each file was at a moment when all agreed, and what was asked for

A writer that finds such a folder, begun with the same options, cuts the files back to the journal and goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import take_lock, write_json
from xgpt_fairseq.regions.append_only_file import HEADER_BYTES, AppendOnlyArrayFile, npy_header, sync_folder
from xgpt_fairseq.regions.format import MANIFEST, MAX_REGIONS, ArrayFile, Manifest, partial_path
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.validation import check_features, check_labels, check_scores, normalise_boxes, one_line

SHARD_BYTES: Final = 1 << 30
JOURNAL_IMAGES: Final = 1000
JOURNAL_SECONDS: Final = 5.0
JOURNAL_VERSION: Final = 1

Array = npt.NDArray[Any]


class RegionWriter:
    """Writes the region store *path*; resumes an unfinished one that was begun with the same options and source.

        with RegionWriter("regions", 2048, source={"made by": "…"}) as writer:
            for … in from_where_it_stopped(writer.position):
                writer.add(image_id, features, boxes, scores=scores, position=next_position)
            writer.finish()

    Args:
        path: the store's folder. It appears when `finish` has done its work.
        feature_dim: D, the width of all features.
        max_regions: of images with more, the most confident are kept (without scores: the first).
        shard_bytes: limit of a features file; an image is never split.
        overwrite: replace a store of this name (at the end, by `finish`), and drop an unfinished one of other options.
        source: how the store is made; kept in `store.json`. What is JSON can be here, times and dates should not:
            a resumed import is recognised by it.
        journal_images: at least once in so many images (and every few seconds) the journal is brought up to date.

    Attributes:
        position: where the source is to be read on: the `position` given with the last image that is safe.
        images: the number of images written. rows: of regions. images_cut: of images that had too many regions.
        resumed: whether an unfinished store was found and is resumed.

    Raises:
        DataError: there is such a store already, or an unfinished one of other options, or another writer is at it.
    """

    def __init__(
        self,
        path: str | Path,
        feature_dim: int,
        *,
        max_regions: int = MAX_REGIONS,
        shard_bytes: int = SHARD_BYTES,
        overwrite: bool = False,
        source: dict[str, Any] | None = None,
        journal_images: int = JOURNAL_IMAGES,
    ) -> None:
        if feature_dim < 1:
            raise DataError(f"feature width {feature_dim}: at least 1 is needed")
        if not 1 <= max_regions <= MAX_REGIONS:
            raise DataError(f"max_regions is {max_regions}; 1 to {MAX_REGIONS} are possible")
        self.path = Path(path).resolve()
        self.feature_dim = feature_dim
        self.max_regions = max_regions
        self.overwrite = overwrite
        self.journal_images = journal_images
        self._shard_rows = max((shard_bytes - HEADER_BYTES) // (2 * feature_dim), 1)
        self._options: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "feature_dim": feature_dim,
                    "max_regions": max_regions,
                    "shard_bytes": shard_bytes,
                    "source": source or {},
                }
            )
        )
        self._refuse_existing()
        self._work = partial_path(self.path)
        self._store = self._work / "store"
        self._work.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self._work, f"another import is writing {self.path}")
        self.position = self.images = self.rows = self.images_cut = 0
        self._ids: set[str] = set()
        self._columns: list[str] | None = None  # the optional ones; known with the first image
        self._widest = {"ids": 0, "labels": 0}
        self._shards: list[ArrayFile] = []
        self._shard_start = 0
        self._files: dict[str, AppendOnlyArrayFile] = {}
        self._journal_at = 0
        self._journal_time = time.monotonic()
        try:
            journal = self._read_journal()
            self.resumed = journal is not None
            if journal is None:
                self._start()
            else:
                self._resume(journal)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all files. What was added since the last journal is read from the source again on resuming."""
        for file in self._files.values():
            # A full disk fails here once more; what is lost lies behind the journal.
            with contextlib.suppress(OSError):
                file.close()
        self._files = {}
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # Adding images

    def add(
        self,
        image_id: str | int,
        features: Array,
        boxes: Array,
        *,
        position: int,
        scores: Array | None = None,
        labels: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        pixel: bool = False,
        cut: bool = False,
    ) -> None:
        """Append one image.

        Args:
            image_id: any name of the image; stored as `canonical_image_id` gives it.
            features: (n, D), any float type.
            boxes: (n, 4) x1 y1 x2 y2, in pixels if *pixel* (*size* is then needed), else in 0..1.
            position: where the source is to be read on when this image is safe.
            scores: (n,) confidences; the regions are stored in descending order of them (equal ones as they came).
            labels: n class names.
            size: width and height of the image in pixels.
            cut: the source has more regions of the image than are given here: counted in `images_cut`.

        Scores, labels and sizes are each stored for all images or for none.

        Raises:
            DataError: names the image, the region, the value and the rule that is broken. Nothing is written then.
        """
        name = self._check_id(image_id)
        image = f"image {name}"
        half = check_features(features, self.feature_dim, image)
        if len(boxes) != len(half):
            raise DataError(f"{image} has features of {len(half)} regions and boxes of {len(boxes)}; one box a region")
        corners = normalise_boxes(boxes, size, pixel=pixel, image=image)
        confidence = None if scores is None else check_scores(scores, len(half), image)
        names = None if labels is None else check_labels(labels, len(half), image)
        self._check_columns(image, {"scores": scores, "labels": labels, "sizes": size})

        order = self._order(confidence, len(half))
        self.images_cut += cut or len(half) > self.max_regions
        if order is not None:
            half, corners = half[order], corners[order]
            confidence = None if confidence is None else confidence[order]
            names = None if names is None else [names[index] for index in order]

        self._shard_for(len(half)).append(half)
        self.rows += len(half)
        self._files["boxes.npy"].append(corners)
        self._files["offsets.npy"].append(np.array([self.rows], dtype="<i8"))
        encoded = name.encode()
        self._files["ids.txt"].append(encoded + b"\n")
        self._widest["ids"] = max(self._widest["ids"], len(encoded))
        if confidence is not None:
            self._files["scores.npy"].append(confidence)
        if names is not None:
            self._files["labels.txt"].append(b"\n".join(names) + b"\n")
            self._widest["labels"] = max(self._widest["labels"], *map(len, names))
        if size is not None:
            self._files["sizes.npy"].append(np.array(size, dtype="<i4"))
        self._ids.add(name)
        self.images += 1
        self.position = position

        unsafe = self.images - self._journal_at
        if unsafe >= self.journal_images or time.monotonic() - self._journal_time >= JOURNAL_SECONDS:
            self._write_journal()

    def _check_id(self, image_id: str | int) -> str:
        name = canonical_image_id(image_id)
        if not name or not one_line(name):
            raise DataError(f"image id {image_id!r} is empty, not Unicode, or has a line break or NUL character in it")
        if name in self._ids:
            alias = "" if str(image_id) == name else f" (here as {image_id!r})"
            raise DataError(f"image {name} is there more than once{alias}; an image id must be unique")
        return name

    def _check_columns(self, image: str, given: dict[str, object | None]) -> None:
        if self._columns is None:
            self._columns = sorted(name for name, value in given.items() if value is not None)
            for name in self._columns:
                self._open_column(name)
        for name, value in given.items():
            if (value is not None) != (name in self._columns):
                this, others = ("without", "with") if value is None else ("with", "without")
                raise DataError(f"{image} comes {this} {name}, the images before it {others}; all of a store or none")

    def _order(self, scores: npt.NDArray[np.float32] | None, count: int) -> Array | None:
        """Which regions are stored, in which order; None when it is all of them as they are."""
        if scores is not None and (scores[1:] > scores[:-1]).any():
            return np.argsort(-scores, kind="stable")[: self.max_regions]
        return np.arange(self.max_regions) if count > self.max_regions else None

    def _shard_for(self, count: int) -> AppendOnlyArrayFile:
        """The features file that has room for *count* more rows."""
        used = self.rows - self._shard_start
        if used and used + count > self._shard_rows:
            self._finish_shard()
        name = f"features-{len(self._shards):05d}.npy"
        if name not in self._files:
            self._files[name] = AppendOnlyArrayFile(self._store / name, header=npy_header("<f2", (0, self.feature_dim)))
        return self._files[name]

    def _finish_shard(self) -> None:
        file = self._files.pop(f"features-{len(self._shards):05d}.npy")
        self._shards.append(file.finish("<f2", (self.rows - self._shard_start, self.feature_dim)))
        self._shard_start = self.rows

    # The journal

    def _start(self) -> None:
        (self._work / "journal.json").unlink(missing_ok=True)
        if self._store.exists():
            shutil.rmtree(self._store)
        self._store.mkdir()
        for name in ("boxes", "offsets", "ids"):
            self._open_column(name)
        self._files["offsets.npy"].append(np.zeros(1, dtype="<i8"))
        self._write_journal()

    def _open_column(self, name: str) -> None:
        if name in ("ids", "labels"):
            self._files[f"{name}.txt"] = AppendOnlyArrayFile(self._work / f"{name}.txt")
        else:
            self._files[f"{name}.npy"] = AppendOnlyArrayFile(
                self._store / f"{name}.npy", header=npy_header("<f4", (0,))
            )

    def _write_journal(self) -> None:
        for file in self._files.values():
            file.sync()
        write_json(
            self._work / "journal.json",
            {
                "version": JOURNAL_VERSION,
                "options": self._options,
                "position": self.position,
                "images": self.images,
                "rows": self.rows,
                "images_cut": self.images_cut,
                "columns": self._columns,
                "widest": self._widest,
                "shards": [[shard.shape[0], shard.bytes, shard.crc32] for shard in self._shards],
                "files": {name: file.state for name, file in self._files.items()},
            },
        )
        self._journal_at = self.images
        self._journal_time = time.monotonic()

    def _read_journal(self) -> dict[str, Any] | None:
        """The journal to go on from; None when there is nothing to go on with."""
        file = self._work / "journal.json"
        if not (file.exists() and self._store.is_dir()):
            return None
        try:
            journal: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            differs = (
                _difference(journal["options"], self._options) if journal["version"] == JOURNAL_VERSION else "format"
            )
            damage = self._damage(journal)
        except (ValueError, KeyError, TypeError) as error:
            differs, damage = "", f"its journal is unreadable ({error})"
        if not differs and not damage:
            return journal
        if self.overwrite or (differs and not damage and not journal["images"]):  # nothing is lost by beginning anew
            return None
        reason = f"was started with other options ({differs})" if differs else f"cannot be resumed: {damage}"
        raise DataError(f"the unfinished import {self._work} {reason}; pass --overwrite to start over")

    def _damage(self, journal: dict[str, Any]) -> str:
        expected = {self._file_path(name): state["bytes"] for name, state in journal["files"].items()}
        for index, (_, size, _) in enumerate(journal["shards"]):
            expected[self._store / f"features-{index:05d}.npy"] = size
        for path, size in expected.items():
            found = path.stat().st_size if path.exists() else 0
            if found < size:
                return f"{path.name} has {found} bytes, at least {size} expected"
        return ""

    def _file_path(self, name: str) -> Path:
        return (self._work if name.endswith(".txt") else self._store) / name

    def _resume(self, journal: dict[str, Any]) -> None:
        self.position = journal["position"]
        self.images, self.rows, self.images_cut = journal["images"], journal["rows"], journal["images_cut"]
        self._columns = journal["columns"]
        self._widest = journal["widest"]
        self._shards = [
            ArrayFile(f"features-{index:05d}.npy", "<f2", (rows, self.feature_dim), size, crc)
            for index, (rows, size, crc) in enumerate(journal["shards"])
        ]
        self._shard_start = sum(shard.shape[0] for shard in self._shards)
        known = {*journal["files"], *(shard.file for shard in self._shards)}
        for path in self._store.iterdir():
            if path.name not in known:
                path.unlink()
        for name, state in journal["files"].items():
            self._files[name] = AppendOnlyArrayFile(self._file_path(name), state=state)
        with open(self._work / "ids.txt", encoding="utf-8", newline="\n") as lines:
            self._ids = {line.rstrip("\n") for line in lines}
        self._journal_at = self.images

    # The end

    def finish(self) -> None:
        """Complete the store and give it its name. The writer is closed then.

        Raises:
            DataError: no image was added.
        """
        if self.images == 0:
            raise DataError(f"no images: nothing to write to {self.path}")
        self._write_journal()
        columns = self._columns or []
        self._finish_shard()
        files = self._files
        arrays = {
            "boxes": files["boxes.npy"].finish("<f4", (self.rows, 4)),
            "offsets": files["offsets.npy"].finish("<i8", (self.images + 1,)),
            "ids": self._text_array("ids", self.images),
        }
        if "scores" in columns:
            arrays["scores"] = files["scores.npy"].finish("<f4", (self.rows,))
        if "labels" in columns:
            arrays["labels"] = self._text_array("labels", self.rows)
        if "sizes" in columns:
            arrays["sizes"] = files["sizes.npy"].finish("<i4", (self.images, 2))
        manifest = Manifest(
            feature_dim=self.feature_dim,
            images=self.images,
            rows=self.rows,
            images_cut=self.images_cut,
            shards=tuple(self._shards),
            arrays=arrays,
            source=self._options["source"],
        )
        write_json(self._store / MANIFEST, manifest.to_json())
        sync_folder(self._store)
        self._give_name()
        self.close()

    def _text_array(self, name: str, count: int) -> ArrayFile:
        """The lines of a text file as an array of fixed-width bytes, converted piece by piece."""
        dtype = f"|S{max(self._widest[name], 1)}"
        file = AppendOnlyArrayFile(self._store / f"{name}.npy", header=npy_header(dtype, (count,)))
        with open(self._work / f"{name}.txt", "rb") as lines:
            while piece := list(itertools.islice(lines, 1 << 16)):
                file.append(np.array([line[:-1] for line in piece], dtype=dtype))
        return file.finish(dtype, (count,))

    def _give_name(self) -> None:
        self._refuse_existing()
        replaced = self._work / "replaced"
        if self.path.exists():
            # A kill between the two renames leaves a whole store in the partial folder: the next run only renames it.
            shutil.rmtree(replaced, ignore_errors=True)
            self.path.rename(replaced)
        self._store.rename(self.path)
        sync_folder(self.path.parent)
        shutil.rmtree(self._work)

    def _refuse_existing(self) -> None:
        if not self.path.exists():
            return
        if not self.overwrite:
            raise DataError(f"{self.path} exists; pass --overwrite to replace it")
        if not (self.path / MANIFEST).exists():
            raise DataError(f"{self.path} is not a region store (it has no {MANIFEST}): it is not replaced")


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between the options of an unfinished import and this one's, in words; empty when nothing does."""
    flat_before = {**before, **before["source"], "source": None}
    flat_now = {**now, **now["source"], "source": None}
    names = [name for name in {**flat_before, **flat_now} if flat_before.get(name) != flat_now.get(name)]
    return "; ".join(f"{name}: {flat_before.get(name)} then, {flat_now.get(name)} now" for name in names)
