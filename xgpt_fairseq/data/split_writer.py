"""Writes the files of a split caption by caption, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import json
import shutil
from array import array
from pathlib import Path

import numpy as np

from xgpt_fairseq.data.indexed_writer import IndexedWriter
from xgpt_fairseq.data.manifest import CaptionSplit
from xgpt_fairseq.regions.image_ids import json_image_id

# Allowed names of splits.
SPLIT_FILES = ("*.captions.bin", "*.captions.idx", "*.pairs.npy", "*.references.json")


class SplitWriter:
    """Writes token ids, indices in the region store, and references of one split.

    Args:
        folder: where the files go.
        split: the split, in fairseq's name.
        vocabulary_size: decides the type of the token ids.

    Attributes:
        images, captions, truncated_captions: how many were written, and how many of the captions were cut.
        tokens, cut_tokens: of the captions, before they were cut, and what was cut of them.
        longest: tokens of the longest caption before it was cut, with end of sentence.
    """

    def __init__(self, folder: Path, split: str, *, vocabulary_size: int) -> None:
        self.images = self.captions = self.truncated_captions = 0
        self.tokens = self.cut_tokens = self.longest = 0
        self._pairs = folder / f"{split}.pairs.npy"
        self._rows = array("q")
        self._files = contextlib.ExitStack()
        token_files = IndexedWriter(folder / f"{split}.captions", vocabulary_size=vocabulary_size)
        self._token_files = self._files.enter_context(token_files)
        self._references = ReferencesWriter(folder / f"{split}.references.json")
        self._files.callback(self._references.close)

    def add(self, row: int, image_id: str, text: str, ids: np.ndarray, cut_tokens: int) -> None:
        """Write a caption of the image in *row* of the region store; those of one image come one after the other.

        Args:
            row, image_id: of its image.
            text: the caption.
            ids: its tokens, with end of sentence.
            cut_tokens: how many tokens were cut off.
        """
        self.images += not self._rows or self._rows[-1] != row
        self.captions += 1
        self.truncated_captions += cut_tokens > 0
        self.tokens += len(ids) + cut_tokens
        self.cut_tokens += cut_tokens
        self.longest = max(self.longest, len(ids) + cut_tokens)
        self._rows.append(row)
        self._token_files.add(ids, [len(ids)])
        self._references.add(image_id, text)

    def finish(self, *, store_images: int) -> CaptionSplit:
        """Complete the files, and return the split's counts and sizes."""
        rows = np.frombuffer(self._rows, dtype=np.int64)
        np.save(self._pairs, rows.astype(np.int32 if store_images < 2**31 else np.int64))
        self._references.finish()
        sizes = self._token_files.finish()
        return CaptionSplit(self.images, self.captions, cut_to_max_tokens=self.truncated_captions, **sizes)

    def close(self) -> None:
        """Close the files."""
        self._files.close()


class ReferencesWriter:
    """Streams COCO's caption format, `{"images": [{"id"}], "annotations": [{"id", "image_id", "caption"}]}`.

    Numeric image ids are written as numbers, as COCO's tools expect. Each of the two lists grows in its own file.
    """

    def __init__(self, path: Path) -> None:
        self._rest = path.with_suffix(".annotations")
        self._images = path.open("w", encoding="utf-8")
        self._annotations = self._rest.open("w", encoding="utf-8")
        self._images.write('{"images": [')
        self._last: str | None = None
        self._count = 0

    def add(self, image_id: str, text: str) -> None:
        """Write a caption; captions of one image must be consecutive."""
        json_id = json_image_id(image_id)
        if image_id != self._last:
            self._images.write(("" if self._last is None else ", ") + json.dumps({"id": json_id}, ensure_ascii=False))
            self._last = image_id
        annotation = {"id": self._count, "image_id": json_id, "caption": text}
        self._annotations.write((", " if self._count else "") + json.dumps(annotation, ensure_ascii=False))
        self._count += 1

    def finish(self) -> None:
        """Join the two lists."""
        self._images.write('], "annotations": [')
        self._annotations.close()
        with open(self._rest, encoding="utf-8") as annotations:
            shutil.copyfileobj(annotations, self._images)
        self._images.write("]}\n")
        self.close()
        self._rest.unlink()

    def close(self) -> None:
        """Close the files."""
        self._images.close()
        self._annotations.close()
