"""Run the stages of many rows: each once a seed, after the stage that it starts from, several at once."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from xgpt_fairseq.errors import DataError, check_at_least
from xgpt_fairseq.experiments.rows import Row, Script, Stage
from xgpt_fairseq.io.atomic import write_json
from xgpt_fairseq.io.workers import available_cores

DEMO_ENVIRONMENT = {"ARCH": "xgpt_demo", "BATCH": "64", "GPU_BATCH": "64", "WORKERS": "0"}
# Variables of the stage scripts that decide what comes out, which a user may set for a whole table.
DECIDING = ("ITERATIONS", "EPOCHS", "VALIDATIONS", "BATCH", "LR", "AVERAGE", "PRECISION", "HARD_POOL")

SCORING = "scoring.json"


@dataclass
class Node:
    """A stage of one seed, in its folder, and the stages that start from it."""

    stage: Stage
    folder: Path
    seed: int
    start: str  # the checkpoint that it starts from
    is_root: bool  # whether that is the user's
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def average(self) -> Path:
        return self.folder / self.stage.script.checkpoint_dir / "averaged.pt"

    @property
    def label(self) -> str:
        names = [self.stage.name] if self.is_root else [self.folder.parent.name, self.stage.name]
        return f"seed {self.seed}, {' > '.join(names)}"


def folder_of(row: Row, seed: int, output: Path) -> Path:
    """Where the last stage of *row* leaves its scores: a folder a stage, each within that of the one before."""
    return output.joinpath(f"seed{seed}", *(stage.name for stage in row.stages))


def scores_file(row: Row, seed: int, output: Path, without: Collection[Path] = ()) -> Path | None:
    """The scores of *row*; None where there are none, or a stage of theirs has its folder among *without*."""
    folder = folder_of(row, seed, output)
    file = folder / "scores-test.json"
    return file if file.is_file() and not any(folder.is_relative_to(other) for other in without) else None


def tree(rows: Sequence[Row], seed: int, *, output: Path, start: str) -> list[Node]:
    """The stages of *rows*, each once: those that start from *start*; the others hang on them."""
    first: dict[str, Node] = {}
    for row in rows:
        level, folder, checkpoint = first, output / f"seed{seed}", start
        for stage in row.stages:
            folder = folder / stage.name
            node = level.setdefault(stage.name, Node(stage, folder, seed, checkpoint, is_root=level is first))
            level, checkpoint = node.children, str(node.average)
    return list(first.values())


def is_done(node: Node) -> bool:
    """Whether the stage has left all that it is to leave, and its scores are what is asked for now."""
    if node.stage.script.scored_by is None:
        return node.average.is_file()
    scored = (node.folder / "scores-test.json").is_file() and _scored_with(node) == _scoring(node)
    return scored and node.average.is_file()


def has_results(folder: Path) -> bool:
    """Whether checkpoints or scores lie in *folder*, or below it: a training that fails at its start leaves none."""
    files = (name for _, _, names in os.walk(folder, followlinks=True) for name in names)
    return any(name.endswith(".pt") or name == "scores-test.json" for name in files)


def _comparable(settings: dict[str, Any], unread: Collection[str]) -> dict[str, Any]:
    """A stage's settings as far as they count.

    Earlier versions recorded variables that are *unread*, and EPOCHS beside the ITERATIONS that win over it.
    """
    variables = {name: value for name, value in settings.get("variables", {}).items() if name not in unread}
    if "ITERATIONS" in variables:
        variables.pop("EPOCHS", None)
    return {**settings, "variables": variables}


def _scoring(node: Node) -> dict[str, str]:
    """The variables of the stage's scoring that the user has set."""
    return {name: value for name in node.stage.script.scoring if (value := os.environ.get(name))}


def _scored_with(node: Node) -> dict[str, str]:
    """The same of the scores that are there; without a record, none were set."""
    file = node.folder / SCORING
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _begin_scoring(node: Node) -> None:
    """Record what the scores will be of. Earlier ones are removed before, so that they are not taken for these."""
    (node.folder / "scores-test.json").unlink(missing_ok=True)
    if asked := _scoring(node):
        write_json(node.folder / SCORING, asked)
    else:
        (node.folder / SCORING).unlink(missing_ok=True)


def count(nodes: Sequence[Node]) -> int:
    """How many stages these are, with those that hang on them."""
    return sum(1 + count(list(node.children.values())) for node in nodes)


@dataclass(frozen=True)
class Setting:
    """What all stages of a table share.

    Attributes:
        demo: each script's variables at demo scale; None: the recipe alone.
        environment: variables of the stage scripts; a stage is given those that its script reads.
        arguments: more arguments for every training.
        keep_checkpoints: leave those that were averaged.
    """

    demo: Mapping[Script, Mapping[str, str]] | None
    environment: Mapping[str, str]
    arguments: Sequence[str] = ()
    keep_checkpoints: bool = False

    def command(self, node: Node) -> tuple[dict[str, str], list[str]]:
        """The variables and arguments of a stage's script."""
        stage = node.stage
        demo = {} if self.demo is None else {**DEMO_ENVIRONMENT, **self.demo.get(stage.script, {})}
        reads = self.environment if stage.script.reads is None else stage.script.reads
        variables = {
            **({"ARCH": f"xgpt_{stage.size}"} if self.demo is None else {}),
            **{name: value for name, value in self.environment.items() if name in reads},
            "SEED": str(node.seed),
            # the user's own win: ITERATIONS=50, BATCH=32; but not what tells rows apart, such as their data
            **{n: os.environ.get(n, value) if n in DECIDING else value for n, value in stage.variables},
            **{name: os.environ.get(name, value) for name, value in demo.items()},
        }
        if stage.objectives is not None:
            variables["OBJECTIVES"] = stage.objectives.replace("+", ",")
        arguments = list(stage.arguments)
        if self.demo is not None and stage.size == "tiny":
            arguments += ["--layers", "2"]  # half of xgpt_demo's, as Tiny has half of Base's
        return variables, [*arguments, *self.arguments]


class Runner:
    """Runs trees of stages, one on each *device* at a time.

    Args:
        devices: what each run is given: variables that choose its GPUs, or its thread on a CPU.
    """

    def __init__(self, setting: Setting, devices: Sequence[Mapping[str, str]]) -> None:
        self.setting = setting
        self.devices = devices
        self._free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for device in devices:
            self._free.put(device)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = threading.Event()

    def run(self, nodes: Sequence[Node]) -> dict[Path, str]:
        """Run *nodes* and all that hang on them.

        A stage that fails takes those that hang on it with it, and no others.

        Returns:
            dict: folder of each stage that failed, or is of other settings → a line that says so. What lies in it, also
            of the stages that hang on it, is no part of these runs.
        """
        failed: dict[Path, str] = {}
        with (
            ThreadPoolExecutor(len(self.devices)) as pool,
            tqdm(total=count(nodes), unit=" stages", desc="stages") as bar,
        ):
            ready = list(nodes)
            running: dict[Future[float | None], Node] = {}
            try:
                while ready or running:
                    while ready and len(running) < len(self.devices):
                        node = ready.pop(0)
                        running[pool.submit(self._stage, node)] = node
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        node = running.pop(future)
                        if (error := future.exception()) is not None:
                            failed[node.folder] = f"{node.label}: {error}"
                            bar.write(failed[node.folder], file=sys.stderr)
                            bar.update(count([node]))
                            continue
                        if (seconds := future.result()) is not None:
                            bar.write(f"{node.label}: {seconds:.0f} s", file=sys.stderr)
                        bar.update()
                        ready[:0] = node.children.values()  # a row to its end before another begins
            except BaseException:
                self._stopped.set()
                for process in list(self._running):
                    os.killpg(process.pid, signal.SIGTERM)
                raise
        return failed

    def _stage(self, node: Node) -> float | None:
        """Run one stage; the seconds that it took, or None where it was done.

        Raises:
            DataError: it was run with other settings, fails, or leaves no scores.
        """
        self._check_settings(node)
        if is_done(node):
            return None
        started = time.monotonic()
        device = self._free.get()
        try:
            variables, arguments = self.setting.command(node)
            place = {"CHECKPOINTS": str(node.folder), "DATASET": "captions", "FROM": node.start}
            script = node.stage.script
            self._script(node, script.name, {**variables, **device, **place}, arguments)
            if not self.setting.keep_checkpoints:
                for checkpoint in node.average.parent.glob("checkpoint*.pt"):
                    checkpoint.unlink()
            if script.scored_by is not None:
                _begin_scoring(node)
                scored = {"CHECKPOINT": str(node.average), "OUT": str(node.folder)}
                self._script(node, script.scored_by, {**variables, **device, **place, **scored}, [])
                if not (node.folder / "scores-test.json").is_file():
                    raise DataError(f"{script.scored_by} left no scores-test.json in {node.folder}")
        finally:
            self._free.put(device)
        return time.monotonic() - started

    def _check_settings(self, node: Node) -> None:
        """A stage that was run, or begun, with other settings is no part of this table.

        Where it has left neither checkpoint nor scores, they may change: a mistyped value can be corrected.

        Raises:
            DataError: it was.
        """
        variables, arguments = self.setting.command(node)
        variables |= {name: os.environ[name] for name in DECIDING if name in os.environ and name not in variables}
        # where links lead now: they may lead elsewhere when this is compared
        variables = {n: os.path.realpath(value) if n.endswith("_DATA") else value for n, value in variables.items()}
        own: dict[str, Any] = {"script": node.stage.script.name, "variables": variables, "arguments": arguments}
        if node.is_root:
            own["start"] = node.start
        file = node.folder / "settings.json"
        if not file.exists() or not has_results(node.folder):
            node.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, own)
            return
        unread = self.setting.environment.keys() - variables.keys()
        own, other = (_comparable(each, unread) for each in (own, json.loads(file.read_text(encoding="utf-8"))))
        if other != own:
            (difference, *_) = [name for name in own if own[name] != other.get(name)]
            raise DataError(
                f"{file} says that this stage was run with other {difference} ({other.get(difference)}, now "
                f"{own[difference]}): use another --output, or remove the folder"
            )

    def _script(self, node: Node, script: str, variables: Mapping[str, str], arguments: Sequence[str]) -> None:
        environment = {**os.environ, **variables}
        # the scripts call python and fairseq's programs: those of the environment that this program runs in
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with open(node.folder / f"{Path(script).stem}.log", "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["bash", str(node.stage.script.folder / script), *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be stopped with all that it started
            )
            self._running.add(process)
            if self._stopped.is_set():
                os.killpg(process.pid, signal.SIGTERM)
            try:
                status = process.wait()
            finally:
                self._running.discard(process)
        if status:
            raise DataError(f"{script} failed; see {log.name}")


def devices(*, gpus: int, gpus_per_run: int, jobs: int | None) -> list[dict[str, str]]:
    """What runs at once are given: GPUs of their own, or, where there are none, a thread each.

    Raises:
        DataError: a run is to have more GPUs than there are, or a number is too small.
    """
    check_at_least("--gpus", gpus, 0)
    check_at_least("--gpus-per-run", gpus_per_run, 1)
    check_at_least("--jobs", jobs, 1)
    if gpus == 0:
        cores = available_cores()
        jobs = jobs or cores
        return [{"GPUS": "0", "OMP_NUM_THREADS": str(max(1, cores // jobs))}] * jobs
    if gpus_per_run > gpus:
        raise DataError(f"--gpus-per-run {gpus_per_run}, but there are {gpus} GPUs")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",")[:gpus] if visible else [str(number) for number in range(gpus)]
    groups = [names[i : i + gpus_per_run] for i in range(0, gpus - gpus_per_run + 1, gpus_per_run)]
    return [{"GPUS": str(gpus_per_run), "CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups[:jobs]]
