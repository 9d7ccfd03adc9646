"""`xgpt-evaluate --retrieval`: recall of image retrieval and caption retrieval."""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xgpt_fairseq.cli.parser import refuse_options
from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.io.atomic import check_writable, write_json
from xgpt_fairseq.io.resumable import ResumableOutput

if TYPE_CHECKING:
    import numpy as np

    from xgpt_fairseq.retrieval.recall import Recall
    from xgpt_fairseq.retrieval.scoring import PoolScorer

SAVE_PAIRS = 20_000  # progress is saved each time that this number of pairs is scored


# its options, as argparse calls them
RETRIEVAL = (
    "retrieval", "path", "data", "regions", "splits", "save_scores", "from_scores", "scores", "batch_size", "device",
    "cpu_bf16", "fp16", "bf16",
)  # fmt: skip
_OF_SCORES = ("retrieval", "from_scores", "scores")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `--retrieval`."""
    group = parser.add_argument_group("with --retrieval")
    group.add_argument(
        "--retrieval",
        action="store_true",
        help="score retrieval instead of captions: R@1, R@5, R@10 and median rank, of a checkpoint or of --from-scores",
    )
    group.add_argument("--path", type=Path, metavar="CHECKPOINT", help="a model of the task xgpt_retrieval")
    group.add_argument("--data", type=Path, help="data directory")
    group.add_argument("--regions", type=Path, metavar="STORE", help="region store [the data directory's]")
    group.add_argument("--splits", default="test", metavar="LIST", help="splits that form one pool (%(default)s)")
    group.add_argument(
        "--save-scores", type=Path, metavar="FOLDER", help="write the scores of all pairs: scores.npy and ids.json"
    )
    group.add_argument(
        "--from-scores", type=Path, metavar="FOLDER", help="such a folder, of whatever model, in place of --path"
    )
    group.add_argument("--scores", type=Path, help=argparse.SUPPRESS)  # --from-scores until now
    group.add_argument("--batch-size", type=int, default=256, metavar="N", help="pairs encoded at once (%(default)s)")
    group.add_argument("--device", help="cpu, cuda, cuda:1 … [a GPU if there is one]")
    group.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU with bfloat16 arithmetic")
    for name, precision in (("--fp16", "float16"), ("--bf16", "bfloat16")):
        group.add_argument(name, action="store_true", help=f"{precision}, on a GPU")


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of `--retrieval` that would do nothing.

    Raises:
        DataError: there are such options without --retrieval, or beside --from-scores.
    """
    if not args.retrieval:
        hint = "--split says which images of the references are scored" if args.splits != "test" else ""
        refuse_options(parser, args, RETRIEVAL, "without --retrieval", hint)
    elif args.path is None and (args.from_scores is not None or args.scores is not None):
        refuse_options(parser, args, set(RETRIEVAL).difference(_OF_SCORES), "with --from-scores")


def evaluate_retrieval(args: argparse.Namespace) -> None:
    """Score all pairs of the pool, or read their scores; print a table, and write what was asked for."""
    import numpy as np
    import torch

    from xgpt_fairseq.data.directory import DataDirectory, file_crc32
    from xgpt_fairseq.devices import default_device, usable_device
    from xgpt_fairseq.precision import check_cpu_bfloat16
    from xgpt_fairseq.retrieval.scoring import (
        IDS,
        SCORES,
        PoolScorer,
        load_model,
        read_pool,
        read_scores,
        write_ids,
    )

    if args.scores is not None:
        print("--scores is called --from-scores now", file=sys.stderr)
        args.from_scores = args.scores
    if (args.from_scores is None) == (args.path is None):
        raise DataError("--retrieval needs --path CHECKPOINT and --data DATA, or --from-scores FOLDER alone")
    if args.output:
        check_writable(args.output, overwrite=args.overwrite)
    if args.from_scores is not None:
        matrix, image_of_caption, _ = read_scores(args.from_scores)
        _finish(args, matrix, image_of_caption, {"scores": str(args.from_scores)})
        return
    if args.data is None:
        raise DataError("--path needs the data directory: --data DATA")
    check_at_least("--batch-size", args.batch_size, 1)
    if args.save_scores is not None:
        if (args.save_scores / IDS).exists() and not args.overwrite:
            raise DataError(f"{args.save_scores} exists; give another name or --overwrite")
        if not args.save_scores.parent.is_dir():
            raise DataError(f"{args.save_scores}: no folder {args.save_scores.parent}")
        if args.output and args.output.resolve() == args.save_scores.resolve():
            raise DataError(f"{args.output} is named twice: --output is a file, --save-scores a folder")
    device = usable_device(args.device or default_device())
    asked = [name for name in ("fp16", "bf16", "cpu_bf16") if getattr(args, name)]
    if len(asked) > 1:
        raise DataError(f"one precision at a time: {', '.join('--' + name.replace('_', '-') for name in asked)}")
    if (args.fp16 or args.bf16) and device.startswith("cpu"):
        raise DataError(f"--{asked[0]} needs a GPU; on a CPU: --cpu-bf16")
    if args.cpu_bf16:
        check_cpu_bfloat16(device, instead="choose --device cpu, or --fp16 or --bf16 in its place")
    directory = DataDirectory(args.data, regions=args.regions)
    model = load_model(args.path, directory)
    model = model.to(device, torch.float16 if args.fp16 else torch.bfloat16 if args.bf16 else None)
    splits = [split.strip() for split in args.splits.split(",")]
    pool = read_pool(directory, splits, longest=model.max_decoder_positions())
    if pool.truncated_captions:
        print(f"{pool.truncated_captions} captions exceed the model's limit, and were truncated", file=sys.stderr)
    about = {"checkpoint": str(args.path), "data": str(args.data), "splits": splits}
    options = {
        **about,
        "checkpoint_crc32": _crc32(args.path),
        "captions_crc32": [file_crc32(Path(f"{directory.path / split}.captions.bin")) for split in splits],
        "regions": directory.regions.sha256,
        "batch_size": args.batch_size,
        "precision": asked[0].removeprefix("cpu_") if asked else "fp32",
        "device": device.partition(":")[0],
    }
    with tempfile.TemporaryDirectory() as temporary:
        # an interrupted run is resumed next to its output; a run without output cannot be resumed
        output = args.save_scores or args.output or Path(temporary, "scores")
        with ResumableOutput(output, options, overwrite=args.overwrite) as run:
            scorer = PoolScorer(model, pool, directory.regions, batch_size=args.batch_size, cpu_bf16=args.cpu_bf16)
            _score(scorer, run)
            _finish(args, np.load(run.data / SCORES, mmap_mode="r"), pool.image_of_caption, about)
            if args.save_scores is not None:
                write_ids(run.data, pool)
                run.finish(last=IDS, files=[SCORES, IDS])
            run.discard_journal()


def _score(scorer: PoolScorer, run: ResumableOutput) -> None:
    from tqdm import tqdm

    from xgpt_fairseq.retrieval.scoring import SCORES, score_pool

    done = 0 if run.state is None else int(run.state["blocks"])
    images = len(scorer.pool.image_rows)
    per_block = scorer.captions_at_once * images
    total, initial = len(scorer.pool.captions) * images, done * per_block
    with tqdm(total=total, initial=min(initial, total), unit=" pairs", unit_scale=True, disable=None) as bar:
        score_pool(
            scorer,
            run.data / SCORES,
            start=done,
            save=lambda blocks: run.save({"blocks": blocks}),
            every=max(1, SAVE_PAIRS // per_block),
            progress=lambda captions: bar.update(captions * images),
        )


def _finish(args: argparse.Namespace, matrix: np.ndarray, image_of_caption: np.ndarray, about: dict[str, Any]) -> None:
    from xgpt_fairseq.retrieval.recall import caption_retrieval, image_retrieval

    found = {
        "image retrieval": image_retrieval(matrix, image_of_caption),
        "caption retrieval": caption_retrieval(matrix, image_of_caption),
    }
    print(_table(found))
    if args.output:
        write_json(args.output, {**about, **{name.replace(" ", "_"): _report(each) for name, each in found.items()}})


def _table(found: dict[str, Recall]) -> str:
    first = found["image retrieval"]
    lines = [f"{first.queries} captions, {first.candidates} images; recall in percent, ties as chance would break them"]
    lines.append(f"{'':<18}" + "".join(f"{f'R@{k}':>8}" for k in first.at) + f"{'median rank':>14}")
    for name, each in found.items():
        lines.append(f"{name:<18}" + "".join(f"{100 * v:8.1f}" for v in each.at.values()) + f"{each.median_rank:14.1f}")
        lines.append(f"{'  by chance':<18}" + "".join(f"{100 * v:8.1f}" for v in each.chance.values()))
    return "\n".join(lines)


def _report(found: Recall) -> dict[str, Any]:
    return {
        **{f"R@{k}": value for k, value in found.at.items()},
        "median_rank": found.median_rank,
        "chance": {f"R@{k}": value for k, value in found.chance.items()},
        "queries": found.queries,
        "candidates": found.candidates,
    }


def _crc32(path: Path) -> str:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"
