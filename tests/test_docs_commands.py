"""The commands of README.md and of docs/, run as they are written, in a tiny world that has the names they use.

`docs_programs.py` lists what is changed (sizes, data, device, length), `docs_world.py` makes the world.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs_programs, docs_world
from tests.docs_pages import PAGES, ROOT, Block, blocks, options
from tests.end_to_end import programs
from tests.test_readmes import program_parser, training_parser

ALL = {page: list(blocks(ROOT / page)) for page in PAGES}
RUN = [page for page, found in ALL.items() if any(not block.reason for block in found)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, made once, also by several processes of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "docs-world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "docs-world" / "made").exists():
            shutil.rmtree(shared / "docs-world", ignore_errors=True)
            docs_world.make(shared / "docs-world")
            docs_programs.install(shared / "docs-world" / "venv" / "programs")
            (shared / "docs-world" / "made").touch()
    return shared / "docs-world"


def run_page(page: str, found: list[Block], world: Path, folder: Path) -> None:
    """Run the blocks of a page one after the other, in a copy of the world."""
    shutil.copytree(world, folder, symlinks=True, ignore=shutil.ignore_patterns("venv"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    changed = world / "venv" / "programs"
    environment = {
        "PATH": os.pathsep.join([str(changed), programs.path()]), "DOCS_BIN": str(changed), "DOCS_PORT": str(port),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(
            [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    script = folder.parent / "block.py"
    for block in found:
        if block.reason:
            continue
        script.write_text(block.text)
        command = ["bash", "-euo", "pipefail", "-c", block.text] if block.language == "bash" else ["python", script]
        environment["DOCS_STARTED"] = str(time.time())
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240
        )
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, f"{page}, line {block.line}:\n{block.text}\n{said}"


@pytest.mark.parametrize("page", RUN)
def test_commands_run(page: str, world: Path, tmp_path: Path) -> None:
    run_page(page, ALL[page], world, tmp_path / "here")


@pytest.mark.parametrize(
    "text",
    ["xgpt-captoin photo.jpg\n", "xgpt-caption photo.jpg --bean 3\n", "xgpt-caption foto.jpg\n", "false\ntrue\n",
     "xgpt-learn-bpe --input wiki.txt --output other\n"],
)  # fmt: skip
def test_a_typo_fails(text: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="page, line 7"):
        run_page("page", [Block("bash", 7, text, None)], world, tmp_path / "here")


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    marked = [(page, block) for page, found in ALL.items() for block in found if block.reason is not None]
    assert all(len(block.reason or "") > 10 for _, block in marked), "a mark without a reason"
    assert len(marked) <= 22
    assert sum(not block.reason for found in ALL.values() for block in found) >= 2 * len(marked)


def known(program: str) -> Iterator[str]:
    """All options of a program."""
    parsers: list[argparse.ArgumentParser]
    if program == "fairseq-train":
        parsers = [training_parser(task) for task in ("xgpt_caption", "xgpt_pretrain")]
    else:
        with pytest.MonkeyPatch.context() as patch:
            parsers = [program_parser(program.removeprefix("xgpt-").replace("-", "_"), patch)]
    for parser in parsers:
        yield from parser._option_string_actions


def test_options_of_blocks_that_are_not_run() -> None:
    """They are the programs' own."""
    named = {
        (program, option, page)
        for page, found in ALL.items()
        for block in found
        if block.reason is not None and block.language == "bash"
        for program, option in options(block.text)
    }
    assert len(named) >= 10
    for program in {program for program, *_ in named}:
        there = set(known(program))
        assert not {(option, page) for other, option, page in named if other == program and option not in there}


def test_changes_are_of_sizes_data_device_and_length() -> None:
    arguments = ["data", "--arch", "xgpt_base", "--fp16", "--lr", "1e-5"]
    assert docs_programs.changed("fairseq-train", arguments)[:5] == ["data", "--arch", "xgpt_base", "--lr", "1e-5"]
    assert docs_programs.changed("xgpt-info", ["photo.jpg"]) == ["photo.jpg"]
    assert all(change.why for changes in docs_programs.CHANGES.values() for change in changes)
