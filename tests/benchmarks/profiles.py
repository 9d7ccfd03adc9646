"""Where the time goes: torch's profile of a search with xgpt_base, or of loss and gradient of an objective.

python -m tests.benchmarks.profiles search
python -m tests.benchmarks.profiles ic --bf16
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks import bench_generation, bench_objectives, peers
from tests.benchmarks.measuring import seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", *bench_objectives.OBJECTIVES))
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--rows", metavar="N", type=int, default=20, help="operators shown (default: %(default)s)")
    args = parser.parse_args()
    search = args.what == "search"
    images = bench_generation.IMAGES if search else bench_objectives.IMAGES
    with tempfile.TemporaryDirectory() as folder:
        store = peers.write_store(Path(folder) / "store", images=images)
        ours = peers.XGPT(store, objectives=bench_objectives.OBJECTIVES)
        if search:
            run = bench_generation.search(ours)
        else:
            batch = ours.batch(bench_objectives.OBJECTIVES.index(args.what))
            run = bench_objectives.training_step(ours, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            run()
            print(f"{seconds(run):.2f} s without the profiler")
            with profile(activities=[ProfilerActivity.CPU]) as measured:
                run()
    print(measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=args.rows))


if __name__ == "__main__":
    main()
