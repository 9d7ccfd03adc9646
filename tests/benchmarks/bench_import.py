"""How fast region archives are imported, against a plain copy of the same bytes in the same run.

    python -m tests.benchmarks.bench_import --images 300 --regions 36 --width 2048

Writes an archive of each format with made-up images to a temporary folder, copies its files and imports it, by turns,
and prints a table in Markdown. Both find the files in the page cache, and both wait until what they write is on disk.
Each import runs in a process of its own, which has loaded everything before it is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.archives import layouts
from tests.benchmarks.measuring import in_a_process
from xgpt_fairseq.cli import import_regions

BLOCK = 1 << 20


class Result(NamedTuple):
    seconds: float
    peak_mb: float


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="N", type=int, default=300)
    parser.add_argument("--regions", metavar="N", type=int, default=36, help="of an image (default: %(default)s)")
    parser.add_argument("--width", metavar="N", type=int, default=2048, help="of the features (default: %(default)s)")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="of the import (default: none)")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="medians are shown (default: %(default)s)")
    parser.add_argument("--formats", metavar="NAME", nargs="+", choices=layouts.LAYOUTS, default=list(layouts.LAYOUTS))
    parser.add_argument("--folder", metavar="DIR", type=Path, help="where the temporary folder is made")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    print(f"{args.images} images, {args.regions} regions, features {args.width} wide, {args.workers} workers\n")
    print("| format | archive MB | copy s | import s | import MB/s | import / copy | peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in args.formats:
            source, sizes = in_a_process(write_archive, name, Path(folder), args)
            print(row(name, source, sizes, workers=args.workers, rounds=args.rounds), flush=True)
            shutil.rmtree(source.parent)


def made_up(number: int, regions: int, width: int) -> layouts.Image:
    image = layouts.made_up(number, count=regions, width=width)
    return image._replace(features=np.maximum(image.features, 0))  # as after the detector's last layer


def write_archive(name: str, folder: Path, args: argparse.Namespace) -> tuple[Path, Path]:
    """The archive, in a folder of its own, and a file of sizes."""
    images = [made_up(number, args.regions, args.width) for number in range(args.images)]
    (folder / "archive").mkdir()
    source = layouts.LAYOUTS[name].write(folder / "archive" / "a", images)
    return source, layouts.write_sizes(folder / "sizes.json", images)


def row(name: str, source: Path, sizes: Path, *, workers: int, rounds: int) -> str:
    folder = sizes.parent
    files = [file for file in source.parent.rglob("*") if file.is_file()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    options = [str(source), "--output", str(folder / "store"), "--sizes", str(sizes), "--workers", str(workers)]
    copies, imports = [], []
    for _ in range(rounds):
        copies.append(copy(files, folder / "copy"))
        imports.append(in_a_process(import_archive, [*options, "--overwrite"]))
    copied = statistics.median(copies)
    seconds = statistics.median(result.seconds for result in imports)
    peak = max(result.peak_mb for result in imports)
    return (
        f"| {name} | {megabytes:.0f} | {copied:.2f} | {seconds:.2f} | {megabytes / seconds:.0f} | "
        f"{seconds / copied:.1f} | {peak:.0f} |"
    )


def copy(files: Sequence[Path], target: Path) -> float:
    """Seconds for reading all files, block by block, into a file that is then on disk."""
    began = time.perf_counter()
    with open(target, "wb") as out:
        for file in files:
            with open(file, "rb") as source:
                shutil.copyfileobj(source, out, BLOCK)
        out.flush()
        os.fsync(out.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def import_archive(options: Sequence[str]) -> Result:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import_regions.import_regions(import_regions.parse_arguments(options))
    seconds = time.perf_counter() - began
    return Result(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


if __name__ == "__main__":
    main()
