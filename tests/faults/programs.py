"""The programs that the faults are tried on: inputs made by code, a command, and what it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.archives.layouts import LAYOUTS, made_up, write_sizes

FILES = Path(__file__).parent.parent / "earlier_files"
PLUGIN = Path(__file__).parent.parent.parent / "xgpt_fairseq"
WORDS = ("a", "red", "dog", "and", "two", "green", "cats", "sit", "near", "the", "blue", "house", "with", "one", "old")


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        write: puts its inputs into a folder.
        command: its command line; relative paths are in that folder, and what it writes is below `out/`.
        resumes: whether an interrupted run goes on, so that its working folder may stay.
        changing: names whose content differs between equal runs (times), which are not compared.
        small: bytes that are too few for its output.
    """

    write: Callable[[Path], object]
    command: tuple[str, ...]
    resumes: bool = False
    changing: tuple[str, ...] = ()
    small: int = 1 << 13


def programs() -> dict[str, Program]:
    """All of them by name."""
    found = {}
    for layout in ("npz-dir", "butd-tsv", "vinvl-tsv", "vlp-h5", "m2-h5", "vilbert-lmdb", "mmf-npy"):
        command = ("xgpt-import-regions", "archive", "--format", layout, "--output", "out/store", "--workers", "2")
        found[f"import {layout}"] = Program(_archive(layout), (*command, "--sizes", "sizes.json"), resumes=True)
    found["learn-bpe"] = Program(
        _text, ("xgpt-learn-bpe", "--input", "text.txt", "--symbols", "60", "--output", "out/vocabulary"), small=1 << 12
    )
    found["prepare-text"] = Program(
        _text,
        ("xgpt-prepare-text", "--input", "text.txt", "--vocabulary", "vocabulary", "--output", "out/text",
         "--valid-lines", "20", "--workers", "2"), resumes=True,
    )  # fmt: skip
    found["prepare-captions"] = Program(
        _captions,
        ("xgpt-prepare-captions", "captions.json", "--vocabulary", "vocabulary", "--regions", "regions", "--output",
         "out/data"),
    )  # fmt: skip
    found["average"] = Program(
        _models, ("xgpt-average-checkpoints", "--inputs", "one.pt", "two.pt", "--output", "out/average.pt")
    )
    found["export"] = Program(
        _models, ("xgpt-export", "one.pt", "--data", "captions", "--output", "out/bundle"), small=1 << 14
    )
    found["caption"] = Program(
        _models, ("xgpt-caption", "regions", "--path", "bundle", "--json", "out/captions.json"), small=1 << 7
    )
    found["caption --jsonl"] = Program(
        _models, ("xgpt-caption", "regions", "--path", "bundle", "--jsonl", "out/captions.jsonl"), resumes=True,
        small=1 << 7,
    )  # fmt: skip
    found["evaluate"] = Program(
        _models,
        ("xgpt-evaluate", "captions.json", "--references", "captions/test.references.json", "--metrics", "CIDEr",
         "--output", "out/scores.json", "--coco-results", "out/results.json"), small=1 << 7,
    )  # fmt: skip
    found["train"] = Program(
        _training,
        ("fairseq-train", "captions", "--user-dir", str(PLUGIN), "--task", "xgpt_pretrain", "--arch", "xgpt_demo",
         "--layers", "1", "--hidden-size", "32", "--ffn-size", "64", "--attention-heads", "2", "--criterion", "xgpt",
         "--optimizer", "adam", "--lr", "1e-3", "--batch-size", "4", "--cpu", "--log-format", "simple", "--max-update",
         "8", "--save-interval-updates", "2", "--num-workers", "1", "--no-progress-bar", "--save-dir", "out/run"),
        resumes=True, small=1 << 18,
    )  # fmt: skip
    found["generate"] = Program(
        _models,
        ("fairseq-generate", "captions", "--user-dir", str(PLUGIN), "--task", "xgpt_caption", "--path", "one.pt",
         "--cpu", "--batch-size", "2", "--results-path", "out"), changing=("generate-test.txt",), small=1 << 7,
    )  # fmt: skip
    return found


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def results(folder: Path, program: Program) -> dict[str, bytes | int]:
    """What *program* has written to *folder*: name → content; of what changes, its number of lines.

    Checkpoints are compared by their parameters: the rest of them has the times of the run.
    """
    found: dict[str, bytes | int] = {}
    for path in files_below(folder):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix == ".pt":
            found[name] = _parameters(path)
        else:
            found[name] = path.read_bytes() if path.name not in program.changing else path.read_bytes().count(b"\n")
    return found


def _parameters(path: Path) -> bytes:
    from xgpt_fairseq.checkpoints import load_checkpoint
    from xgpt_fairseq.hashing import tensors_sha256

    return tensors_sha256(load_checkpoint(path)["model"]).encode()


def _archive(layout: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        images = [made_up(number, width=32) for number in range(60)]
        path = LAYOUTS[layout].write(folder / "archive", images)
        if path.name != "archive":
            path.rename(folder / "archive")
        write_sizes(folder / "sizes.json", images)

    return write


def _text(folder: Path) -> None:
    lines = [" ".join(WORDS[(number * k + k) % len(WORDS)] for k in range(3, 9)) for number in range(4000)]
    (folder / "text.txt").write_text("".join(f"{line} {number}\n" for number, line in enumerate(lines)))
    shutil.copytree(FILES / "vocabulary", folder / "vocabulary")


def _captions(folder: Path) -> None:
    _models(folder)
    shutil.copytree(FILES / "vocabulary", folder / "vocabulary")
    shutil.copyfile(FILES / "captions.json", folder / "captions.json")


def _models(folder: Path) -> None:
    for name in ("captions", "regions", "bundle"):
        shutil.copytree(FILES / name, folder / name)
    for name in ("one.pt", "two.pt"):
        shutil.copyfile(FILES / "xgpt_caption.pt", folder / name)
    ids = json.loads((FILES / "captions" / "test.references.json").read_text())["images"]
    (folder / "captions.json").write_text(json.dumps([{"image_id": i["id"], "caption": "a green dog"} for i in ids]))


def _training(folder: Path) -> None:
    _models(folder)
