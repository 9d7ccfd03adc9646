"""The real programs, run as a user runs them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.preloaded import preloaded

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = ROOT / "xgpt_fairseq"

# a model that takes an update in a few hundredths of a second
SMALL = ["--layers", "1", "--hidden-size", "64", "--ffn-size", "128", "--attention-heads", "4"]


def path() -> str:
    """PATH with the programs of this Python's environment first: preloaded ones, where that works (Linux)."""
    if sys.platform == "linux":
        return preloaded().path()
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run(*command: object, check: bool = True, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *command* with this Python's programs first in PATH; with *check*, show its output where it fails."""
    result = subprocess.run(
        ["python" if part == sys.executable else str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PATH": path(), "OMP_NUM_THREADS": "1", **environment},
    )
    if check:
        assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result


def preprocess(program: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of preprocess/'s programs."""
    return run(sys.executable, ROOT / "preprocess" / program, *arguments)


def train(data: Path, save_dir: Path, *arguments: object, check: bool = True, plugin: Path = PLUGIN):
    """fairseq-train on captions, with what most tests share; later *arguments* win."""
    return run(
        "fairseq-train", data, "--user-dir", plugin, "--task", "xgpt_caption", "--arch", "xgpt_demo", *SMALL,
        "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3", "--batch-size", "16", "--cpu",
        "--log-format", "simple", "--log-interval", "1", "--num-workers", "0", "--save-dir", save_dir, *arguments,
        check=check,
    )  # fmt: skip


def train_in_two_processes(data: Path, save_dir: Path, *arguments: object):
    """The same by two processes on the CPU; what the first one said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    shared = ["--distributed-init-method", address, "--distributed-world-size", "2", "--distributed-no-spawn",
              "--distributed-backend", "gloo", "--ddp-backend", "legacy_ddp"]  # fmt: skip
    with ThreadPoolExecutor() as pool:
        ranks = [
            pool.submit(train, data, save_dir, *shared, "--distributed-rank", str(rank), *arguments) for rank in (0, 1)
        ]
        first, _ = [rank.result() for rank in ranks]
        return first


def generate(data: Path, checkpoint: Path, output: Path, *arguments: object, check: bool = True):
    """fairseq-generate into *output*."""
    return run(
        "fairseq-generate", data, "--user-dir", PLUGIN, "--task", "xgpt_caption", "--path", checkpoint,
        "--cpu", "--batch-size", "8", "--results-path", output, *arguments,
        check=check,
    )  # fmt: skip


def generated(output: Path, split: str = "test", kind: str = "D") -> dict[int, list[str]]:
    """Hypotheses by sample, best first: detokenized text (D) or dictionary symbols (H)."""
    found: dict[int, list[str]] = {}
    for line in (output / f"generate-{split}.txt").read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(rf"{kind}-(\d+)\t[^\t]+\t(.*)", line):
            found.setdefault(int(match[1]), []).append(match[2])
    return found


def logged(log: str, name: str, kind: str = "train_inner") -> list[float]:
    """The values of *name* in fairseq's log, one a line of *kind*."""
    return [float(match[1]) for match in re.finditer(rf"\| {kind} \|.*?\b{name}[= ]([\d.e+-]+)", log)]
