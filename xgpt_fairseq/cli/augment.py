"""`xgpt-augment`: add captions that a model generates to a data directory (section 6.1)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.parser import Parser
from xgpt_fairseq.errors import DataError, check_at_least

if TYPE_CHECKING:
    from xgpt_fairseq.search.generator import SearchOptions

_TOPP, _TEMPERATURE, _STRENGTH, _ROUNDS = 0.9, 1.0, 0.5, 4

_EXAMPLE = """\
Captions are sampled, or searched with --diverse-beam-groups. Copies of the image's own captions or of each other,
captions that repeat a phrase, and empty or unfinished ones are dropped and counted; an image that lacks captions gets
another round. The captions depend on the model, the data, --seed, --batch-size and the options, not on interruptions:
the same command resumes where a run was stopped.

NEW_DATA is a data directory for fairseq-train. It also has captions.karpathy.json (generated captions are marked),
retrieval.jsonline for ViLBERT's retrieval loader, augmentation.json and AUGMENTATION.md.

example:
  xgpt-augment data/flickr30k --path checkpoints/flickr30k/averaged.pt --per-image 2.1 --output data/flickr30k-augmented
"""


def main(arguments: Sequence[str] | None = None) -> None:
    run(lambda: _augment(_parser().parse_args(arguments)))


def _augment(args: argparse.Namespace) -> None:
    from xgpt_fairseq.augmentation.augment import AugmentOptions, augment
    from xgpt_fairseq.data.directory import DataDirectory, check_regions_inside, check_replaceable
    from xgpt_fairseq.devices import default_device, usable_device
    from xgpt_fairseq.hub_interface import XGPTHubInterface
    from xgpt_fairseq.precision import check_cpu_bfloat16

    search = _search(args)
    _check_numbers(args)
    rounds = args.rounds if args.rounds is not None else (_ROUNDS if search.sampling else 1)
    if rounds > 1 and not search.sampling:
        raise DataError(f"--rounds {rounds}: diverse beam search finds the same again; give more --candidates instead")
    check_replaceable(args.output, "captions", overwrite=args.overwrite)
    device = usable_device(args.device or default_device())
    if args.cpu_bf16:
        check_cpu_bfloat16(device)
    bundled = args.path.is_dir()
    directory = DataDirectory(args.data, regions=args.regions if bundled else _regions(args))
    if args.output.resolve() == directory.path.resolve():
        raise DataError(f"--output {args.output} is DATA itself; name another folder")
    check_regions_inside(args.output, directory.regions_path)
    trained_on: dict[str, Any] = {} if bundled else {"data": args.data, "regions": directory.regions_path}
    captioner = XGPTHubInterface.from_path(args.path, **trained_on).to(device)
    options = AugmentOptions(
        splits=[split.strip() for split in args.split.split(",")],
        per_image=args.per_image,
        search=search,
        rounds=rounds,
        repeat_ngram=args.repeat_ngram,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    print(augment(directory, captioner, args.output, options, overwrite=args.overwrite))
    print(f"written to {args.output}")


def _regions(args: argparse.Namespace) -> Path | None:
    """The region store for a checkpoint: the one given, or the one that it was trained on; None: that of DATA."""
    from xgpt_fairseq.bundle import training_regions
    from xgpt_fairseq.checkpoints import load_checkpoint

    given: Path | None = args.regions
    task = (load_checkpoint(args.path).get("cfg") or {}).get("task") or {}
    return given or training_regions(args.path, task, args.data)


def _search(args: argparse.Namespace) -> SearchOptions:
    """The search options from the command line."""
    from xgpt_fairseq.search.generator import SearchOptions

    if args.diverse_beam_groups is None:
        if args.diverse_beam_strength is not None:
            raise DataError("--diverse-beam-strength needs --diverse-beam-groups")
        topp = _TOPP if args.sampling_topp is None else args.sampling_topp
        temperature = _TEMPERATURE if args.temperature is None else args.temperature
        if not 0 < topp <= 1:
            raise DataError(f"--sampling-topp must be above 0 and at most 1, got {topp:g}")
        if not 0 < temperature < math.inf:
            raise DataError(f"--temperature must be above 0, got {temperature:g}")
        return SearchOptions(
            beam=args.candidates, sampling=True, sampling_topp=topp, temperature=temperature, cpu_bf16=args.cpu_bf16
        )
    if args.sampling_topp is not None or args.temperature is not None:
        raise DataError("--diverse-beam-groups searches, --sampling-topp and --temperature sample: choose one of them")
    groups = args.diverse_beam_groups
    if groups < 1 or args.candidates % groups:
        raise DataError(f"--candidates {args.candidates} must be a multiple of --diverse-beam-groups {groups}")
    strength = _STRENGTH if args.diverse_beam_strength is None else args.diverse_beam_strength
    return SearchOptions(
        beam=args.candidates, diverse_beam_groups=groups, diverse_beam_strength=strength, cpu_bf16=args.cpu_bf16
    )


def _check_numbers(args: argparse.Namespace) -> None:
    if not 0 < args.per_image < math.inf:
        raise DataError(f"--per-image must be above 0, got {args.per_image:g}")
    check_at_least("--candidates", args.candidates, 1)
    check_at_least("--rounds", args.rounds, 1)
    check_at_least("--batch-size", args.batch_size, 1)
    check_at_least("--repeat-ngram", args.repeat_ngram, 0)
    check_at_least("--seed", args.seed, 0)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="xgpt-augment", description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="data directory from xgpt-prepare-captions")
    parser.add_argument(
        "--path", type=Path, required=True, metavar="CHECKPOINT", help="a checkpoint, or a bundle of xgpt-export"
    )
    parser.add_argument(
        "--regions", type=Path, metavar="STORE", help="region store [the checkpoint's of its training, or that of DATA]"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="NEW_DATA", help="data directory to write")
    parser.add_argument("--split", default="train", help="split to augment, or several: train,valid (%(default)s)")
    parser.add_argument(
        "--per-image", type=float, default=2.1, help="captions to add per image, on average (%(default)s: the paper's)"
    )
    parser.add_argument("--sampling-topp", type=float, metavar="P", help=f"sample from the likeliest words ({_TOPP})")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help=f"< 1: likelier captions, > 1: more varied ({_TEMPERATURE:g})"
    )
    parser.add_argument("--diverse-beam-groups", type=int, metavar="N", help="diverse beam search instead of sampling")
    parser.add_argument("--diverse-beam-strength", type=float, metavar="X", help=f"its penalty ({_STRENGTH})")
    parser.add_argument(
        "--candidates", type=int, default=5, metavar="N", help="captions generated per image and round (%(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"most rounds for an image that lacks captions ({_ROUNDS}; 1 with diverse beams)",
    )
    parser.add_argument(
        "--repeat-ngram",
        type=int,
        default=3,
        metavar="N",
        help="drop captions that repeat N words in the same order, or, in text without spaces, 2 N letters "
        "(%(default)s; 0: keep them)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all random numbers (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … [a GPU if there is one]")
    parser.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU with bfloat16 arithmetic")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace NEW_DATA, or an unfinished run with other options"
    )
    return parser


if __name__ == "__main__":
    main()
