"""Generates captions for the images of a data directory, batch by batch, with a journal.

The captions of an image depend on the seed, the order of the images, the batch size and the options, and not on
interruptions: each batch of images has its own seed in each round, and is in the journal completely or not at all. (On
other hardware, or with another number of threads, the last digits of matrix products may differ, and now and then a
word.)
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xgpt_fairseq.augmentation.filters import Rules, Selection
from xgpt_fairseq.augmentation.quota import quotas
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.io.resumable import ResumableOutput
from xgpt_fairseq.regions.store import RegionStore
from xgpt_fairseq.search.generator import SearchOptions


@dataclass(frozen=True)
class AugmentationTarget:
    """An image to augment: its split, id and index in the region store, its captions, and how many more it gets."""

    split: str
    image_id: str
    row: int
    own: list[str]
    wanted: int


@dataclass(frozen=True)
class Generated:
    """The captions generated for an image.

    Attributes:
        image_id: the image.
        captions: the kept captions.
        drawn, surplus: the numbers of generated captions, and of good ones that were not needed.
        missing: number of wanted captions that are missing.
        dropped: number of dropped captions by reason.
    """

    image_id: str
    captions: list[str]
    drawn: int
    surplus: int
    missing: int
    dropped: dict[str, int] = field(default_factory=dict)


def images_of(directory: DataDirectory, split: str, per_image: float, seed: int) -> list[AugmentationTarget]:
    """The images of *split* in the order of their captions."""
    captions = directory.references(split).captions
    wanted = quotas(len(captions), per_image, seed).tolist()
    store = directory.regions
    return [
        AugmentationTarget(split, image_id, store.image_index(image_id), own, count)
        for (image_id, own), count in zip(captions.items(), wanted, strict=True)
    ]


def generate_batch(
    captioner: XGPTHubInterface,
    store: RegionStore,
    batch: Sequence[AugmentationTarget],
    *,
    search: SearchOptions,
    rules: Rules,
    rounds: int,
    seed: Sequence[int],
) -> list[Generated]:
    """Generate captions for a batch of images, in up to *rounds* rounds for images that lack captions.

    Sampled captions are taken in random order, so that the kept ones follow the model's distribution; the search
    returns them by score.

    Args:
        search: `beam` captions per image and round.
        seed: seed of the batch; torch's generator state outside does not change.
    """
    selections = [Selection(image.own, image.wanted, rules) for image in batch]
    for round_number in range(rounds):
        short = [place for place, selection in enumerate(selections) if selection.missing]
        if not short:
            break
        random = np.random.default_rng([*seed, round_number])
        with torch.random.fork_rng(devices=[captioner.device] if captioner.device.type == "cuda" else []):
            torch.manual_seed(int(random.integers(2**62)))
            found = captioner.candidates(store, [batch[place].row for place in short], search)
        for place, candidates in zip(short, found, strict=True):
            order = random.permutation(len(candidates)) if search.sampling else np.arange(len(candidates))
            for index in order.tolist():
                selections[place].offer(candidates[index].text, candidates[index].tokens)
    return [
        Generated(image.image_id, each.kept, each.drawn, each.surplus, each.missing, _in_order(each.dropped))
        for image, each in zip(batch, selections, strict=True)
    ]


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def draw_all(
    run: ResumableOutput,
    captioner: XGPTHubInterface,
    store: RegionStore,
    images: Sequence[AugmentationTarget],
    *,
    search: SearchOptions,
    rules: Rules,
    rounds: int,
    seed: int,
    batch_size: int,
    advance: Callable[[int], object],
) -> list[Generated]:
    """Generate captions for all images, resuming an interrupted *run*; *advance* is called with the numbers done.

    Raises:
        DataError: the journal of the interrupted run is damaged.
    """
    journal = run.folder / "generated.jsonl"
    state: dict[str, Any] = run.state or {"images": 0, "bytes": 0}
    with open(journal, "ab" if run.state else "wb") as lines:
        if lines.tell() < state["bytes"]:
            raise DataError(f"{journal} is truncated; delete {run.folder} to start over")
        lines.truncate(state["bytes"])
        lines.seek(0, os.SEEK_END)
        advance(state["images"])
        for start in range(state["images"], len(images), batch_size):
            batch = images[start : start + batch_size]
            found = generate_batch(
                captioner, store, batch, search=search, rules=rules, rounds=rounds, seed=[seed, start // batch_size]
            )
            lines.writelines(json.dumps(asdict(each), ensure_ascii=False).encode() + b"\n" for each in found)
            lines.flush()
            os.fsync(lines.fileno())
            run.save({"images": start + len(batch), "bytes": lines.tell()})
            advance(len(batch))
    return _read(journal, images)


def _read(journal: Path, images: Sequence[AugmentationTarget]) -> list[Generated]:
    with open(journal, encoding="utf-8") as lines:
        generated = [Generated(**json.loads(line)) for line in lines]
    if [each.image_id for each in generated] != [image.image_id for image in images]:
        raise DataError(f"{journal} is of other images; delete {journal.parent} to start over")
    return generated


def model_crc32(captioner: XGPTHubInterface) -> str:
    """Checksum of a model's parameters, which identifies the model of a run whatever its file name."""
    crc = 0
    for name, tensor in sorted(captioner.model.state_dict().items()):
        crc = zlib.crc32(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"
