"""Adds generated captions to a data directory."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xgpt_fairseq.augmentation import output as files
from xgpt_fairseq.augmentation.filters import Rules
from xgpt_fairseq.augmentation.generate import AugmentationTarget, Generated, draw_all, images_of, model_crc32
from xgpt_fairseq.augmentation.report import make_report, to_markdown
from xgpt_fairseq.data.directory import DataDirectory, file_crc32
from xgpt_fairseq.data.manifest import MANIFEST
from xgpt_fairseq.data.split_writer import SPLIT_FILES
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.io.atomic import interrupted, write_json
from xgpt_fairseq.io.resumable import ResumableOutput
from xgpt_fairseq.search.generator import SearchOptions
from xgpt_fairseq.text.vocabulary import FILES as VOCABULARY_FILES

PROGRAM = "xgpt-augment"
FILES = (
    *SPLIT_FILES,
    *VOCABULARY_FILES,
    *(files.KARPATHY, files.RETRIEVAL, files.REPORT_JSON, files.REPORT_MD, MANIFEST),
    *("*.missing-images.txt", "uncaptioned-images.txt"),  # of a directory of xgpt-prepare-captions that is replaced
)


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """Options that determine the captions, together with data and model.

    Attributes:
        splits: the splits to augment.
        per_image: captions to add per image, on average.
        search: `beam` captions are generated per image and round; the length limit is set here.
        rounds: most rounds of generation for an image that lacks captions.
        repeat_ngram: drop captions that repeat N words in the same order; 0: keep them.
        seed: seed of all random numbers.
        batch_size: images per batch; the captions depend on it.
    """

    splits: Sequence[str]
    per_image: float
    search: SearchOptions
    rounds: int
    repeat_ngram: int
    seed: int
    batch_size: int


def augment(
    directory: DataDirectory, captioner: XGPTHubInterface, output: Path, options: AugmentOptions, *, overwrite: bool
) -> str:
    """Generate captions, write *output*, and return the report as Markdown.

    Raises:
        DataError: a split is missing, the model cannot read the store, or the directory has generated captions already;
            also see `ResumableOutput`.
    """
    check_source(directory, options.splits)
    store = directory.regions
    captioner.check_store(store)
    max_tokens = directory.manifest.max_tokens
    longest = min(max_tokens, captioner.config.max_target_positions) - 1
    search = dataclasses.replace(options.search, max_len_b=longest)
    rules = Rules(key=directory.vocabulary.encode, longest=longest, repeat_ngram=options.repeat_ngram)
    images = [
        image for split in options.splits for image in images_of(directory, split, options.per_image, options.seed)
    ]
    model = model_crc32(captioner)
    asked = {
        "data": str(directory.path.resolve()),
        "data_crc32": file_crc32(directory.path / MANIFEST),
        "captions_crc32": [file_crc32(directory.references_path(split)) for split in options.splits],
        "regions": directory.regions.sha256,
        "model_crc32": model,
        "device": captioner.device.type,
        "cpu_bf16": search.cpu_bf16,
        **_options(options),
    }
    with ResumableOutput(output, asked, overwrite=overwrite) as run:
        try:
            with tqdm(total=len(images), desc="captions", unit=" images", disable=None) as bar:
                generated = draw_all(
                    run,
                    captioner,
                    store,
                    images,
                    search=search,
                    rules=rules,
                    rounds=options.rounds,
                    seed=options.seed,
                    batch_size=options.batch_size,
                    advance=bar.update,
                )
            report = _write(run.data, output, directory, images, generated, options, model)
            run.finish(last=MANIFEST, files=FILES)
        except OSError as error:  # a full disk, most likely
            raise interrupted(error, output) from error
        except KeyboardInterrupt:
            if run.is_resumable:
                print(f"the same command resumes from {run.folder}", file=sys.stderr)
            raise
    return report


def check_source(directory: DataDirectory, splits: Sequence[str]) -> None:
    """Refuse a directory that cannot be augmented.

    Raises:
        DataError: a split is missing or named twice, or has generated captions, which would count as original ones.
    """
    if directory.manifest.made_by.get("program") == PROGRAM:
        raise DataError(
            f"{directory.path} was made by {PROGRAM} and has generated captions, which would count as original ones: "
            "augment the directory that it was made from, with a larger --per-image"
        )
    for split in splits:
        directory.references_path(split)
    if len(set(splits)) < len(splits):
        raise DataError(f"--split {','.join(splits)}: a split is named twice")


def _write(
    folder: Path,
    output: Path,
    directory: DataDirectory,
    images: Sequence[AugmentationTarget],
    generated: Sequence[Generated],
    options: AugmentOptions,
    model: str,
) -> str:
    """Write all files of the future directory *output* to *folder*, and return the report as Markdown."""
    added: dict[str, dict[str, list[str]]] = {split: {} for split in options.splits}
    for image, each in zip(images, generated, strict=True):
        added[image.split][image.image_id] = each.captions
    splits = files.write_captions(folder, directory, added)
    files.write_karpathy(folder / files.KARPATHY, directory, added)
    no_numbers = files.write_retrieval(folder / files.RETRIEVAL, directory, added)
    report = make_report(images, generated, seed=options.seed)
    made_by: dict[str, Any] = {
        "program": PROGRAM,
        "source": directory.path.resolve().name,
        "model_crc32": model,
        "options": _options(options),
    }
    write_json(folder / files.REPORT_JSON, made_by | report)
    text = to_markdown(report, f"Generated captions in {output.resolve().name}")
    if no_numbers:
        text += (
            f"\n{no_numbers:,} images have names that are no numbers: ViLBERT's loader reads {files.RETRIEVAL} as "
            "RetrievalCOCO, not as RetrievalFlickr30k.\n"
        )
    (folder / files.REPORT_MD).write_text(text, encoding="utf-8")
    directory.vocabulary.copy_to(folder)
    manifest = dataclasses.replace(
        directory.manifest,
        splits=splits,
        regions=os.path.relpath(directory.regions_path, output),
        dictionary_crc32=file_crc32(folder / "dict.txt"),
        made_by=made_by | {"made_from": directory.manifest.made_by},
    )
    manifest.write(folder)
    return text


def _options(options: AugmentOptions) -> dict[str, Any]:
    """The options for the report, with the relevant ones of the search."""
    search = options.search
    how: dict[str, Any] = (
        {"sampling_topp": search.sampling_topp, "temperature": search.temperature}
        if search.sampling
        else {"diverse_beam_groups": search.diverse_beam_groups, "diverse_beam_strength": search.diverse_beam_strength}
    )
    others = {name: value for name, value in dataclasses.asdict(options).items() if name != "search"}
    return {**others, "candidates": search.beam, **how}
