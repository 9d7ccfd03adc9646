"""Writes a region store image by image, with checks; can be resumed after any interruption.

The store is built in a folder next to it (see `io.resumable`), so a store is never visible half-written:

    .STORE.partial/data/         the future store; its files only grow
    .STORE.partial/ids.txt       image ids, one per line (the width of their array is known only at the end)
    .STORE.partial/labels.txt    class names, one per line, likewise
    .STORE.partial/journal.json  the options, and the length of each file at a moment when all were consistent

If such a folder exists and has the same options, a writer truncates the files to the journal's lengths and resumes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import sync_folder, write_json
from xgpt_fairseq.io.resumable import ResumableOutput, partial_path
from xgpt_fairseq.regions.append_only_file import (
    HEADER_BYTES,
    AppendOnlyArray,
    AppendOnlyLines,
    AppendOnlyShards,
    Column,
    State,
)
from xgpt_fairseq.regions.format import MANIFEST, ArrayFile, Manifest
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.limits import DEFAULT_REGIONS, MAX_REGIONS
from xgpt_fairseq.regions.names import storable_folder
from xgpt_fairseq.regions.validation import check_features, check_labels, check_scores, normalise_boxes, one_line

SHARD_BYTES: Final = 1 << 30
JOURNAL_IMAGES: Final = 1000
JOURNAL_SECONDS: Final = 5.0

# The arrays of a store except the features, in the order of `store.json`; and the optional ones.
ARRAYS: Final = ("boxes", "offsets", "ids", "scores", "labels", "sizes", "folders")
OPTIONAL: Final = ("scores", "labels", "sizes", "folders")

Array = npt.NDArray[Any]


class RegionWriter:
    """Writes the region store *path*; resumes an unfinished one that was started with the same options and source.

        with RegionWriter("regions", 2048, source={"made by": "…"}) as writer:
            for … in from_where_it_stopped(writer.position):
                writer.add(image_id, features, boxes, scores=scores, position=next_position)
            writer.finish()

    Args:
        path: the store's folder, which `finish` creates.
        feature_dim: D, the width of all features.
        max_regions: of images with more, the most confident are kept (without scores: the first).
        shard_bytes: size limit of a features file; an image is never split.
        overwrite: replace an existing store (at the end, by `finish`); discard an unfinished one with other options.
        source: how the store is made (JSON); kept in `store.json`. It should not contain times or dates, since only an
            import with the same source is resumed.
        unique_ids: the caller makes sure that no image comes twice, so that ids need not be kept in memory.
        journal_images: the journal is updated at least every N images (and every few seconds).

    Attributes:
        position: where to continue reading the source: the `position` given with the last image that is safe.
        images, num_regions: the numbers of images and of regions written.
        truncated_images: the number of images that had too many regions.
        resumed: whether an unfinished store was found and is resumed.

    Raises:
        DataError: the store exists, or an unfinished one with other options or of an earlier version, or another
            process is writing it.
    """

    def __init__(
        self,
        path: str | Path,
        feature_dim: int,
        *,
        max_regions: int = DEFAULT_REGIONS,
        shard_bytes: int = SHARD_BYTES,
        overwrite: bool = False,
        source: dict[str, Any] | None = None,
        unique_ids: bool = False,
        journal_images: int = JOURNAL_IMAGES,
    ) -> None:
        if feature_dim < 1:
            raise DataError(f"feature width {feature_dim}: at least 1 is needed")
        if not 1 <= max_regions <= MAX_REGIONS:
            raise DataError(f"max_regions is {max_regions}; 1 to {MAX_REGIONS} are allowed")
        self.path = Path(path).resolve()
        self.feature_dim = feature_dim
        self.max_regions = max_regions
        self.overwrite = overwrite
        self.source = source or {}
        self.unique_ids = unique_ids
        self.journal_images = journal_images
        self.position = self.images = self.num_regions = self.truncated_images = 0
        self._shard_regions = max((shard_bytes - HEADER_BYTES) // (2 * feature_dim), 1)
        self._ids: set[str] = set()  # empty with unique_ids
        self._folders_say_more = False  # than the ids
        self._columns: dict[str, Column] = {}  # "features" and the arrays
        self._refuse_existing()
        options = {"feature_dim": feature_dim, "max_regions": max_regions, "shard_bytes": shard_bytes}
        self._run = ResumableOutput(self.path, {**options, **self.source}, overwrite=overwrite, what="import")
        try:
            self._resume_or_start()
        except BaseException:
            self.close()
            raise
        self.resumed = self._run.state is not None
        self._saved_images, self._saved_time = self.images, time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files. A resumed run reads images added since the last journal from the source again."""
        self._close_columns()
        self._run.close()

    def _refuse_existing(self) -> None:
        if self.path.exists():
            if not self.overwrite:
                raise DataError(f"{self.path} exists; pass --overwrite to replace it")
            if not (self.path / MANIFEST).exists():
                raise DataError(f"{self.path} is not a region store (it has no {MANIFEST}): it is not replaced")
        folder = partial_path(self.path)
        if (folder / "store").is_dir() and not self.overwrite:
            raise DataError(
                f"the unfinished import {folder} was started by an earlier version of xgpt_fairseq, which can finish "
                "it; pass --overwrite to start over"
            )

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
        folder: str | None = None,
        pixel: bool = False,
        truncated: bool = False,
        is_canonical: bool = False,
    ) -> None:
        """Append one image.

        Args:
            image_id: any spelling; stored in that of `canonical_image_id`.
            features: (n, D), any float type.
            boxes: (n, 4) x1 y1 x2 y2, in pixels if *pixel* (*size* is then needed), else in 0..1.
            position: where to continue reading the source when this image is safe.
            scores: (n,) confidences; regions are stored by descending score, with ties in their original order.
            labels: n class names.
            size: width and height of the image in pixels.
            folder: of the photo, with `/`. Folders are kept where one of them says more than the ids.
            truncated: the source has more regions of the image than are given here; counted in `truncated_images`.
            is_canonical: *image_id* is an id already, such as `1.png` of `1.png.jpg`, and is stored as it is.

        Scores, labels, sizes and folders are each stored for all images or for none.

        Raises:
            DataError: names the image, the region, the value and the violated rule. Nothing is written then.
        """
        name = self._check_id(str(image_id) if is_canonical else canonical_image_id(image_id), image_id)
        image = f"image {name}"
        half = check_features(features, self.feature_dim, image)
        if len(boxes) != len(half):
            raise DataError(
                f"{image} has features of {len(half)} regions and boxes of {len(boxes)}; one box per region"
            )
        corners = normalise_boxes(boxes, size, pixel=pixel, image=image)
        confidence = None if scores is None else check_scores(scores, len(half), image)
        names = None if labels is None else check_labels(labels, len(half), image)
        if self.images and "folders" not in self._columns:  # resumed, of an earlier version, which kept none meanwhile
            folder = None
        self._check_columns(image, {"scores": scores, "labels": labels, "sizes": size, "folders": folder})

        order = self._order(confidence, len(half))
        self.truncated_images += truncated or len(half) > self.max_regions
        if order is not None:
            half, corners = half[order], corners[order]
            confidence = None if confidence is None else confidence[order]
            names = None if names is None else [names[index] for index in order]

        self._columns["features"].append(half)
        self._columns["boxes"].append(corners)
        self.num_regions += len(half)
        self._columns["offsets"].append(np.array([self.num_regions], dtype="<i8"))
        self._columns["ids"].append([name.encode()])
        if confidence is not None:
            self._columns["scores"].append(confidence)
        if names is not None:
            self._columns["labels"].append(names)
        if size is not None:
            self._columns["sizes"].append(np.array([size], dtype="<i4"))
        if folder is not None:
            self._columns["folders"].append([storable_folder(folder).encode()])
            self._folders_say_more |= bool(folder) and "/" not in name
        if not self.unique_ids:
            self._ids.add(name)
        self.images += 1
        self.position = position

        unsafe = self.images - self._saved_images
        if unsafe >= self.journal_images or time.monotonic() - self._saved_time >= JOURNAL_SECONDS:
            self._save()

    def _check_id(self, name: str, image_id: str | int) -> str:
        if not name or not one_line(name):
            raise DataError(f"image id {image_id!r} is empty, not Unicode, or contains a line break or NUL character")
        if name in self._ids:
            alias = "" if str(image_id) == name else f" (here as {image_id!r})"
            raise DataError(f"image {name} occurs more than once{alias}; an image id must be unique")
        return name

    def _check_columns(self, image: str, given: dict[str, object | None]) -> None:
        for name in OPTIONAL:
            is_given = given[name] is not None
            if is_given and not self.images:
                self._open_column(name)
            if is_given != (name in self._columns):
                this, others = ("with", "without") if is_given else ("without", "with")
                raise DataError(f"{image} comes {this} {name}, the images before it {others}; all images must agree")

    def _order(self, scores: npt.NDArray[np.float32] | None, count: int) -> Array | None:
        """Indices of the regions to store, in order; None for all regions in their given order."""
        if scores is not None and (scores[1:] > scores[:-1]).any():
            return np.argsort(-scores, kind="stable")[: self.max_regions]
        return np.arange(self.max_regions) if count > self.max_regions else None

    # Files

    def _resume_or_start(self) -> None:
        if self._run.state is not None:
            try:
                self._resume(self._run.state)
                return
            except (KeyError, TypeError) as error:
                reason = f"its journal is unreadable ({error!r})"
            except DataError as error:
                reason = str(error)
            self._close_columns()
            self._run.reject_state(f"cannot be resumed: {reason}")
        for name in ("features", "boxes", "offsets", "ids"):
            self._open_column(name)
        self._columns["offsets"].append(np.zeros(1, dtype="<i8"))

    def _resume(self, state: State) -> None:
        for name, column_state in state["columns"].items():
            self._open_column(name, column_state)
        self.position = state["position"]
        self.images, self.num_regions = state["images"], state["num_regions"]
        self.truncated_images = state["truncated_images"]
        known = {name for column in self._columns.values() for name in column.files}
        for path in self._run.data.iterdir():
            if path.name not in known:
                path.unlink()
        self._folders_say_more = bool(state.get("folders_say_more"))
        if not self.unique_ids:
            with open(self._run.folder / "ids.txt", encoding="utf-8", newline="\n") as lines:
                self._ids = {line.rstrip("\n") for line in lines}

    def _open_column(self, name: str, state: State | None = None) -> None:
        path = self._run.data / f"{name}.npy"
        match name:
            case "features":
                column: Column = AppendOnlyShards(self._run.data, self.feature_dim, self._shard_regions, state=state)
            case "ids" | "labels" | "folders":
                column = AppendOnlyLines(self._run.folder / f"{name}.txt", path, state=state)
            case "boxes":
                column = AppendOnlyArray(path, "<f4", (4,), state=state)
            case "offsets":
                column = AppendOnlyArray(path, "<i8", state=state)
            case "scores":
                column = AppendOnlyArray(path, "<f4", state=state)
            case "sizes":
                column = AppendOnlyArray(path, "<i4", (2,), state=state)
            case _:
                raise KeyError(name)
        self._columns[name] = column

    def _close_columns(self) -> None:
        for column in self._columns.values():
            # A full disk fails here again; only data after the last journal is lost.
            with contextlib.suppress(OSError):
                column.close()
        self._columns = {}

    def _save(self) -> None:
        for column in self._columns.values():
            column.sync()
        self._run.save(
            {
                "position": self.position,
                "images": self.images,
                "num_regions": self.num_regions,
                "truncated_images": self.truncated_images,
                "folders_say_more": self._folders_say_more,
                "columns": {name: column.state for name, column in self._columns.items()},
            }
        )
        self._saved_images, self._saved_time = self.images, time.monotonic()

    # The end

    def finish(self) -> None:
        """Complete the store, move it to *path*, and close the writer.

        Raises:
            DataError: no image was added.
        """
        if self.images == 0:
            raise DataError(f"no images: nothing to write to {self.path}")
        self._save()
        if "folders" in self._columns and not self._folders_say_more:
            self._columns.pop("folders").close()
        arrays: dict[str, ArrayFile] = {name: self._columns[name].finish() for name in ARRAYS if name in self._columns}
        manifest = Manifest(
            feature_dim=self.feature_dim,
            images=self.images,
            num_regions=self.num_regions,
            truncated_images=self.truncated_images,
            shards=self._columns["features"].finish(),
            arrays=arrays,
            source=self.source,
        )
        write_json(self._run.data / MANIFEST, manifest.to_json())
        sync_folder(self._run.data)
        self._refuse_existing()
        self._run.replace()
        self.close()
