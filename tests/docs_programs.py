"""What the tests of the documentation change in its commands, and nothing else: sizes, data, device and length.

Run as a program, docs_programs.py PROGRAM ARGUMENT… is PROGRAM with these changes; the tests have it under the names of
the programs in PATH, so that commands of the pages, and of scripts that they call, run as they are written.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class Change(NamedTuple):
    """What is taken out of a program's arguments, and what is put behind them (the last of an option's values wins)."""

    why: str
    without: tuple[str, ...] = ()  # options without a value
    more: str = ""
    unless: str = ""  # this option is there


CHANGES: dict[str, list[Change]] = {
    "fairseq-train": [
        Change("half precision is for GPUs", ("--fp16",), "--cpu"),
        Change("a model of 100 000 parameters", more="--layers 1 --hidden-size 64 --ffn-size 128 --attention-heads 4"),
        Change("two updates", more="--max-update 2 --warmup-updates 1 --update-freq 1 --batch-size 8"),
        Change("the worker processes of a data loader take longer to start", more="--num-workers 0"),
    ],
    "fairseq-hydra-train": [
        Change("half precision is for GPUs", more="common.fp16=false common.cpu=true"),
        Change("a model of 100 000 parameters", more="+model.layers=1 +model.hidden_size=64 +model.ffn_size=128"),
        Change("heads that divide its width", more="+model.attention_heads=4"),
        Change("two updates", more="optimization.max_update=2 lr_scheduler.warmup_updates=1 dataset.batch_size=8"),
        Change("of one batch", more="optimization.update_freq=[1]"),
        Change("the worker processes of a data loader take longer to start", more="dataset.num_workers=0"),
    ],
    "fairseq-generate": [Change("there may be no GPU", more="--cpu --batch-size 8")],
    "xgpt-evaluate": [
        Change("half precision is for GPUs", ("--fp16",)),
        Change("METEOR starts for ten seconds", more="--metrics bleu,rouge,cider", unless="--retrieval"),
    ],
    "xgpt-extract-regions": [Change("small photos, a process", more="--image-size 96 --workers 0")],
    "xgpt-import-regions": [Change("one process", more="--workers 1")],
    "xgpt-prepare-text": [Change("a hundred lines, a process", more="--workers 1 --valid-lines 8")],
    "xgpt-draw-scenes": [
        Change("few images", more="--train 12 --val 4 --test 4 --unseen 2 --web-train 4 --web-val 2 --workers 1"),
    ],
    "xgpt-gallery": [Change("METEOR starts for ten seconds", more="--metrics bleu,cider")],
}  # fmt: skip
RESULTS = ("--output", "--json", "--html", "--jsonl", "--coco-results")
PORT = "localhost:29500"  # another program may have it
TENTH = "val=0.1"  # may be none of a dozen photos


def changed(program: str, arguments: list[str]) -> list[str]:
    """The arguments as the tests run the program with them."""
    for change in CHANGES.get(program, []):
        if change.unless and change.unless in arguments:
            continue
        arguments = [argument for argument in arguments if argument not in change.without] + change.more.split()
    replaced = {PORT: f"localhost:{os.environ.get('DOCS_PORT', '29500')}", TENTH: "val=0.4"}
    for text, other in replaced.items():
        arguments = [argument.replace(text, other) for argument in arguments]
    return arguments


def remove(path: Path, before: float) -> None:
    """Remove what was there before the block's first command: the block makes it."""
    if path.exists() and path.lstat().st_mtime < before:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def main() -> None:
    program, *arguments = sys.argv[1:]
    before = float(os.environ["DOCS_STARTED"])
    for option, value in itertools.pairwise(arguments):
        if option in RESULTS:
            remove(Path(value), before)
        elif option in ("--save-dir", "--checkpoints") and program == "fairseq-train":
            for checkpoint in Path(value).glob("checkpoint*.pt"):
                remove(checkpoint, before)
    here = Path(os.environ["DOCS_BIN"])
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != here)
    found = shutil.which(program, path=path)
    if found is None:
        sys.exit(f"{program}: not found")
    os.execv(found, [found, *changed(program, arguments)])


def install(folder: Path) -> None:
    """Programs that change their arguments, under the names of those in CHANGES and of all of ours."""
    folder.mkdir()
    real = Path(sys.executable).parent
    for name in {path.name for path in real.iterdir() if path.name.startswith(("xgpt-", "fairseq-"))}:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {name} "$@"\n')
        program.chmod(0o755)


if __name__ == "__main__":
    main()
