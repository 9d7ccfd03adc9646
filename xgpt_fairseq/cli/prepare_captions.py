"""Captions + region store → a data directory for fairseq-train and fairseq-generate.

Captions are normalised, tokenized and segmented by the vocabulary, truncated to --max-tokens (appendix A.2: 60), and
paired with the images of the region store; raw captions are kept as references for the metrics.

SOURCE holds captions, in any of the formats below. Captions find their photo by the name of its file, else by its id.
An image's split is what its record says; else what SPLIT=FILE or --split-files say; else what the name of the file or
of its folder says. --hold-out takes validation and test images out of the training ones.

Extracting regions takes long: --check-photos says before whether captions and photos fit.

examples:
    xgpt-prepare-captions dataset_coco.json --check-photos train2014 val2014
    xgpt-prepare-captions dataset_coco.json --vocabulary vocabulary --regions coco.regions \\
        --output data/coco
    xgpt-prepare-captions captions_train2014.json valid=captions_minival.json --splits train,val …
    xgpt-prepare-captions results_20130124.token --split-files train=train.txt val=val.txt \\
        test=test.txt …
    xgpt-prepare-captions Train_GCC-training.tsv Validation_GCC-1.1.0-Validation.tsv \\
        --splits train,val --image-ids crc32 --missing-images skip --max-missing 0.3 …
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xgpt_fairseq.captions.base import CaptionedImage, CaptionOptions, ReadingLog
from xgpt_fairseq.captions.options import (
    add_caption_options,
    check_options_count,
    format_list,
    parse_columns,
    parse_files,
    read_caption_options,
)
from xgpt_fairseq.captions.pairing import PAIR_BY, Pairing
from xgpt_fairseq.captions.registry import CaptionSource, open_source, read_sources
from xgpt_fairseq.captions.split_names import fairseq_split
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser, given_options
from xgpt_fairseq.cli.path_lists import add_list_option, with_listed_paths
from xgpt_fairseq.data.manifest import MANIFEST, CaptionManifest, CaptionSplit
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import atomic_directory
from xgpt_fairseq.io.workers import map_ordered

if TYPE_CHECKING:
    import numpy as np

    from xgpt_fairseq.captions.survey import Count, Survey
    from xgpt_fairseq.data.split_writer import SplitWriter
    from xgpt_fairseq.text.vocabulary import Vocabulary

BAD_RECORDS = "bad-records.txt"
# What is needed to write a data directory.
_WRITING = ("vocabulary", "regions", "output")


class _EncodeIds:
    """Text → ids with end of sentence, at most *max_tokens*, and how many had to be cut for that."""

    def __init__(self, vocabulary: Vocabulary, max_tokens: int) -> None:
        self.vocabulary_size = len(vocabulary.dictionary)
        self._vocabulary = vocabulary
        self._max_tokens = max_tokens
        self._eos = vocabulary.dictionary.eos()

    def __call__(self, text: str) -> tuple[np.ndarray, int]:
        import numpy as np

        ids = self._vocabulary.encode_ids(text)
        kept = ids[: self._max_tokens - 1]
        return np.append(kept, self._eos), len(ids) - len(kept)


class Cut(NamedTuple):
    """What was cut of captions to --max-tokens.

    Attributes:
        captions: how many were cut.
        tokens: of all captions, before.
        cut_tokens: what was cut off.
        longest: tokens of the longest caption, with end of sentence.
    """

    captions: int
    tokens: int
    cut_tokens: int
    longest: int

    @classmethod
    def of(cls, writers: Collection[SplitWriter]) -> Cut:
        """All splits together."""
        return cls(
            captions=sum(writer.truncated_captions for writer in writers),
            tokens=sum(writer.tokens for writer in writers),
            cut_tokens=sum(writer.cut_tokens for writer in writers),
            longest=max((writer.longest for writer in writers), default=0),
        )

    def summary(self, captions: int, max_tokens: int) -> str:
        """How much text was lost, of *captions* captions, and how to keep it."""
        return (
            f"{self.captions} of {captions} captions are longer than --max-tokens {max_tokens} and were cut: "
            f"{self.cut_tokens} of {self.tokens} tokens ({self.cut_tokens / self.tokens:.1%}) are lost. "
            f"--max-tokens {self.longest} keeps all of them; then train with --max-target-positions {self.longest}, too"
        )


def write_splits(
    folder: Path,
    images: Iterable[CaptionedImage],
    counts: dict[str, Count],
    pairing: Pairing,
    encode: _EncodeIds,
    workers: int,
) -> tuple[dict[str, CaptionSplit], Cut]:
    """Read the source a second time, write the files of the splits in *counts*; return their description, and cuts."""
    from tqdm import tqdm

    from xgpt_fairseq.data.split_writer import SplitWriter

    waiting: deque[tuple[str, int, str, str]] = deque()
    writers: dict[str, SplitWriter] = {}

    def texts() -> Iterator[str]:
        for image in images:
            row = pairing.find(image) if image.split in writers and image.captions else None
            if row is not None:
                image_id = pairing.names.image_id(row)
                for caption in image.captions:
                    waiting.append((image.split, row, image_id, caption.text))
                    yield caption.text

    total = sum(count.captions for count in counts.values())
    with contextlib.ExitStack() as stack:
        for split in counts:
            writers[split] = SplitWriter(folder, split, vocabulary_size=encode.vocabulary_size)
            stack.callback(writers[split].close)
        encoded = map_ordered(encode, texts(), workers)
        for ids, cut_tokens in stack.enter_context(tqdm(encoded, desc="captions", total=total, unit_scale=True)):
            split, row, image_id, text = waiting.popleft()
            if len(ids) == 1:
                raise DataError(
                    f"split {split!r}, image {image_id}: nothing is left of the caption {text!r} after tokenization; "
                    "remove it"
                )
            writers[split].add(row, image_id, text, ids, cut_tokens)
        for split, count in counts.items():
            if (writers[split].images, writers[split].captions) != (count.kept, count.captions):
                raise DataError("the source was changed while it was read; run the program again")
        descriptions = {split: writer.finish(store_images=len(pairing.names)) for split, writer in writers.items()}
        return descriptions, Cut.of(writers.values())


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: prepare_captions(_parse_arguments(arguments)))


def prepare_captions(args: argparse.Namespace) -> None:
    """Write the data directory of captions; or, with --check-photos, only say whether captions and photos fit."""
    if args.photos is None:
        _prepare(args)
    else:
        _check_photos(args)


def _prepare(args: argparse.Namespace) -> None:
    from xgpt_fairseq.captions.survey import UNCAPTIONED
    from xgpt_fairseq.data.directory import check_no_view, check_regions_inside, check_replaceable, file_crc32
    from xgpt_fairseq.data.split_writer import SPLIT_FILES
    from xgpt_fairseq.regions.store import RegionStore
    from xgpt_fairseq.text.vocabulary import FILES as VOCABULARY_FILES
    from xgpt_fairseq.text.vocabulary import Vocabulary

    check_replaceable(args.output, "captions", overwrite=args.overwrite)
    check_regions_inside(args.output, args.regions)
    check_options(args)
    vocabulary, store = Vocabulary(args.vocabulary), RegionStore(args.regions)
    check_no_view(store)
    captions = _Captions.of(args)
    own = (*SPLIT_FILES, *VOCABULARY_FILES, "*.missing-images.txt", UNCAPTIONED, BAD_RECORDS)
    with atomic_directory(args.output, last=MANIFEST, files=own) as aside:
        pairing = Pairing(store.names, args.pair_by)
        found, splits = _surveyed(args, captions, pairing, aside)
        encode = _EncodeIds(vocabulary, args.max_tokens)
        wanted = {split: found.counts[split] for split in splits}
        written, cut = write_splits(aside, captions.read(), wanted, pairing, encode, args.workers)
        vocabulary.copy_to(aside)
        manifest = CaptionManifest(
            splits=written,
            max_tokens=args.max_tokens,
            feature_dim=store.feature_dim,
            regions=os.path.relpath(args.regions, args.output),
            regions_ids_crc32=store.ids_crc32,
            dictionary_crc32=file_crc32(aside / "dict.txt"),
            made_by={
                "program": "prepare_captions.py",
                "source": ", ".join(source.file.path.name for source in captions.sources),
                "format": ", ".join(dict.fromkeys(source.format.name for source in captions.sources)),
            },
        )
        manifest.write(aside)
    for split, counts in written.items():
        print(f"{split}: {counts.images} images, {counts.captions} captions, {counts.cut_to_max_tokens} cut")
    if cut.captions:
        print(cut.summary(sum(counts.captions for counts in written.values()), args.max_tokens))
    if found.uncaptioned:
        print(
            f"{found.uncaptioned} of {len(store)} images of the region store have no captions, listed in {UNCAPTIONED}"
        )
    print(f"written to {args.output}")


def _check_photos(args: argparse.Namespace) -> None:
    """Check captions against photos as `_prepare` does against the store that is extracted from them; write nothing."""
    from xgpt_fairseq.captions.survey import NAMED
    from xgpt_fairseq.vision.photo_names import names_of_photos, needed_reader

    check_options(args)
    captions = _Captions.of(args)
    names, others = names_of_photos(args.photos)
    if others:
        first = ", ".join(str(file.path) for file in others[:NAMED])
        print(f"{len(others)} files beside {len(names)} photos are no photos, the first: {first}")
        if reader := needed_reader(others):
            print(reader)
    found, splits = _surveyed(args, captions, Pairing(names, args.pair_by), None)
    for split in splits:
        print(f"{split}: {found.counts[split].kept} images, {found.counts[split].captions} captions")
    if found.uncaptioned:
        first = ", ".join(found.first_uncaptioned)
        print(f"{found.uncaptioned} of {len(names)} photos have no captions, the first: {first}")
    print("captions and photos fit; nothing is written")


@dataclass(frozen=True)
class _Captions:
    """The captions that the arguments name.

    Attributes:
        name: of all of them, for messages.
    """

    sources: Sequence[CaptionSource]
    options: CaptionOptions
    name: str

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Captions:
        """Opens them, and says which formats they have."""
        files, named_splits = parse_files(args.source)
        sources = [open_source(file, args.format, parse_columns(args.columns)) for file in files]
        for file, caption_format in sources:
            print(f"{file.path}: {caption_format.name}")
        check_options_count(args, [(source.file.path, source.format) for source in sources], "SOURCE")
        alone = len(sources) == 1
        options = replace(read_caption_options(args, named_splits), is_only_source=alone, columns_of_others=not alone)
        return cls(sources, options, ", ".join(map(str, files)))

    def read(self) -> Iterator[CaptionedImage]:
        """Their images, anew."""
        self.options.log.clear()
        return read_sources(self.sources, self.options)


def _surveyed(
    args: argparse.Namespace, captions: _Captions, pairing: Pairing, folder: Path | None
) -> tuple[Survey, Sequence[str]]:
    """Survey the captions, refuse what can't be used, and print a summary; lists lie in *folder*, if it is one.

    Returns:
        tuple: the survey, and the splits that are wanted.
    """
    from tqdm import tqdm

    from xgpt_fairseq.captions.conceptual_captions import check_lines
    from xgpt_fairseq.captions.survey import check, check_held_out, print_summary, survey, usual_splits

    wanted = None
    if args.splits is not None:
        wanted = list(dict.fromkeys(fairseq_split(split) for split in args.splits.split(",")))
    if args.image_ids is None:
        for source in captions.sources:
            if source.format.images_by_url:
                check_lines(source.file, pairing.names)
    if any(source.format.two_names for source in captions.sources):
        pairing.choose(captions.read())
    with tqdm(captions.read(), desc="reading", unit=" images", unit_scale=True) as progress:
        found = survey(progress, wanted, captions.options.split_lists, pairing, folder)
    check_held_out(found.counts, captions.options.hold_out, wanted, captions.name)
    splits = wanted or usual_splits(found.counts, captions.name)
    max_missing = 1.0 if args.max_missing is None else args.max_missing
    check(found.counts, splits, pairing.names, captions.name, args.missing_images, max_missing)
    print_summary(found, splits, pairing.names)
    _print_log(captions.options.log, folder)
    return found, splits


def _print_log(log: ReadingLog, folder: Path | None) -> None:
    """Say what the readers left out or mended; list the records that could not be read in *folder*, if it is one."""
    for what, times in log.counts.items():
        print(f"{times} {what}")
    if log.bad:
        listed = "the first:" if folder is None else f"listed in {BAD_RECORDS}"
        print(f"{len(log.bad)} records that cannot be read are left out (--skip-bad), {listed}")
        if folder is None:
            print(log.bad[0])
        else:
            messages = "".join(f"{message}\n" for message in log.bad)
            (folder / BAD_RECORDS).write_text(messages, encoding="utf-8", errors="backslashreplace")


def check_options(args: argparse.Namespace) -> None:
    """Refuse values that can be refused before anything is read.

    Raises:
        DataError: there is one.
    """
    check_at_least("--max-tokens", args.max_tokens, 2, "a token and the end of sentence")
    if args.max_missing is None:
        return
    if not 0 <= args.max_missing <= 1:
        raise DataError(f"--max-missing is a share, 0 to 1, got {args.max_missing:g}")
    if args.missing_images != "skip":
        raise DataError("--max-missing needs --missing-images skip; by default a single missing image is an error")


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; `photos` are those of --check-photos and --list, None without either."""
    parser = command_line()
    args = parser.parse_args(arguments)
    if args.photos is None and args.list is not None:
        parser.error("--list names photos for --check-photos")
    if args.photos is None:
        if missing := [f"--{name}" for name in _WRITING if getattr(args, name) is None]:
            parser.error(f"the following arguments are required: {', '.join(missing)}")
        return args
    others = (*_WRITING, "max_tokens", "workers", "overwrite")
    if given := given_options(parser, args, others):
        parser.error(f"--check-photos comes before there are regions, and writes nothing: leave out {', '.join(given)}")
    return with_listed_paths(parser, args, "the PHOTOS of --check-photos, or --list")


def command_line() -> argparse.ArgumentParser:
    """All options of the program."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=format_list())
    parser.add_argument("source", nargs="+", metavar="[SPLIT=]SOURCE", help="caption file, or several")
    parser.add_argument("--vocabulary", type=Path, help="folder from xgpt-learn-bpe, one for all stages")
    parser.add_argument("--regions", type=Path, metavar="STORE", help="region store of the images")
    parser.add_argument("--output", type=Path, metavar="DATA", help="data directory to write")
    parser.add_argument(
        "--check-photos",
        dest="photos",
        type=Path,
        nargs="*",
        action="extend",
        metavar="PHOTOS",
        help="write nothing, but check the captions against photos that have no regions yet, named as for "
        "xgpt-extract-regions; needs no --vocabulary, --regions and --output",
    )
    add_list_option(parser, "with --check-photos: ")
    parser.add_argument(
        "--splits",
        help="which splits, by the source's or fairseq's names [train, val and test, where the source has them]",
    )
    add_caption_options(parser, "the captions, see below")
    parser.add_argument(
        "--pair-by",
        choices=PAIR_BY,
        default="auto",
        help="how captions find their photos: by the name of the file, or by the id; auto (default): by the file's "
        "name if any fits, else by the id",
    )
    parser.add_argument("--missing-images", choices=["error", "skip"], default="error")
    parser.add_argument(
        "--max-missing",
        type=float,
        metavar="SHARE",
        help="with --missing-images skip: the largest share of a split's images, 0 to 1, that may be missing",
    )
    parser.add_argument("--max-tokens", type=int, default=60, help="longest caption in tokens, with end of sentence")
    parser.add_argument("--workers", type=int, default=1, help="processes that tokenize")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data directory")
    return parser


if __name__ == "__main__":
    main()
