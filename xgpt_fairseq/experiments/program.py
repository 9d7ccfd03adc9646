"""What the programs of all tables have in common: options, runs, the table and its plot."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments import results
from xgpt_fairseq.experiments.comparison import comparisons
from xgpt_fairseq.experiments.rows import Row, Table
from xgpt_fairseq.experiments.runs import Runner, Setting, devices, tree
from xgpt_fairseq.io.atomic import atomic_write


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


def run_quickstart(script: Path, *, prepare_only: bool) -> Path:
    """The quickstart's scenes, regions and data directories, and all it trains; made, unless they are there.

    Args:
        script: the quickstart's run.sh.
        prepare_only: whether it stops before it trains.

    Returns:
        Path: the folder that they are in.

    Raises:
        DataError: it failed, as where the folder was made with other settings.
    """
    folder = Path(os.environ.get("WORK", script.parent / "output" / "scenes"))
    # what has been trained is not asked for its BATCH or ARCH: those of the environment are the table's
    prepare = prepare_only or (folder / "checkpoints" / "captions" / "finetune" / "averaged.pt").exists()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **({"PREPARE_ONLY": "1"} if prepare else {})}
    if subprocess.run(["bash", str(script)], env=environment, check=False).returncode:
        raise DataError(f"the quickstart's scenes could not be {'made' if prepare_only else 'made, or learned from'}")
    return folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every table."""
    parser.add_argument("--scale", choices=["paper", "demo"], default="paper", help="demo: hours on two cores")
    parser.add_argument("--rows", help="names of rows, separated by commas [all]")
    parser.add_argument("--seeds", type=seed_list, default=[1, 2, 3])
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count(), help="GPUs to use [all: %(default)s]")
    parser.add_argument("--gpus-per-run", type=int, default=1, metavar="N", help="the total batch stays the same")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once [one for each GPU, or core]")
    parser.add_argument("--keep-checkpoints", action="store_true", help="also those that were averaged")


def check_variable(name: str, used: object, instead: str) -> None:
    """Check that the variable *name* of the stage scripts is unset, or says what is *used* in its place.

    Args:
        used: of a path, all that lead there are the same.
        instead: what to do.

    Raises:
        DataError: it says something else, which would be ignored.
    """
    value = os.environ.get(name)
    if value and isinstance(used, Path) and os.path.realpath(value) == os.path.realpath(used):
        return
    if value and value != str(used):
        raise DataError(f"{name}={value} has no effect here: {instead}")


def check_environment(args: argparse.Namespace, options: Mapping[str, tuple[str, object]], *, draws: bool) -> None:
    """Check that no variable of the stage scripts is set that the table would ignore.

    Args:
        args: those of `add_options`.
        options: variable → the program's option in its place, beside those of `add_options`, and what is used.
        draws: whether `run_quickstart` follows, which has a SEED of its own.

    Raises:
        DataError: one is: ARCH at the paper's scale, where rows have sizes of their own; EPOCHS at demo scale, where
            ITERATIONS is the length; SUBSET, since tables are of test; CHECKPOINTS, since runs are in the output; or
            one that an option stands for, with another value than what is used.
    """
    if args.scale == "paper" and os.environ.get("ARCH"):
        raise DataError(f"ARCH={os.environ['ARCH']} is for --scale demo: at the paper's, rows have sizes of their own")
    if args.scale == "demo":
        check_variable("EPOCHS", None, "at demo scale ITERATIONS is the length")
    check_variable("SUBSET", "test", "tables are of the split test")
    check_variable("CHECKPOINTS", None, "--output is for tables")
    check_variable("GPUS", args.gpus, "--gpus is for tables")
    if not draws:
        check_variable("SEED", ",".join(map(str, args.seeds)), "--seeds is for tables")
    for name, (option, used) in options.items():
        check_variable(name, used, f"{option} is for tables")


def run_table(
    table: Table,
    rows: Sequence[Row],
    args: argparse.Namespace,
    *,
    name: str,
    output: Path,
    start: str,
    environment: dict[str, str],
    training: Sequence[str],
) -> None:
    """Run *rows*, after `check_environment`; write *output*/NAME.md and NAME.png of what is finished by these settings.

    Args:
        args: those of `add_options`.
        start: the checkpoint that all rows start from, or none.
        environment: variables of the stage scripts.
        training: more arguments for every fairseq-train.

    Raises:
        DataError: a stage failed; the others are run, and the table written, all the same, unless no row has scores.
    """
    setting = Setting(
        demo=table.demo if args.scale == "demo" else None,
        environment=environment,
        arguments=training,
        keep_checkpoints=args.keep_checkpoints,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops what is running, as Ctrl-C does
    runner = Runner(setting, devices(gpus=args.gpus, gpus_per_run=args.gpus_per_run, jobs=args.jobs))
    start = start if start == "none" else str(Path(start).resolve())
    # a whole table of one seed first
    failed = runner.run([node for seed in args.seeds for node in tree(rows, seed, output=output, start=start)])
    scores = results.read_scores(rows, args.seeds, output, table.read, failed)
    problem = f"{len(failed)} of the stages failed; the first: {next(iter(failed.values()))}" if failed else ""
    if failed and not any(scores.values()):
        raise DataError(problem)  # a table of other runs stays as it is
    text = results.table(rows, scores, table.title, table.metrics)
    if compared := comparisons(rows, args.seeds, output, failed):
        text += "\n" + compared
    with atomic_write(output / f"{name}.md") as aside:
        aside.write_text(text, encoding="utf-8")
    results.plot(rows, scores, table.title, table.metrics, output / f"{name}.png")
    print(text, end="")
    if failed:
        raise DataError(problem)
