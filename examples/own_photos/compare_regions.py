"""Captioners trained on regions that xgpt-extract-regions makes of photos, and on features that came with them.

    python examples/own_photos/compare_regions.py --photos mini/images --captions mini/dataset.json \\
        --features mini --output own_photos

Takes the images of --captions (Karpathy's JSON) whose photo is in --photos: the training split trains, validation and
test splits together test. For each kind of regions and each seed it trains the same small captioner, generates with
beam 2 and scores; it prints a table of means and standard deviations. Started again, it skips what is done, and refuses
other settings; seeds and kinds of regions may be added.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

import xgpt_fairseq
from xgpt_fairseq.cli import run
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.io.atomic import atomic_write, write_json
from xgpt_fairseq.regions.image_ids import canonical_image_id
from xgpt_fairseq.regions.store import RegionStore

PLUGIN = Path(xgpt_fairseq.__file__).parent
TRAINS = ("train", "restval")
METRICS = ("CIDEr", "BLEU@4", "METEOR")
# What decides all results, and what a kind of regions is made of beside the photos.
SETTINGS = ("photos", "captions", "vocabulary", "start", "updates")
KINDS = {"detections": ("detections",), "provided": ("features", "sizes")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR")
    parser.add_argument("--captions", type=Path, required=True, metavar="JSON", help="in Karpathy's format")
    parser.add_argument("--features", type=Path, metavar="ARCHIVE", help="that came with them: see xgpt-import-regions")
    parser.add_argument(
        "--sizes", type=Path, metavar="JSON", help="widths and heights for --features [--captions, if it has them]"
    )
    parser.add_argument("--detections", type=Path, metavar="JSON", help="COCO results: own features, of these boxes")
    parser.add_argument("--vocabulary", type=Path, metavar="DIR", help="[learned from the training captions]")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT", help="of text pre-training, with its --vocabulary")
    parser.add_argument("--updates", type=int, default=300, metavar="N", help="of 64 captions (default: %(default)s)")
    parser.add_argument("--seeds", default="1,2,3", help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where everything goes")
    args = parser.parse_args()
    if args.start and not args.vocabulary:
        raise DataError("--start needs --vocabulary, the one that the checkpoint was trained with")
    args.output.mkdir(parents=True, exist_ok=True)

    settings = check_settings(args)
    captions = args.output / "dataset.json"
    train, test = select(args.captions, args.photos, captions)
    write_json(args.output / "settings.json", settings)
    print(f"{train} photos train, {test} test")
    stores = make_stores(args)
    vocabulary = args.vocabulary or args.output / "vocabulary"
    if not vocabulary.exists():
        call("xgpt-learn-bpe", "--input", captions, "--output", vocabulary, "--symbols", 1000)
    scores: dict[str, list[dict[str, float]]] = {}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    with tqdm(total=len(stores) * len(seeds), desc="captioners", disable=None) as progress:
        for name, store in stores.items():
            data = args.output / f"{name}.data"
            if not data.exists():
                call("xgpt-prepare-captions", captions, "--vocabulary", vocabulary, "--regions", store,
                     "--output", data, "--splits", "train,test")  # fmt: skip
            for seed in seeds:
                scores.setdefault(name, []).append(captioner(data, args.output / f"{name}-{seed}", seed, args))
                progress.update()
    text = table(scores, {name: RegionStore(store) for name, store in stores.items()})
    with atomic_write(args.output / "TABLE.md") as aside:
        aside.write_text(text, encoding="utf-8")
    print(f"\n{text}")


def check_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of what is in the output folder, and of what these arguments add: what is there is not made again.

    Raises:
        DataError: it was made with other settings, or with unknown ones.
    """
    file = args.output / "settings.json"
    own = {name: getattr(args, name) for name in (*SETTINGS, *(name for names in KINDS.values() for name in names))}
    own = {name: str(value.resolve()) if isinstance(value, Path) else value for name, value in own.items()}
    if not file.exists():
        if (args.output / "grid.regions").exists():
            raise DataError(
                f"{args.output} was made by an earlier version, which did not write down its settings: use another "
                f"--output, or remove the folder; or, if it was made with these, write them into {file}: "
                f"{json.dumps(own)}"
            )
        return own
    made = json.loads(file.read_text(encoding="utf-8"))
    for kind, names in KINDS.items():
        if own[names[0]] is None:  # not asked for
            own |= {name: made.get(name) for name in names}
        elif not (args.output / f"{kind}.regions").exists():  # made with these
            made |= {name: own[name] for name in names}
    for name, value in own.items():
        if made.get(name) != value:
            raise DataError(
                f"{file} says that this folder was made with other --{name} ({made.get(name)}, now {value}): use "
                "another --output, or remove the folder"
            )
    return own


def select(captions: Path, photos: Path, output: Path) -> tuple[int, int]:
    """Write the part of *captions* whose photos are there; the number of images that train and that test."""
    have = {canonical_image_id(file.name) for file in photos.iterdir()}
    chosen = []
    for image in json.loads(captions.read_text(encoding="utf-8"))["images"]:
        if canonical_image_id(image["filename"]) in have:
            chosen.append(image | {"split": "train" if image["split"] in TRAINS else "test"})
    train = sum(image["split"] == "train" for image in chosen)
    if not train or train == len(chosen):
        raise DataError(
            f"{photos} has photos of {train} training and {len(chosen) - train} other images of {captions}; both are "
            "needed"
        )
    write_json(output, {"images": chosen}, indent=None)
    return train, len(chosen) - train


def make_stores(args: argparse.Namespace) -> dict[str, Path]:
    """Kind of regions → store."""
    stores = {"grid": args.output / "grid.regions"}
    if not stores["grid"].exists():
        call("xgpt-extract-regions", args.photos, "--output", stores["grid"])
    if args.detections:
        stores["detections"] = args.output / "detections.regions"
        if not stores["detections"].exists():
            call("xgpt-extract-regions", args.photos, "--detections", args.detections, "--output",
                 stores["detections"])  # fmt: skip
    if args.features:
        stores["provided"] = args.output / "provided.regions"
        if not stores["provided"].exists():
            sizes = args.sizes or (args.captions if has_sizes(args.captions) else None)
            options = ("--sizes", sizes) if sizes else ()
            call("xgpt-import-regions", args.features, *options, "--output", stores["provided"])
    return stores


def has_sizes(captions: Path) -> bool:
    """Whether a file in Karpathy's format has widths and heights of its photos: his own files have none."""
    images = json.loads(captions.read_text(encoding="utf-8"))["images"]
    return all("width" in image and "height" in image for image in images)


def captioner(data: Path, folder: Path, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one, average its last four checkpoints, caption the test images; the scores in percent."""
    file = folder / "scores.json"
    if not file.exists():
        plugin = ("--user-dir", PLUGIN, "--task", "xgpt_caption")
        start = ("--finetune-from-model", args.start) if args.start else ()
        every = max(1, args.updates // 8)
        call(
            "fairseq-train", data, *plugin, "--arch", "xgpt_demo", "--criterion", "xgpt", "--optimizer", "adam",
            "--adam-betas", "(0.9, 0.98)", "--clip-norm", 5, "--lr", 1e-3, "--lr-scheduler", "inverse_sqrt",
            "--warmup-updates", args.updates // 3, "--dropout", 0.2, "--label-smoothing", 0.1, "--batch-size", 64,
            "--captions-per-image", 5, "--max-update", args.updates, "--seed", seed, "--disable-validation",
            "--save-interval-updates", every, "--keep-interval-updates", 4, "--no-epoch-checkpoints",
            "--save-interval", 100_000, "--num-workers", 1, "--save-dir", folder, *start, *device(),
            log=folder / "train.log",
        )  # fmt: skip
        call("xgpt-average-checkpoints", "--checkpoints", folder, "--last-updates", 4, "--output",
             folder / "averaged.pt", "--overwrite", log=folder / "average.log")  # fmt: skip
        call("fairseq-generate", data, *plugin, "--path", folder / "averaged.pt", "--gen-subset", "test", "--beam", 2,
             "--batch-size", 32, "--results-path", folder, *device(), log=folder / "generate.log")  # fmt: skip
        call("xgpt-evaluate", folder / "generate-test.txt", "--references", data / "test.references.json", "--metrics",
             "cider,bleu,meteor", "--output", file, log=folder / "evaluate.log")  # fmt: skip
    return {name: 100 * value for name, value in json.loads(file.read_text(encoding="utf-8"))["scores"].items()}


def device() -> tuple[str, ...]:
    import torch

    return () if torch.cuda.is_available() else ("--cpu",)


def call(program: str, *arguments: object, log: Path | None = None) -> None:
    """Run a program of this Python's environment, or else of PATH, into *log*."""
    installed = Path(sys.executable).parent / program
    command = [str(installed if installed.exists() else program), *map(str, arguments)]
    if log is None:
        done = subprocess.run(command, check=False)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as out:
            done = subprocess.run(command, check=False, stdout=out, stderr=out, env=os.environ)
    if done.returncode:
        raise DataError(f"{program} failed with status {done.returncode}" + (f"; see {log}" if log else ""))


def table(scores: dict[str, list[dict[str, float]]], stores: dict[str, RegionStore]) -> str:
    """Mean ± standard deviation over the seeds."""
    lines = ["| regions | per image | seeds | " + " | ".join(METRICS) + " |", "|---" * (3 + len(METRICS)) + "|"]
    for name, each in scores.items():
        cells = []
        for metric in METRICS:
            values = [seed[metric] for seed in each]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        regions = stores[name].region_counts().mean()
        lines.append(f"| {name} | {regions:.0f} | {len(each)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run(main)
