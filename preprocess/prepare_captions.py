#!/usr/bin/env python
"""Captions + region store → a data directory for fairseq-train and fairseq-generate.

Captions are normalised, tokenized and split by the vocabulary, cut to --max-tokens (appendix A.2: 60), and paired
with the rows of the region store; raw captions are kept as references for the metrics.

example:
    python preprocess/prepare_captions.py dataset_coco.json --vocabulary vocabulary --regions coco.regions \\
        --output data/coco
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from caption_readers import CAPTION_READERS, CaptionedImage, detect, fairseq_split, read_captions
from tqdm import tqdm

from xgpt_fairseq.cli import run
from xgpt_fairseq.data.directory import FORMAT_VERSION, check_replaceable, file_crc32
from xgpt_fairseq.data.indexed_writer import IndexedWriter
from xgpt_fairseq.data.region_store import RegionStore
from xgpt_fairseq.data.vocabulary import FILES as VOCABULARY_FILES
from xgpt_fairseq.data.vocabulary import Vocabulary
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.files import folder_written_aside, write_json
from xgpt_fairseq.workers import parallel

SPLIT_FILES = ("*.captions.bin", "*.captions.idx", "*.pairs.npy", "*.references.json", "*.missing-images.txt")


class _EncodeIds:
    """Text → ids with end of sentence, and whether it had to be cut to *max_tokens*."""

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        self.vocabulary_size = len(vocabulary.dictionary)
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._eos = vocabulary.dictionary.eos()

    def __call__(self, text: str) -> tuple[np.ndarray, bool]:
        ids = self._vocabulary.encode_ids(text)
        cut = len(ids) >= self._max_tokens
        return np.append(ids[: self._max_tokens - 1], self._eos), cut


def collect(source: Path, name: str, splits: list[str]) -> dict[str, list[CaptionedImage]]:
    """The images of the wanted splits, in the order of the source."""
    images: dict[str, list[CaptionedImage]] = defaultdict(list)
    for image in read_captions(source, name):
        images[image.split].append(image)
    for split in splits:
        if not any(image.captions for image in images[split]):
            found = ", ".join(sorted(key for key, value in images.items() if value)) or "none"
            raise DataError(f"{source} has no captions for split {split!r}; it has: {found} (choose by --splits)")
    for split in images.keys() - set(splits):
        print(f"split {split!r}: {len(images[split])} images are not used (--splits)")
    return {split: images[split] for split in splits}


def with_regions(
    images: list[CaptionedImage], store: RegionStore, split: str, missing: str, report: Path
) -> list[CaptionedImage]:
    """The images that the store holds and that have captions; the others are counted and listed in *report*."""
    absent = [image.image_id for image in images if not store.has(image.image_id)]
    if absent and missing == "error":
        raise DataError(
            f"{len(absent)} of {len(images)} images of split {split!r} are not in {store.path}, the first: "
            f"{', '.join(absent[:5])}; import them, or pass --missing-images skip"
        )
    if absent:
        report.write_text("".join(f"{image_id}\n" for image_id in absent), encoding="utf-8")
        print(f"{split}: {len(absent)} images without regions are left out, listed in {report.name}")
    bare = [image.image_id for image in images if not image.captions]
    if bare:
        print(f"{split}: {len(bare)} images without captions are left out, the first: {', '.join(bare[:5])}")
    kept = [image for image in images if image.captions and store.has(image.image_id)]
    if not kept:
        raise DataError(f"no image of split {split!r} is in {store.path}: is it the store of these images?")
    return kept


def write_split(
    folder: Path, split: str, images: list[CaptionedImage], store: RegionStore, encode: _EncodeIds, workers: int
) -> dict[str, int]:
    """Write the files of one split; return its counts."""
    texts = [caption.text for image in images for caption in image.captions]
    progress = tqdm(parallel(encode, texts, workers), desc=f"{split} captions", total=len(texts), unit_scale=True)
    cut = 0
    with IndexedWriter(folder / f"{split}.captions", vocabulary_size=encode.vocabulary_size) as writer:
        for text, (ids, was_cut) in zip(texts, progress, strict=True):
            if len(ids) == 1:
                raise DataError(
                    f"split {split!r}: nothing is left of the caption {text!r} after tokenization; remove it"
                )
            writer.add(ids, [len(ids)])
            cut += was_cut
        sizes = writer.finish()
    rows = np.repeat([store.row(image.image_id) for image in images], [len(image.captions) for image in images])
    np.save(folder / f"{split}.pairs.npy", rows.astype(np.int32 if len(store) < 2**31 else np.int64))
    write_json(folder / f"{split}.references.json", references(images), indent=None)
    return {"images": len(images), "captions": len(texts), "cut_to_max_tokens": cut, **sizes}


def references(images: list[CaptionedImage]) -> dict[str, object]:
    """COCO's caption format; image ids are numbers where they are numeric, as COCO's tools expect."""

    def number(image_id: str) -> int | str:
        return int(image_id) if image_id.isascii() and image_id.isdigit() else image_id

    annotations = [
        {"id": position, "image_id": number(image.image_id), "caption": caption.text}
        for position, (image, caption) in enumerate((image, c) for image in images for c in image.captions)
    ]
    return {"images": [{"id": number(image.image_id)} for image in images], "annotations": annotations}


def _check_output(output: Path, regions: Path, *, overwrite: bool) -> None:
    """Refuse what must not be replaced. A region store inside *output* stays there, and so must be *regions*."""
    check_replaceable(output, "captions", overwrite=overwrite)
    inside = output / "regions"
    if os.path.lexists(inside) and inside.resolve() != regions.resolve():
        raise DataError(f"{output} holds a region store, {inside}, that is not --regions {regions}; move it away first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="caption file")
    parser.add_argument("--vocabulary", type=Path, required=True, help="folder from learn_bpe.py, shared by all stages")
    parser.add_argument("--regions", type=Path, required=True, metavar="STORE", help="region store of the images")
    parser.add_argument("--output", type=Path, required=True, metavar="DATA", help="data directory to write")
    parser.add_argument("--format", choices=["auto", *CAPTION_READERS], default="auto")
    parser.add_argument("--splits", default="train,val,test", help="which splits, by the source's or fairseq's names")
    parser.add_argument("--missing-images", choices=["error", "skip"], default="error")
    parser.add_argument("--max-tokens", type=int, default=60, help="longest caption in tokens, with end of sentence")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data directory")
    args = parser.parse_args()
    _check_output(args.output, args.regions, overwrite=args.overwrite)
    if args.max_tokens < 2:
        raise DataError(f"--max-tokens must be at least 2 (a token and the end of sentence), got {args.max_tokens}")
    vocabulary, store = Vocabulary(args.vocabulary), RegionStore(args.regions)
    name = detect(args.source) if args.format == "auto" else args.format
    print(f"{args.source}: {name}")
    splits = list(dict.fromkeys(fairseq_split(split) for split in args.splits.split(",")))
    images = collect(args.source, name, splits)

    with folder_written_aside(args.output, last="dataset.json", files=(*SPLIT_FILES, *VOCABULARY_FILES)) as aside:
        counts = {}
        for split in splits:
            kept = with_regions(images[split], store, split, args.missing_images, aside / f"{split}.missing-images.txt")
            encode = _EncodeIds(vocabulary, args.max_tokens)
            counts[split] = write_split(aside, split, kept, store, encode, args.workers)
        vocabulary.copy_to(aside)
        write_json(
            aside / "dataset.json",
            {
                "version": FORMAT_VERSION,
                "splits": counts,
                "max_tokens": args.max_tokens,
                "feature_dim": store.feature_dim,
                "regions": os.path.relpath(args.regions, args.output),
                "regions_ids_crc32": store.ids_crc32,
                "dictionary_crc32": file_crc32(aside / "dict.txt"),
                "made_by": {"program": "prepare_captions.py", "source": args.source.name, "format": name},
            },
        )
    for split, count in counts.items():
        print(f"{split}: {count['images']} images, {count['captions']} captions, {count['cut_to_max_tokens']} cut")
    print(f"written to {args.output}")


if __name__ == "__main__":
    run(main)
