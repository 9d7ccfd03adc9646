"""`xgpt-diagnose`: whether each objective uses its source, by its validation loss with the right and wrong ones."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import check_writable, write_json

if TYPE_CHECKING:
    from xgpt_fairseq.metrics.diagnosis import Losses

_EXAMPLE = """\
Prints each objective's loss on a split, in bits per predicted token or as TIFG's mean squared error, and its increase
with
  other text      the encoder's text is another image's caption
  other regions   the regions are another image's
  neither         there is neither text nor image: one [MASK], one region with the mean of all features
with a 95 % interval (paired, over batches of images; of 10 images or more). If the loss does not increase, the
objective does not use its source.

example:
  xgpt-diagnose checkpoints/out_of_domain/averaged.pt data/cc
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: program(_parser().parse_args(arguments)))


def program(args: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from xgpt_fairseq.checkpoints import load_checkpoint
    from xgpt_fairseq.data.caption_dataset import CaptionDataset
    from xgpt_fairseq.data.directory import DataDirectory
    from xgpt_fairseq.data.epoch_batches import too_long_error
    from xgpt_fairseq.devices import default_device, usable_device
    from xgpt_fairseq.loading import open_model
    from xgpt_fairseq.metrics.diagnosis import diagnose
    from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols, build_objectives
    from xgpt_fairseq.precision import check_cpu_bfloat16
    from xgpt_fairseq.regions.statistics import feature_statistics

    if args.output:
        check_writable(args.output, overwrite=args.overwrite)
    check_at_least("--batch-size", args.batch_size, 2, "so that there is another image")
    check_at_least("--seed", args.seed, 0)
    device = usable_device(args.device or default_device())
    if args.cpu_bf16:
        check_cpu_bfloat16(device)
    directory = DataDirectory(args.data, regions=args.regions)
    dictionary = directory.vocabulary.dictionary
    state = load_checkpoint(args.checkpoint)
    trained_with = (state.get("cfg") or {}).get("task") or {}
    names = _names(args.objectives or trained_with.get("objectives") or "ic")
    objectives = build_objectives(names, dictionary, trained_with)
    dataset = CaptionDataset(
        directory.captions(args.split),
        directory.pairs(args.split),
        directory.regions,
        objectives,
        split=args.split,
        pad=dictionary.pad(),
        seed=args.seed,
        captions_per_image=0,
        shuffle=False,
    )
    model = open_model(args.checkpoint, state, directory, objectives=objectives)
    limit = model.max_decoder_positions()
    if (too_long := dataset.sizes > limit).any():
        raise too_long_error(
            args.split, int(too_long.sum()), len(dataset), limit=limit, longest=int(dataset.sizes.max()),
            remedy=f"prepare the data with --max-tokens {limit}", what="images have a caption",
        )  # fmt: skip
    losses = diagnose(
        model.to(device),
        dataset,
        objectives,
        symbols=Symbols.of(dictionary),
        mean_features=torch.from_numpy(feature_statistics(directory.regions)[0]).to(device),
        batch_size=args.batch_size,
        seed=args.seed,
        cpu_bf16=args.cpu_bf16,
        progress=lambda batches: iter(tqdm(batches, unit=" batches", disable=None)),
    )
    report = {
        name: _differences(by_source, PRETRAINING_OBJECTIVES[name].metric_name) for name, by_source in losses.items()
    }
    print(_table(report, args.split, len(dataset)))
    if args.output:
        about = {"checkpoint": str(args.checkpoint), "data": str(args.data), "split": args.split, "seed": args.seed}
        write_json(args.output, {**about, "objectives": report})


def _names(text: str) -> list[str]:
    from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PRETRAINING_OBJECTIVES:
            known = ", ".join(PRETRAINING_OBJECTIVES)
            raise DataError(f"--objectives: unknown objective {name!r}; known: {known}")
    return names


def _differences(by_source: dict[str, Losses], measure: str) -> dict[str, Any]:
    """The loss with its own source and the increase with others, with the interval; nats are converted to bits.

    Of too few images, the interval's ends are None.
    """
    from xgpt_fairseq.metrics.diagnosis import OWN, difference

    unit = 1.0 if measure == "mse" else 1 / math.log(2)
    report: dict[str, Any] = {"unit": "mse" if measure == "mse" else "bits", OWN: unit * by_source[OWN].mean}
    for source, each in by_source.items():
        if source != OWN:
            higher, interval = difference(each, by_source[OWN])
            low, high = interval or (None, None)
            report[source] = {
                "higher": unit * higher,
                "low": None if low is None else unit * low,
                "high": None if high is None else unit * high,
            }
    return report


def _table(report: dict[str, dict[str, Any]], split: str, images: int) -> str:
    from xgpt_fairseq.metrics.diagnosis import LEAST_BATCHES, OWN, SOURCES

    least = 2 * LEAST_BATCHES
    interval = "95 % interval" if images >= least else f"no interval: that needs {least} images or more"
    lines = [f"{split}: {images} images; loss with its own source, and by how much it is higher without ({interval})"]
    lines.append(f"{'':<12}{'own':>12}" + "".join(f"{source:>26}" for source in SOURCES if source != OWN))
    for name, found in report.items():
        cells = [f"{found[OWN]:.3f} {found['unit']}"]
        for source in SOURCES:
            if source != OWN:
                cells.append("–" if source not in found else _increase(**found[source]))
        lines.append(f"{name:<12}{cells[0]:>12}" + "".join(f"{cell:>26}" for cell in cells[1:]))
    return "\n".join(lines)


def _increase(higher: float, low: float | None, high: float | None) -> str:
    return f"{higher:+.3f}" if low is None or high is None else f"{higher:+.3f} [{low:+.3f}, {high:+.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Show whether each objective uses its source: its loss with the right source, and with wrong ones.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("data", metavar="DATA", type=Path, help="data directory")
    parser.add_argument("--objectives", metavar="LIST", help="such as ida,tifg [those of the checkpoint's training]")
    parser.add_argument("--split", default="valid", help="[%(default)s]")
    parser.add_argument("--regions", type=Path, metavar="STORE", help="region store [the data directory's]")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=32,
        metavar="N",
        help="images per batch, with all captions (%(default)s); fewer where there would be less than 8 batches",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of masks and of the choice of other images (%(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … [a GPU if there is one]")
    parser.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU with bfloat16 arithmetic")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the numbers as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    return parser


if __name__ == "__main__":
    main()
