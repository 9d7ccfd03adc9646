#!/usr/bin/env python
"""Repeat a table of the paper: its rows, several seeds each, through the stage scripts of examples/xgpt_base.

Stages that rows share are run once. As many runs go at once as there are GPUs (or, without any, cores). Started again,
it skips what is done and goes on with what was interrupted. OUTPUT/TABLE.md and OUTPUT/TABLE.png are written anew.

examples:
    python examples/ablations/ablations.py table3 --scale demo
    python examples/ablations/ablations.py table2 --data data/coco --out-of-domain-data data/cc \\
        --start checkpoints/text/averaged.pt --rows ic,ic+imlm+ida+tifg --seeds 1,2,3
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import results
import torch
from runs import Runner, Setting, devices, tree
from tables import TABLES, Row

from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.files import written_aside

QUICKSTART = Path(__file__).resolve().parent.parent / "quickstart" / "run.sh"


def chosen(rows: tuple[Row, ...], names: str | None, table: str) -> list[Row]:
    """The rows of these names, in the table's order.

    Raises:
        DataError: the table has no such row.
    """
    if names is None:
        return list(rows)
    known = {row.name for row in rows}
    unknown = [name for name in names.split(",") if name not in known]
    if unknown:
        raise DataError(f"--rows: {table} has no row {unknown[0]!r}; it has: {', '.join(row.name for row in rows)}")
    return [row for row in rows if row.name in names.split(",")]


def seed_list(text: str) -> list[int]:
    """`1,2,3`, as argparse reads it."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,2,3") from None
    return list(dict.fromkeys(seeds))


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and behind it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def draw_scenes() -> Path:
    """The quickstart's scenes, regions and data directories; made, unless they are there. Their folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if subprocess.run(
        ["bash", str(QUICKSTART)], env={**os.environ, "PATH": path, "PREPARE_ONLY": "1"}, check=False
    ).returncode:
        raise DataError("the quickstart's scenes could not be made")
    return Path(os.environ.get("WORK", QUICKSTART.parent / "output" / "scenes"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What follows -- goes to every fairseq-train.",
    )
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--scale", choices=["paper", "demo"], default="paper", help="demo: minutes on two cores")
    parser.add_argument("--data", type=Path, help="data directory in domain [paper: data/coco; demo: drawn scenes]")
    parser.add_argument(
        "--out-of-domain-data", type=Path, metavar="DATA", help="data directory [paper: data/cc; demo: --data]"
    )
    parser.add_argument("--start", default="none", metavar="FILE", help="checkpoint that all rows start from [none]")
    parser.add_argument("--rows", help="names of rows, separated by commas [all]")
    parser.add_argument("--seeds", type=seed_list, default=[1, 2, 3])
    parser.add_argument("--output", type=Path, help="folder for runs and tables [ablations/SCALE/TABLE]")
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count(), help="GPUs to use [all: %(default)s]")
    parser.add_argument("--gpus-per-run", type=int, default=1, metavar="N", help="the total batch stays the same")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once [one for each GPU, or core]")
    parser.add_argument("--keep-checkpoints", action="store_true", help="also those that were averaged")
    own, training = split_at_dashes(sys.argv[1:])
    args = parser.parse_args(own)
    demo, table = args.scale == "demo", TABLES[args.table]
    rows = chosen(table.rows, args.rows, args.table)
    output = (args.output or Path("ablations", args.scale, args.table)).resolve()
    data, out_of_domain = args.data, args.out_of_domain_data
    if demo and data is None:
        scenes = draw_scenes()
        data, out_of_domain = scenes / "captions", out_of_domain or scenes / "web"
    data = data or Path("data/coco")
    out_of_domain = out_of_domain or (data if demo else Path("data/cc"))
    setting = Setting(
        demo=table.demo if demo else None,
        environment={"IN_DOMAIN_DATA": str(data.resolve()), "OUT_OF_DOMAIN_DATA": str(out_of_domain.resolve())},
        arguments=training,
        keep_checkpoints=args.keep_checkpoints,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops what is running, as Ctrl-C does
    runner = Runner(setting, devices(gpus=args.gpus, gpus_per_run=args.gpus_per_run, jobs=args.jobs))
    start = args.start if args.start == "none" else str(Path(args.start).resolve())
    # a whole table of one seed first
    failed = runner.run([node for seed in args.seeds for node in tree(rows, seed, output=output, start=start)])
    scores = results.read_scores(rows, args.seeds, output)
    text = results.table(rows, scores, table.title)
    with written_aside(output / f"{args.table}.md") as aside:
        aside.write_text(text, encoding="utf-8")
    results.plot(rows, scores, table.title, output / f"{args.table}.png")
    print(text, end="")
    if failed:
        raise DataError(f"{len(failed)} of the stages failed; the first: {failed[0]}")


if __name__ == "__main__":
    run(main)
