"""The programs that the faults are tried on: inputs made by code, a command, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults import inputs
from tests.faults.inputs import PLUGIN, TRAINING

TWO_RANKS = Path(__file__).parent / "two_ranks.py"


@dataclass(frozen=True)
class Program:
    """A program.

    Attributes:
        write: puts its inputs into a folder.
        command: its command line; relative paths are in that folder, and what it writes is below `out/`.
        resumes: whether an interrupted run goes on, so that its working folder may stay.
        changing: names whose content differs between equal runs (times), which are not compared.
        small: bytes that are too few for its output.
        meets: what each of its two processes says when they have found each other; before, one waits for the other.
    """

    write: Callable[[Path], object]
    command: tuple[str, ...]
    resumes: bool = False
    changing: tuple[str, ...] = ()
    small: int = 1 << 13
    meets: str = ""


def programs() -> dict[str, Program]:
    """All of them by name."""
    found: dict[str, Program] = {}
    for layout in ("npz-dir", "butd-tsv", "vinvl-tsv", "vlp-h5", "m2-h5", "vilbert-lmdb", "mmf-npy"):
        command = ("xgpt-import-regions", "archive", "--format", layout, "--output", "out/store", "--workers", "2")
        found[f"import {layout}"] = Program(inputs.archive(layout), (*command, "--sizes", "sizes.json"), resumes=True)
    found["learn-bpe"] = Program(
        inputs.text,
        ("xgpt-learn-bpe", "--input", "text.txt", "--symbols", "60", "--output", "out/vocabulary"),
        small=1 << 12,
    )
    found["prepare-text"] = Program(
        inputs.text,
        ("xgpt-prepare-text", "--input", "text.txt", "--vocabulary", "vocabulary", "--output", "out/text",
         "--valid-lines", "20", "--workers", "2"), resumes=True,
    )  # fmt: skip
    found["prepare-captions"] = Program(
        inputs.captions,
        ("xgpt-prepare-captions", "captions.json", "--vocabulary", "vocabulary", "--regions", "regions", "--output",
         "out/data"),
    )  # fmt: skip
    found["average"] = Program(
        inputs.models, ("xgpt-average-checkpoints", "--inputs", "one.pt", "two.pt", "--output", "out/average.pt")
    )
    found["export"] = Program(
        inputs.models, ("xgpt-export", "one.pt", "--data", "captions", "--output", "out/bundle"), small=1 << 14
    )
    found["caption"] = Program(
        inputs.models, ("xgpt-caption", "regions", "--path", "bundle", "--json", "out/captions.json"), small=1 << 7
    )
    found["caption --jsonl"] = Program(
        inputs.models, ("xgpt-caption", "regions", "--path", "bundle", "--jsonl", "out/captions.jsonl"), resumes=True,
        small=1 << 7,
    )  # fmt: skip
    found["evaluate"] = Program(
        inputs.models,
        ("xgpt-evaluate", "captions.json", "--references", "captions/test.references.json", "--metrics", "CIDEr",
         "--output", "out/scores.json", "--coco-results", "out/results.json"), small=1 << 7,
    )  # fmt: skip
    found["evaluate --retrieval"] = Program(
        inputs.retrieval,
        ("xgpt-evaluate", "--retrieval", "--path", "retrieval.pt", "--data", "captions", "--splits", "train",
         "--save-scores", "out/scores", "--output", "out/recall.json"), resumes=True, small=1 << 7,
    )  # fmt: skip
    found["augment"] = Program(
        inputs.models,
        ("xgpt-augment", "captions", "--path", "one.pt", "--output", "out/data", "--batch-size", "2"), resumes=True,
        small=1 << 12,
    )  # fmt: skip
    extraction = ("--image-size", "64", "--grid", "2", "--offline")
    found["extract"] = Program(
        inputs.photos, ("xgpt-extract-regions", "photos", "--output", "out/store", "--workers", "2", *extraction),
        resumes=True,
    )  # fmt: skip
    found["merge"] = Program(
        inputs.parts(*extraction), ("xgpt-regions", "merge", "store.parts", "--output", "out/store", "--copy")
    )
    steps = ("--max-update", "8", "--save-interval-updates", "2", "--num-workers", "1", "--save-dir", "out/run")
    pretrain = ("captions", "--task", "xgpt_pretrain", "--criterion", "xgpt", *TRAINING, *steps, "--batch-size", "4")
    training = {"resumes": True, "small": 1 << 18}  # the first file of a checkpoint fits, its copies do not
    found["train"] = Program(inputs.models, ("fairseq-train", *pretrain), **training)
    found["train, two ranks"] = Program(
        inputs.models, (str(TWO_RANKS), *pretrain), **training, meets="initialized host"
    )
    found["scst"] = Program(
        inputs.models,
        ("fairseq-train", "captions", "--task", "xgpt_caption", "--criterion", "xgpt_scst", "--finetune-from-model",
         "one.pt", *TRAINING, *steps, "--batch-size", "2", "--scst-max-len", "8", "--scst-candidates", "beam",
         "--dropout", "0", "--attention-dropout", "0"), **training,
    )  # fmt: skip
    found["generate"] = Program(
        inputs.models,
        ("fairseq-generate", "captions", "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", "one.pt",
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
