"""A long training of a tiny model on drawn scenes: python -m tests.endurance.run [--updates 20000] [-- ARGUMENT…]

Objectives in turns, workers, a validation and a checkpoint each epoch. Prints memory, open files and processor time at
intervals, and fails where one of them grows behind the first quarter (`measuring.py`). Then it trains twice for some
updates with one seed, which must give the same parameters. Needs Linux. Arguments behind -- go to fairseq-train:

    python -m tests.endurance.run --updates 1000 --every 50 -- --arch xgpt_demo --batch-size 320
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.endurance.measuring import Sample, growing, sample, seconds_per_update

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ("--layers", "1", "--hidden-size", "64", "--ffn-size", "128", "--attention-heads", "4")
_UPDATE = re.compile(r"\| train_inner \|.*?\bnum_updates=(\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20_000, help="of the training (%(default)s)")
    parser.add_argument("--every", type=int, default=500, help="updates between two looks (%(default)s)")
    parser.add_argument("--same", type=int, default=300, help="updates of two equal trainings; 0: none (%(default)s)")
    parser.add_argument("--scenes", type=int, default=200, help="training images (%(default)s)")
    parser.add_argument("--data", type=Path, help="a data directory, instead of drawn scenes")
    parser.add_argument("arguments", nargs="*", help="further arguments of fairseq-train, behind --")
    args = parser.parse_args()
    tiny = () if "--arch" in args.arguments else TINY
    with tempfile.TemporaryDirectory(prefix="endurance-") as place:
        folder = Path(place)
        data = args.data or draw(folder, args.scenes)
        began = time.monotonic()
        samples = watch(data, folder / "run", args.updates, args.every, [*tiny, *args.arguments])
        seconds = time.monotonic() - began
        print(f"{samples[-1].update} updates in {seconds:.0f} s, {1000 * seconds_per_update(samples):.1f} ms of "
              "processor time each", flush=True)  # fmt: skip
        wrong = growing(samples)
        if args.same:
            hashes = [trained(data, folder / f"same{n}", args.same, [*tiny, *args.arguments]) for n in range(2)]
            print(f"two trainings of {args.same} updates with one seed: parameters {' and '.join(hashes)}")
            if len(set(hashes)) > 1:
                wrong.append("two trainings with one seed differ")
    for line in wrong:
        print(line)
    print("grows" if wrong else "level")
    sys.exit(bool(wrong))


def draw(folder: Path, images: int) -> Path:
    """A data directory of scenes that are drawn below *folder*."""
    scenes, captions = folder / "scenes", folder / "scenes" / "dataset_scenes.json"
    for command in (
        ("draw_scenes", "--output", scenes, "--web-train", 0, "--web-val", 0, "--train", images, "--val", 20, "--test",
         20, "--unseen", 1, "--pixels", 96),
        ("extract_regions", scenes / "images", "--output", folder / "regions", "--image-size", 96),
        ("learn_bpe", "--input", captions, "--output", folder / "vocabulary", "--symbols", 200),
        ("prepare_captions", captions, "--vocabulary", folder / "vocabulary", "--regions", folder / "regions",
         "--output", folder / "data"),
    ):  # fmt: skip
        program, *arguments = map(str, command)
        subprocess.run(
            [sys.executable, "-m", f"xgpt_fairseq.cli.{program}", *arguments], env=_environment(), check=True,
            capture_output=True,
        )  # fmt: skip
    return folder / "data"


def watch(data: Path, save: Path, updates: int, every: int, arguments: Sequence[str]) -> list[Sample]:
    """Train, and look at the process every *every* updates."""
    save.mkdir()
    found: list[Sample] = []
    with open(save / "log", "w+", encoding="utf-8") as log:
        command = _command(data, save, updates, "--log-interval", str(every), *arguments)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment())
        try:
            with open(save / "log", encoding="utf-8") as said:
                print(
                    f"{'update':>8}{'MB':>9}{'workers':>9}{'files':>7}{'processes':>11}{'threads':>9}{'ms/update':>11}"
                )
                line = ""
                while True:
                    line += said.readline()
                    if line.endswith("\n"):
                        if match := _UPDATE.search(line):
                            found.append(sample(process.pid, int(match[1])))
                            _show(found)
                        line = ""
                    elif process.poll() is not None:
                        break
                    else:
                        time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            sys.exit((save / "log").read_text(encoding="utf-8")[-3000:])
    return found


def trained(data: Path, save: Path, updates: int, arguments: Sequence[str]) -> str:
    """The checksum of the parameters after a training."""
    from xgpt_fairseq.checkpoints import load_checkpoint
    from xgpt_fairseq.hashing import tensors_sha256

    command = _command(data, save, updates, *arguments)
    subprocess.run(command, env=_environment(), check=True, capture_output=True)
    return tensors_sha256(load_checkpoint(save / "checkpoint_last.pt")["model"])[:16]


def _command(data: Path, save: Path, updates: int, *arguments: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("fairseq-train")), str(data), "--user-dir", str(ROOT / "xgpt_fairseq"),
        "--task", "xgpt_pretrain", "--arch", "xgpt_demo", "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3",
        "--batch-size", "16", "--cpu", "--num-workers", "2", "--seed", "1", "--log-format", "simple",
        "--no-epoch-checkpoints", "--max-update", str(updates), "--save-dir", str(save), *arguments,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)}


def _show(samples: Sequence[Sample]) -> None:
    now = samples[-1]
    speed = f"{1000 * seconds_per_update(samples[-2:]):.1f}" if len(samples) > 1 else ""
    print(f"{now.update:>8}{now.memory:>9.0f}{now.workers:>9.0f}{now.handles:>7}{now.processes:>11}{now.threads:>9}"
          f"{speed:>11}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
