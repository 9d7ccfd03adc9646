#!/usr/bin/env python
"""Repeat Table 7: does image retrieval get better by training on captions that XGPT has generated?

A model of retrieval is trained on people's captions, and then trained further: on the same captions, or on these and
generated ones, for as many updates. As many runs go at once as there are GPUs (or, without any, cores). Started again,
it skips what is done and resumes what was interrupted. OUTPUT/table7.md and OUTPUT/table7.png are written anew.

examples:
    python examples/retrieval_augmentation/table7.py --scale demo
    xgpt-augment data/flickr30k --path checkpoints/flickr30k/averaged.pt --per-image 2.1 \\
        --output data/flickr30k-augmented
    python examples/retrieval_augmentation/table7.py --data data/flickr30k --augmented-data data/flickr30k-augmented \\
        --start checkpoints/flickr30k/averaged.pt
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xgpt_fairseq.augmentation.generate import model_crc32
from xgpt_fairseq.augmentation.output import REPORT_JSON
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments.program import (
    add_options,
    check_environment,
    chosen,
    run_quickstart,
    run_table,
    split_at_dashes,
)
from xgpt_fairseq.experiments.rows import Row, Script, Stage, Table
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.precision import check_cpu_bfloat16

EXAMPLES = Path(__file__).resolve().parent.parent
RETRIEVAL = Script(EXAMPLES / "retrieval_augmentation", "retrieval.sh", "retrieval", scored_by="recall.sh")

METRICS = ("image R@1", "image R@5", "image R@10", "image median rank",
           "caption R@1", "caption R@5", "caption R@10", "caption median rank")  # fmt: skip
PER_IMAGE = 2.1  # generated captions, as in section 6.1


def recall_scores(report: Mapping[str, Any]) -> dict[str, float]:
    """The columns from what xgpt-evaluate --retrieval wrote; recall in percent."""
    columns: dict[str, float] = {}
    for of in ("image", "caption"):
        found = report[f"{of}_retrieval"]
        columns |= {f"{of} R@{k}": 100 * found[f"R@{k}"] for k in (1, 5, 10)}
        columns[f"{of} median rank"] = found["median_rank"]
    return columns


_ORIGINAL = Stage("original", RETRIEVAL, variables=(("TRAIN_ON", "original"),))
# as long as 10 epochs of Flickr30k's 145 000 captions, on both
_LONGER = ("ITERATIONS", "22660")

TABLE7 = Table(
    "image retrieval, trained on",
    (
        # The text at hand has the gains alone (2.2, 1.5, 0.4); what they are gains over is ViLBERT as its authors
        # report it (Lu et al. 2019, Table 1), the model that the paper then trains.
        Row("people's captions", (_ORIGINAL,), (58.2, 84.9, 91.5)),
        Row("people's captions for longer",
            (_ORIGINAL, Stage("longer", RETRIEVAL, variables=(("TRAIN_ON", "original"), _LONGER)))),
        Row("people's and generated captions",
            (_ORIGINAL, Stage("augmented", RETRIEVAL, variables=(("TRAIN_ON", "augmented"), _LONGER))),
            (60.4, 86.4, 91.9)),
    ),
    METRICS,
    {RETRIEVAL: {
        "BATCH": "16", "GPU_BATCH": "16", "LR": "5e-4", "ITERATIONS": "300", "VALIDATIONS": "10", "HARD_POOL": "20",
    }},
    recall_scores,
)  # fmt: skip


def augment(data: Path, captioner: Path, output: Path, per_image: float, regions: Path | None = None) -> None:
    """Make the data directory *output*: *data* and captions that *captioner* generates of its training images.

    Args:
        regions: the region store that it reads; None: that of its training, or of *data*.

    Raises:
        DataError: it failed.
    """
    program = str(Path(sys.executable).parent / "xgpt-augment")
    command: list[object] = [program, data, "--path", captioner, "--per-image", per_image, "--output", output]
    if regions is not None:
        command += ["--regions", regions]
    output.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run([str(part) for part in command], check=False).returncode:
        raise DataError(f"{' '.join(map(str, command))} failed")


def check_augmented(
    augmented: Path, *, data: Path, per_image: float, captioner: Path | None, regions: Path | None = None
) -> None:
    """Check that the directory *augmented*, of an earlier run, is what would be made now of *data*.

    Args:
        captioner: what would generate the captions; None: it is not compared.
        regions: see `augment`.

    Raises:
        DataError: another number of captions per image, or another model; or *augmented* is of no xgpt-augment.
    """
    file = augmented / REPORT_JSON
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
        its_number, its_model = made["options"]["per_image"], made["model_crc32"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} does not say how the captions were generated: {error!r}; --augmented-data takes it"
        ) from None
    instead = "use another --output, or remove the folder"
    if its_number != per_image:
        raise DataError(f"{file} says that --per-image was {its_number:g}, now {per_image:g}: {instead}")
    if captioner is None:
        return
    trained_on: dict[str, Any] = {} if captioner.is_dir() else {"data": data, "regions": regions}
    model = model_crc32(XGPTHubInterface.from_path(captioner, **trained_on))
    if its_model != model:
        raise DataError(f"{file} says that another model than {captioner} generated the captions: {instead}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What follows -- goes to every fairseq-train.",
    )
    add_options(parser)
    parser.add_argument(
        "--data", type=Path, help="data directory [paper: data/flickr30k; demo: the quickstart's scenes]"
    )
    parser.add_argument(
        "--augmented-data",
        type=Path,
        metavar="DATA",
        help="what xgpt-augment made of it [paper: data/flickr30k-augmented; demo: made in --output]",
    )
    parser.add_argument(
        "--start", metavar="FILE", help="checkpoint that all rows start from, or none [demo: the quickstart's last]"
    )
    parser.add_argument("--captioner", type=Path, metavar="FILE", help="demo: checkpoint that generates [--start]")
    parser.add_argument(
        "--regions", type=Path, metavar="STORE", help="demo: region store that it reads [xgpt-augment's]"
    )
    parser.add_argument("--per-image", type=float, metavar="N", help=f"demo: captions generated ({PER_IMAGE})")
    parser.add_argument("--splits", default="test", metavar="LIST", help="splits that form the pool (%(default)s)")
    parser.add_argument("--cpu-bf16", action="store_true", help="bfloat16, on a CPU that has its arithmetic")
    parser.add_argument("--output", type=Path, help="folder for runs and tables [table7/SCALE]")
    own, training = split_at_dashes(sys.argv[1:])
    args = parser.parse_args(own)
    demo = args.scale == "demo"
    output = (args.output or Path("table7", args.scale)).resolve()
    data = args.data if demo else args.data or Path("data/flickr30k")
    augmented = args.augmented_data or (output / "augmented" if demo else Path("data/flickr30k-augmented"))
    options = {
        "ORIGINAL_DATA": ("--data", data), "AUGMENTED_DATA": ("--augmented-data", augmented),
        "FROM": ("--start", args.start), "SPLITS": ("--splits", args.splits),
    }  # fmt: skip
    check_environment(args, options, draws=demo and args.data is None)
    rows = chosen(TABLE7.rows, args.rows, "table7")
    if args.cpu_bf16:
        if args.gpus:
            raise DataError("--cpu-bf16 is for CPUs (--gpus 0); on GPUs training is in float16, or as PRECISION says")
        check_cpu_bfloat16()
    for option in ("--captioner", "--regions", "--per-image"):
        value = getattr(args, option[2:].replace("-", "_"))
        if value is not None and (not demo or args.augmented_data is not None):
            why = "with --augmented-data" if args.augmented_data is not None else "without --scale demo"
            raise DataError(f"{option} has no effect {why}: it is of the captions that are generated in --output")
    per_image = PER_IMAGE if args.per_image is None else args.per_image
    start = args.start
    if demo and data is None:
        scenes = run_quickstart(EXAMPLES / "quickstart" / "run.sh", prepare_only=False)
        data, start = scenes / "captions", start or str(scenes / "checkpoints/captions/finetune/averaged.pt")
    if start is None:
        raise DataError("--start FILE: name a checkpoint, of whatever stage, that all rows start from (or none)")
    needed = any(("TRAIN_ON", "augmented") in stage.variables for row in rows for stage in row.stages)
    captioner = args.captioner or (None if start == "none" else Path(start))
    if needed and augmented.exists() and demo and args.augmented_data is None:
        there = captioner is not None and (captioner.exists() or args.captioner is not None)
        compared = captioner if there else None
        check_augmented(augmented, data=data, per_image=per_image, captioner=compared, regions=args.regions)
    if needed and not augmented.exists():
        if not demo:
            raise DataError(f"{augmented} is not there: xgpt-augment {data} --path CHECKPOINT --output {augmented}")
        if captioner is None:
            raise DataError("--captioner FILE: name a checkpoint that generates the captions, or --augmented-data")
        augment(data, captioner, augmented, per_image, args.regions)
    run_table(
        TABLE7,
        rows,
        args,
        name="table7",
        output=output,
        start=start,
        environment={
            # not resolved: a data directory may find its regions from the link that leads to it
            "ORIGINAL_DATA": str(data.absolute()),
            "AUGMENTED_DATA": str(augmented.absolute()),
            "SPLITS": args.splits,
            **({"PRECISION": "--cpu-bf16"} if args.cpu_bf16 else {}),
        },
        training=training,
    )


if __name__ == "__main__":
    run(main)
