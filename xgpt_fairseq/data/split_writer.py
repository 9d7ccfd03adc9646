"""The files of a split of captions, written caption by caption, so that memory does not grow with their number."""

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

# What a split's files may be called.
SPLIT_FILES = ("*.captions.bin", "*.captions.idx", "*.pairs.npy", "*.references.json")


class SplitWriter:
    """Token ids, rows in the region store, and references of one split; `finish` completes and `close` closes them.

    Args:
        folder: where the files go.
        split: the split, in fairseq's name.
        vocabulary_size: decides the type of the token ids.
    """

    def __init__(self, folder: Path, split: str, *, vocabulary_size: int) -> None:
        self.images = self.captions = self.truncated_captions = 0
        self._pairs = folder / f"{split}.pairs.npy"
        self._rows = array("q")
        self._files = contextlib.ExitStack()
        tokens = IndexedWriter(folder / f"{split}.captions", vocabulary_size=vocabulary_size)
        self._tokens = self._files.enter_context(tokens)
        self._references = ReferencesWriter(folder / f"{split}.references.json")
        self._files.callback(self._references.close)

    def add(self, row: int, image_id: str, text: str, ids: np.ndarray, truncated: bool) -> None:
        """Write a caption of the image in *row* of the region store; those of one image come one after the other."""
        self.images += not self._rows or self._rows[-1] != row
        self.captions += 1
        self.truncated_captions += truncated
        self._rows.append(row)
        self._tokens.add(ids, [len(ids)])
        self._references.add(image_id, text)

    def finish(self, *, store_images: int) -> CaptionSplit:
        """Complete the files; return the counts and sizes that describe the split."""
        rows = np.frombuffer(self._rows, dtype=np.int64)
        np.save(self._pairs, rows.astype(np.int32 if store_images < 2**31 else np.int64))
        self._references.finish()
        sizes = self._tokens.finish()
        return CaptionSplit(self.images, self.captions, cut_to_max_tokens=self.truncated_captions, **sizes)

    def close(self) -> None:
        """Close the files."""
        self._files.close()


class ReferencesWriter:
    """COCO's caption format, `{"images": [{"id"}], "annotations": [{"id", "image_id", "caption"}]}`, as it comes.

    Image ids are numbers where they are numeric, as COCO's tools expect. The two lists grow in a file each.
    """

    def __init__(self, path: Path) -> None:
        self._rest = path.with_suffix(".annotations")
        self._images = path.open("w", encoding="utf-8")
        self._annotations = self._rest.open("w", encoding="utf-8")
        self._images.write('{"images": [')
        self._last: str | None = None
        self._count = 0

    def add(self, image_id: str, text: str) -> None:
        """Write a caption; those of one image come one after the other."""
        json_id = json_image_id(image_id)
        if image_id != self._last:
            self._images.write(("" if self._last is None else ", ") + json.dumps({"id": json_id}, ensure_ascii=False))
            self._last = image_id
        annotation = {"id": self._count, "image_id": json_id, "caption": text}
        self._annotations.write((", " if self._count else "") + json.dumps(annotation, ensure_ascii=False))
        self._count += 1

    def finish(self) -> None:
        """Put the two lists together."""
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
