"""The versions that setup.py admits, each in an environment of its own: python -m tests.matrix.run [options]

Builds an environment per row, installs the project there, runs a short selection of the tests, and prints a table. The
first row has the newest of everything; each further one changes one thing: the Python, the distribution of fairseq, the
oldest torch, numpy 1. What a machine cannot build, for want of an interpreter, a compiler or a version, is in the
table with the reason. Fails where a test fails, or where nothing could be built.

    python -m tests.matrix.run                                    # gigabytes: each torch comes with its CUDA libraries
    python -m tests.matrix.run --pip "--extra-index-url https://download.pytorch.org/whl/cpu" --torch 2.6.0+cpu newest
    python -m tests.matrix.run --python python3.11 /opt/python3.12/bin/python3.12 --torch 2.13.0 --all
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
FAIRSEQS = ("ve-fairseq", "fairseq-fixed")
NUMPYS = ("2", "1")
NEWEST = "newest"
EXTRAS = "archives,bundle,datasets,photos,report"
TOOLS = ("pytest", "hypothesis", "setuptools<81", "wheel", "cython")  # the last three build a fairseq from its source
# What depends on versions: checkpoints, pickles of numpy, configurations, kernels, the search, fairseq's programs.
TESTS = (
    "tests/test_checkpoints.py",
    "tests/test_earlier_files.py",
    "tests/archives/test_safe_pickle.py",
    "tests/data/test_caption_dataset.py",
    "tests/kernels/test_attention.py",
    "tests/models/test_xgpt.py",
    "tests/programs/test_versions.py",
    "tests/search/test_generator.py",
    "tests/test_workarounds.py",
)


class Row(NamedTuple):
    """What an environment has: an interpreter, and versions."""

    python: str
    fairseq: str
    torch: str
    numpy: str


class CannotBuildError(Exception):
    """An environment cannot be built here, and why."""


def main() -> None:
    oldest, pythons = admitted((ROOT / "setup.py").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=pythons, help="interpreters, by name or path (%(default)s)")
    parser.add_argument("--fairseq", nargs="+", default=FAIRSEQS, help="distributions (%(default)s)")
    parser.add_argument("--torch", nargs="+", default=[NEWEST, oldest], help="versions (%(default)s)")
    parser.add_argument("--numpy", nargs="+", default=NUMPYS, help="major versions (%(default)s)")
    parser.add_argument("--all", action="store_true", help="all combinations")
    parser.add_argument("--pip", default="", metavar="ARGUMENTS", help="more arguments of pip install, in one string")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="FILE", help="other tests")
    parser.add_argument("--folder", type=Path, help="where environments are built, and removed, one after the other")
    args = parser.parse_args()
    done = []
    for row in rows(args.python, args.fairseq, args.torch, args.numpy, every=args.all):
        done.append((row, *tried(row, shlex.split(args.pip), args.tests, args.folder)))
        print(line(row, *done[-1][1:]), flush=True)
    print(f"\n{line(Row('Python', 'fairseq', 'torch', 'numpy'), 'outcome')}")
    for each in done:
        print(line(*each))
    outcomes = [outcome for _, outcome, *_ in done]
    sys.exit(any(each.startswith("failed") for each in outcomes) or all("not built" in each for each in outcomes))


def admitted(setup: str) -> tuple[str, list[str]]:
    """The oldest torch that the text of setup.py admits, and the names of the interpreters."""
    torch, oldest, end = (
        re.search(pattern, setup) for pattern in (r'"torch>=([\d.]+)"', r'python_requires=">=3\.(\d+)', r",<3\.(\d+)")
    )
    assert torch and oldest and end, "setup.py says its versions in another way"
    return torch[1] + ".0" * (2 - torch[1].count(".")), [f"python3.{n}" for n in range(int(oldest[1]), int(end[1]))]


def rows(
    pythons: Sequence[str], fairseqs: Sequence[str], torches: Sequence[str], numpys: Sequence[str], *, every: bool
) -> list[Row]:
    """The first of everything, and then each of the others beside the first of the rest; or all combinations."""
    axes = (pythons, fairseqs, torches, numpys)
    if every:
        return [Row(*values) for values in itertools.product(*axes)]
    first = Row(*(values[0] for values in axes))
    fields = zip(Row._fields, axes, strict=True)
    return [first, *(first._replace(**{name: value}) for name, values in fields for value in values[1:])]


def tried(row: Row, pip: Sequence[str], tests: Sequence[str], folder: Path | None) -> tuple[str, str]:
    """Build the environment of *row*, run the tests, remove it; the outcome, and the versions that were installed."""
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="matrix-", dir=folder))
    try:
        python = build(row, pip, place)
        versions = installed(python)
        # of the copy that is installed: fairseq refuses a --user-dir beside another package of its name
        data = os.environ.get("XGPT_TEST_DATA", str(ROOT.parent / "shared"))
        command = [python, "-m", "pytest", "-v", "--disable-warnings", "-p", "no:cacheprovider", *tests]
        done = run(command, place / "source", OMP_NUM_THREADS="1", XGPT_TEST_DATA=data)
        last = (done.stdout.strip().splitlines() or ["nothing was said"])[-1]
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
        outcome = f"{'failed' if done.returncode else 'passed'}: {last.strip('= ')}"
        return f"{outcome} ({time.monotonic() - began:.0f} s with building)", versions
    except CannotBuildError as error:
        return f"not built: {error}", ""
    finally:
        shutil.rmtree(place, ignore_errors=True)


def build(row: Row, pip: Sequence[str], place: Path) -> Path:
    """The interpreter of a new environment with the project. Raises CannotBuildError."""
    base = shutil.which(row.python)
    if base is None:
        raise CannotBuildError(f"there is no {row.python} in PATH; name its path with --python")
    made = run([base, "-m", "venv", place / "env"], place)
    if made.returncode:
        raise CannotBuildError(reason(made.stderr + made.stdout))
    python = place / "env" / "bin" / "python"
    wanted = [f"numpy{'<2' if row.numpy == '1' else f'>={row.numpy}'}"]
    constraints = place / "constraints.txt"
    torch = "torch" if row.torch == NEWEST else f"torch=={row.torch}"
    constraints.write_text("".join(f"{each}\n" for each in (*wanted, *([torch] if row.torch != NEWEST else []))))
    source = place / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "output", "__pycache__"))
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *pip]
    commands: list[list[object]] = [[*install, torch, *wanted, *TOOLS], [*install, "--editable", f"{source}[{EXTRAS}]"]]
    if row.fairseq != FAIRSEQS[0]:  # setup.py's own, both are the package `fairseq`
        commands += [
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", FAIRSEQS[0]],
            [*install, "--no-build-isolation", row.fairseq],
        ]
    for command in commands:
        done = run(command, place)
        if done.returncode:
            raise CannotBuildError(reason(done.stderr))
    return python


def reason(said: str) -> str:
    """The line of pip's that says why; of several the first, since the others say that there was one."""
    lines = [each.strip() for each in said.splitlines() if each.strip()]
    errors = [each for each in lines if re.match(r"(ERROR|error|fatal)\b", each) or "Error:" in each]
    return (errors or lines or ["it ended without a word"])[0][:200]


def installed(python: Path) -> str:
    """What was installed, in words."""
    code = (
        "import platform, fairseq, numpy, torch; "
        "print(f'Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}')"
    )
    done = run([python, "-c", code], python.parent)
    if done.returncode:
        raise CannotBuildError(f"it cannot be imported: {(done.stderr.strip().splitlines() or [''])[-1][:200]}")
    return done.stdout.strip().splitlines()[-1]


def run(command: Iterable[object], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env={**own, **environment}, capture_output=True, text=True
    )


def line(row: Row, outcome: str, versions: str = "") -> str:
    return f"{Path(row.python).name:<12}{row.fairseq:<15}{row.torch:<9}{row.numpy:<7}{outcome}" + (
        f" [{versions}]" if versions else ""
    )


if __name__ == "__main__":
    main()
