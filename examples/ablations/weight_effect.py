#!/usr/bin/env python
"""Do the objectives' weights act? How far parameters end up from each other when one weight is 0.3 instead of 1.

Out-of-domain pre-training (examples/xgpt_base/2_out_of_domain.sh) from scratch, once with all weights 1 and once for
each objective with its weight at 0.3, with the same seed and batches. Printed is the Euclidean distance of the
parameters. With turns, an objective whose updates are all clipped moves the model equally far whatever its weight.

example:
    python examples/ablations/weight_effect.py --data data/coco --output weight_effect
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments.program import check_variable
from xgpt_fairseq.experiments.runs import DECIDING, has_results
from xgpt_fairseq.io.atomic import write_json

SCRIPT = Path(__file__).resolve().parent.parent / "xgpt_base" / "2_out_of_domain.sh"
OBJECTIVES = ("ic", "imlm", "ida", "tifg")
# Variables of its script that decide where a run ends.
VARIABLES = ("ARCH", "SEED", "OBJECTIVES", *DECIDING)

VALIDATIONS = 2  # the first is within the warm-up, or soon after it: two, so that there is one to average


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What follows -- goes to every fairseq-train.",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the runs go")
    parser.add_argument("--objectives", default=",".join(OBJECTIVES), help="whose weights are changed (%(default)s)")
    parser.add_argument("--iterations", type=int, default=20, help="of four updates (%(default)s)")
    place = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, training = parser.parse_args(sys.argv[1:place]), sys.argv[place + 1 :]
    changed = args.objectives.split(",")
    for name in changed:
        if name not in OBJECTIVES:
            raise DataError(f"--objectives: unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    check_variable("ITERATIONS", args.iterations, "--iterations is the length")
    check_variable("VALIDATIONS", VALIDATIONS, f"there are {VALIDATIONS}")
    check_variable("OUT_OF_DOMAIN_DATA", args.data, "--data names the data directory")
    check_variable("FROM", "none", "trainings are from scratch")
    check_variable("CHECKPOINTS", None, "--output is where runs go")
    reference = _parameters(args, "all-1", training)
    print(f"after {args.iterations} iterations of {', '.join(OBJECTIVES)}: distance of the parameters")
    for name in changed:
        weights = ["--objective-weights", f"{name}=0.3"]
        distance = float((_parameters(args, f"{name}-0.3", [*weights, *training]) - reference).norm())
        print(f"{name:<6} weight 1 against 0.3: {distance:.4f}", flush=True)


def _parameters(args: argparse.Namespace, name: str, arguments: list[str]) -> torch.Tensor:
    """(P,) float64: all parameters of the last checkpoint of the run *name*, which is made unless it is there.

    Raises:
        DataError: the run was made, or begun, with other settings, or it fails.
    """
    folder = args.output.resolve() / name
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OUT_OF_DOMAIN_DATA": str(args.data.absolute()),  # a link may be what it finds its regions from
        "CHECKPOINTS": str(folder),
        "FROM": "none",
        "ITERATIONS": str(args.iterations),
        "VALIDATIONS": str(VALIDATIONS),
    }
    folder.mkdir(parents=True, exist_ok=True)
    given = {name: environment[name] for name in VARIABLES if name in environment}
    _check_settings(folder, {**given, "data": str(args.data.resolve()), "arguments": arguments})
    with open(folder / "log", "a", encoding="utf-8") as log:
        done = subprocess.run(["bash", SCRIPT, *arguments], env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise DataError(f"{SCRIPT.name} failed; see {log.name}")
    model = load_checkpoint(folder / "out_of_domain" / "checkpoint_last.pt")["model"]
    return torch.cat([value.double().flatten() for value in model.values() if value.is_floating_point()])


def _check_settings(folder: Path, own: dict[str, Any]) -> None:
    """Write down the settings of the run in *folder*; its script takes a finished run for done, whatever its settings.

    Where no training has left a checkpoint, they may change.

    Raises:
        DataError: it was made, or begun, with others, or with settings that are not known.
    """
    file = folder / "settings.json"
    if not has_results(folder):
        write_json(file, own)
        return
    if not file.exists():
        raise DataError(
            f"{folder} holds a run of an earlier version, without {file.name}, which says what it was made with: use "
            "another --output, or remove the folder"
        )
    other = json.loads(file.read_text(encoding="utf-8"))
    for name in sorted(own.keys() | other.keys()):
        if own.get(name) != other.get(name):
            raise DataError(
                f"{file} says that this run was made with other {name} ({other.get(name)}, now {own.get(name)}): use "
                "another --output, or remove the folder"
            )


if __name__ == "__main__":
    run(main)
