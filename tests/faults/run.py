"""What goes wrong on real machines, on every program: python -m tests.faults.run [PROGRAM…] [--times 50] [--faults …]

Prints a table, program by fault: how often all held, of how many tries, and below it what did not. What has to hold is
in `faults.py`: one line that names the place, nothing half-written under a final name, no process left behind, and the
same command then gives byte for byte what it gives where nothing goes wrong. Needs Linux; where it may not mount
anything, the faults of disks are left out, and it says so.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.faults import FAULTS, REPEATED, reference
from tests.faults.processes import can_mount
from tests.faults.programs import programs

DISKS = ("full disk", "read-only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="names, or how they begin (default: all)")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help="which")
    parser.add_argument("--times", type=int, default=50, help="of each fault at a random moment (%(default)s)")
    parser.add_argument("--minutes", type=float, default=38, help="begin no more tries after them (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    args = parser.parse_args()
    import_once()
    random.seed(args.seed)
    began = time.monotonic()
    faults = [name for name in args.faults if name not in DISKS or can_mount()]
    if len(faults) < len(args.faults):
        print("left out, since nothing can be mounted here: " + ", ".join(set(args.faults) - set(faults)))
    chosen = {n: p for n, p in programs().items() if not args.programs or n.startswith(tuple(args.programs))}
    print(f"{'program':<20}" + "".join(f"{name:>17}" for name in faults), flush=True)
    wrong: list[str] = []
    place = tempfile.mkdtemp(prefix="faults-")  # a TemporaryDirectory would be removed by every forked process
    try:
        Path(place).chmod(0o755)
        for number, (name, program) in enumerate(chosen.items()):
            # each program has its share of the time that is left
            until = time.monotonic() + (began + 60 * args.minutes - time.monotonic()) / (len(chosen) - number)
            start = time.monotonic()
            expected = {"results": reference(program, Path(place) / "reference")}
            expected["seconds"] = time.monotonic() - start
            cells = []
            for place_in_row, fault in enumerate(faults):
                tries = good = 0
                rest = until - time.monotonic()
                end = time.monotonic() + rest / (len(faults) - place_in_row)
                while tries < (args.times if fault in REPEATED else 1) and (not tries or time.monotonic() < end):
                    tries += 1
                    found = FAULTS[fault](program, Path(place) / "work", expected)
                    good += not found
                    wrong += [f"{name}, {fault}: {each}" for each in found]
                cells.append(f"{good} of {tries}")
            print(f"{name:<20}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{time.monotonic() - began:.0f} s")
    for line in wrong:
        print(line)
    sys.exit(bool(wrong))


def import_once() -> None:
    """What the programs import, so that forked ones need not."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import h5py  # noqa: F401
    import lmdb  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch

    import xgpt_fairseq.regions.writer  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
