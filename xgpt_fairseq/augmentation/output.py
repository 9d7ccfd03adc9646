"""Writes the files of an augmented data directory.

In addition to the files of every data directory (see `xgpt_fairseq.data.directory`), where generated captions come
after each image's own:

    captions.karpathy.json   all splits in Karpathy's layout; generated captions are marked `"generated": true`
    retrieval.jsonline       the augmented splits in the format of ViLBERT's retrieval loaders
    augmentation.json        how it was made, counts, diversity; AUGMENTATION.md: the same as text

ViLBERT (jiasenlu/vilbert_beta and facebookresearch/vilbert-multi-task, `retreival_dataset.py`, `_load_annotations`)
reads one JSON object per line: `sentences`, a list of captions; the image is `int(img_path.split(".")[0])` for its task
RetrievalFlickr30k, and `id` for RetrievalCOCO. Each line has both, so that one file serves both tasks.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xgpt_fairseq.augmentation.filters import words
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.data.manifest import CaptionSplit
from xgpt_fairseq.data.split_writer import SPLIT_FILES, SplitWriter
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.regions.image_ids import is_number, json_image_id

KARPATHY = "captions.karpathy.json"
RETRIEVAL = "retrieval.jsonline"
REPORT_JSON = "augmentation.json"
REPORT_MD = "AUGMENTATION.md"

# split → image → its generated captions
Added = Mapping[str, Mapping[str, Sequence[str]]]


def write_captions(folder: Path, directory: DataDirectory, added: Added) -> dict[str, CaptionSplit]:
    """Write the files of *directory*'s splits with the captions *added*, and return their description."""
    return {
        split: _write_split(folder, directory, split, added[split])
        if split in added
        else _copy_split(folder, directory, split)
        for split in directory.manifest.splits
    }


def _copy_split(folder: Path, directory: DataDirectory, split: str) -> CaptionSplit:
    for pattern in SPLIT_FILES:
        name = pattern.replace("*", split, 1)
        shutil.copyfile(directory.path / name, folder / name)
    return directory.manifest.splits[split]


def _write_split(
    folder: Path, directory: DataDirectory, split: str, added: Mapping[str, Sequence[str]]
) -> CaptionSplit:
    tokens, rows = directory.captions(split), directory.pairs(split)
    vocabulary = directory.vocabulary
    eos = vocabulary.dictionary.eos()
    writer = SplitWriter(folder, split, vocabulary_size=len(vocabulary.dictionary))
    place = 0
    try:
        for image_id, own in directory.references(split).captions.items():
            row = int(rows[place])
            if directory.regions.image_id(row) != image_id or len(set(rows[place : place + len(own)].tolist())) != 1:
                raise DataError(
                    f"{directory.references_path(split)} and {split}.pairs.npy disagree at image {image_id}; prepare "
                    f"{directory.path} again"
                )
            for text in own:
                writer.add(row, image_id, text, np.asarray(tokens[place]), cut_tokens=0)
                place += 1
            for text in added[image_id]:
                writer.add(row, image_id, text, np.append(vocabulary.encode_ids(text), eos), cut_tokens=0)
        description = writer.finish(store_images=len(directory.regions))
    finally:
        writer.close()
    # only the number of truncated original captions is known; generated ones are never truncated
    return dataclasses.replace(description, cut_to_max_tokens=directory.manifest.splits[split].cut_to_max_tokens)


def write_karpathy(file: Path, directory: DataDirectory, added: Added) -> None:
    """Write all splits in the layout of Karpathy's `dataset_*.json`, an image per line."""
    with open(file, "w", encoding="utf-8") as output:
        output.write('{"images": [')
        sentence_id = 0
        for number, (split, image_id, own, generated) in enumerate(_images(directory, added)):
            sentences: list[dict[str, Any]] = []
            for text, is_generated in [*((text, False) for text in own), *((text, True) for text in generated)]:
                sentence = {"raw": text, "tokens": words(text), "imgid": number, "sentid": sentence_id}
                sentences.append(sentence | ({"generated": True} if is_generated else {}))
                sentence_id += 1
            image = {
                **({"cocoid": int(image_id)} if is_number(image_id) else {}),
                "filename": f"{image_id}.jpg",
                "imgid": number,
                "split": "val" if split == "valid" else split,
                "sentids": [sentence["sentid"] for sentence in sentences],
                "sentences": sentences,
            }
            output.write(("," if number else "") + "\n" + json.dumps(image, ensure_ascii=False))
        output.write('\n], "dataset": "augmented"}\n')


def write_retrieval(file: Path, directory: DataDirectory, added: Added) -> int:
    """Write the splits of *added* for ViLBERT's loaders; return the number of images that only RetrievalCOCO can read.

    Those are the images whose id is not a number: the loader of RetrievalFlickr30k fails on them.
    """
    no_numbers = 0
    with open(file, "w", encoding="utf-8") as output:
        for split, image_id, own, generated in _images(directory, added):
            if split in added:
                no_numbers += not is_number(image_id)
                value = {"id": json_image_id(image_id), "img_path": f"{image_id}.jpg", "sentences": [*own, *generated]}
                output.write(json.dumps(value, ensure_ascii=False) + "\n")
    return no_numbers


def _images(directory: DataDirectory, added: Added) -> Iterator[tuple[str, str, list[str], Iterable[str]]]:
    """(split, image id, own captions, generated captions) of all images."""
    for split in directory.manifest.splits:
        for image_id, own in directory.references(split).captions.items():
            yield split, image_id, own, added.get(split, {}).get(image_id, ())
