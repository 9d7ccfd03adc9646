"""Scripts pass names whole: with spaces, quotes, line breaks, what a shell would expand, and dashes in front."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import ROOT
from tests.preloaded import python

EXAMPLES = ROOT / "examples"
PROGRAMS = (
    "fairseq-train", "fairseq-generate", "xgpt-average-checkpoints", "xgpt-evaluate", "xgpt-import-regions",
    "xgpt-extract-regions", "xgpt-learn-bpe", "xgpt-prepare-text", "xgpt-prepare-captions", "xgpt-caption-text",
    "xgpt-draw-scenes", "bash",
)  # fmt: skip
ODD = "-a 'b' \"c\" $d `e` $(f)\ng*? {h} \\ i"
SIZES = {"GPUS": "0", "ITERATIONS": "4", "PREPARE_ONLY": "1", "WORKERS": "1"}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs that only write down what they were called with; `bash` then does its work."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"open({str(tmp_path / 'calls')!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
            f"if {name!r} == 'bash': os.execv({shutil.which('bash')!r}, ['bash', *sys.argv[1:]])\n"
        )
        (folder / name).chmod(0o755)
    return folder


def run(programs: Path, command: list[str], **environment: str) -> list[list[str]]:
    """Run *command* in a folder whose name is odd, too; the calls of programs."""
    path = f"{programs}{os.pathsep}{Path(python()).parent}{os.pathsep}{os.environ['PATH']}"
    folder = programs.parent / ODD
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (programs.parent / "calls").read_text().splitlines()]


def odd(*names: str) -> dict[str, str]:
    """Variables, each an odd path."""
    return {name: f"{ODD}{name}" for name in names}


@pytest.mark.parametrize(
    ("script", "variables", "expected"),
    [
        ("xgpt_base/0_prepare.sh", odd("DATA", "TEXT", "CC_REGIONS", "CC_CAPTIONS", "CC_SIZES"),
         ["TEXT", "DATA/vocabulary", "DATA/text", "CC_REGIONS", "CC_CAPTIONS", "CC_SIZES/instances_x.json",
          "DATA/cc.regions", "DATA/cc"]),
        ("xgpt_base/1_text.sh", odd("TEXT_DATA", "CHECKPOINTS"),
         ["TEXT_DATA", "CHECKPOINTS/text", "CHECKPOINTS/text/averaged.pt"]),
        ("xgpt_base/2_out_of_domain.sh", odd("OUT_OF_DOMAIN_DATA", "CHECKPOINTS", "FROM"),
         ["OUT_OF_DOMAIN_DATA", "CHECKPOINTS/out_of_domain", "FROM"]),
        ("xgpt_base/3_in_domain.sh", odd("IN_DOMAIN_DATA", "CHECKPOINTS", "FROM"),
         ["IN_DOMAIN_DATA", "CHECKPOINTS/coco/in_domain", "FROM"]),
        ("xgpt_base/4_finetune.sh", odd("IN_DOMAIN_DATA", "CHECKPOINTS", "FROM"),
         ["IN_DOMAIN_DATA", "CHECKPOINTS/coco/finetune", "FROM"]),
        ("xgpt_base/5_caption.sh", odd("IN_DOMAIN_DATA", "CHECKPOINT", "OUT"),
         ["IN_DOMAIN_DATA", "CHECKPOINT", "OUT", "OUT/generate-test.txt", "OUT/scores-test.json",
          "IN_DOMAIN_DATA/test.references.json"]),
        ("xgpt_base/5_caption.sh", odd("CHECKPOINTS"),
         ["CHECKPOINTS/coco/finetune/averaged.pt", "CHECKPOINTS/coco/finetune"]),
        ("xgpt_base/6_scst.sh", odd("IN_DOMAIN_DATA", "CHECKPOINTS", "FROM"),
         ["IN_DOMAIN_DATA", "CHECKPOINTS/coco/scst", "FROM"]),
        ("retrieval_augmentation/retrieval.sh", odd("ORIGINAL_DATA", "CHECKPOINTS", "FROM"),
         ["ORIGINAL_DATA", "CHECKPOINTS/retrieval", "FROM"]),
        ("retrieval_augmentation/recall.sh", odd("ORIGINAL_DATA", "CHECKPOINT", "OUT"),
         ["ORIGINAL_DATA", "CHECKPOINT", "OUT/scores-test.json"]),
        ("ablations/flickr8k.sh", odd("FLICKR8K", "COCO5K", "WORK"),
         ["FLICKR8K/images", "COCO5K/images", "COCO5K/dataset_x.json", "WORK/flickr8k.regions", "WORK/dataset.json",
          "WORK/checkpoints/text"]),
        ("quickstart/run.sh", odd("WORK"), ["WORK/scenes", "WORK/scenes/images", "WORK/regions", "WORK/captions"]),
    ],
)  # fmt: skip
def test_paths(script: str, variables: dict[str, str], expected: list[str], programs: Path) -> None:
    folder = programs.parent / ODD
    for name in ("FLICKR8K", "COCO5K", "FROM", "CC_SIZES"):
        (folder / f"{ODD}{name}").mkdir(parents=True)
    (folder / f"{ODD}CC_SIZES" / "instances_x.json").touch()
    records = [{"image": f"{split}.jpg", "caption": "a", "split": split} for split in ("train", "val")]
    (folder / f"{ODD}CC_CAPTIONS").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    for name in ("FLICKR8K", "COCO5K"):
        (folder / f"{ODD}{name}" / "dataset_x.json").write_text('{"images": []}')
    calls = run(programs, ["bash", str(EXAMPLES / script)], **SIZES, HELD_OUT="0", **variables)
    passed = {argument for _, *arguments in calls for argument in arguments}
    assert not [name for name in expected if f"./{ODD}{name}" not in passed], calls


def test_a_make_quickstart_of_any_folder(programs: Path) -> None:
    """Neither make nor its shell takes a part of the name for its own."""
    venv = os.path.relpath(programs.parent / "venv", ROOT)
    shutil.copytree(programs, ROOT / venv / "bin")
    (ROOT / venv / ".installed").touch()
    folder = programs.parent / ODD / ODD
    command = ["make", "-s", "-C", str(ROOT), "quickstart", f"VENV={venv}", f"DATA={folder}"]
    with pytest.raises(AssertionError, match="is not a folder"):
        run(programs, command)
    calls: Any = [json.loads(line) for line in (programs.parent / "calls").read_text().splitlines()]
    assert ["bash", "examples/quickstart/run.sh", str(folder)] in calls
