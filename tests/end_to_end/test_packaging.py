"""What is published: the version, the citation, the wheel and its recipes, the file of the container."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import yaml

import xgpt_fairseq
from tests.archives.layouts import LAYOUTS, made_up
from tests.conftest import TINY_IMAGES
from tests.end_to_end.programs import ROOT, SMALL, path, run
from xgpt_fairseq.cli.recipe import files

CONTAINER = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def copied() -> list[str]:
    """The files and folders of the checkout that the container's file copies."""
    lines = re.findall(r"^COPY ((?!--from).+) \S+$", CONTAINER, re.MULTILINE)
    return [name for line in lines for name in line.split()]


@pytest.fixture(scope="module")
def wheel(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The wheel, built as in the container: of the files that it copies, and no others."""

    def make(folder: Path) -> None:
        for name in copied():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "output"))
            else:
                shutil.copy(ROOT / name, folder / name)
        command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "."]
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Deprecat" not in done.stderr

    [built] = (once("wheel", make) / "wheels").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder for PYTHONPATH, into which the wheel is installed."""

    def make(site: Path) -> None:
        command = ["pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True)

    return once("site", make)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode("utf-8"))


def test_the_version_is_in_one_place(wheel: Path) -> None:
    about = metadata(wheel)
    assert about["Version"] == xgpt_fairseq.__version__
    assert xgpt_fairseq.__version__ not in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert (about["License-Expression"], about["License-File"]) == ("MIT", "LICENSE")
    assert not any(line.startswith("License ::") for line in about.get_all("Classifier", []))


def test_the_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"] and citation["title"]
    assert citation["version"] == xgpt_fairseq.__version__
    paper = citation["preferred-citation"]
    assert len(paper["authors"]) == 9 and "2003.01473" in paper["url"]
    assert citation["references"] == [paper]


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = ROOT / "xgpt_fairseq"
    own = {
        str(file.relative_to(ROOT))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and package / "recipes" not in file.parents
    }
    recipes = {f"xgpt_fairseq/recipes/{file.relative_to(ROOT / 'examples')}" for file in files(ROOT / "examples")}
    assert found == own | recipes
    assert {"xgpt_fairseq/py.typed", "xgpt_fairseq/released/model.safetensors"} <= own


def test_a_recipe_of_the_installed_package(installed: Path, tmp_path: Path) -> None:
    """It is the checkout's, and runs outside the checkout, with the installed plugin."""
    # the checkout is neither in PYTHONPATH nor where it is run
    environment = {**os.environ, "PYTHONPATH": str(installed), "PATH": path(), "GPUS": "0", "BATCH": "8"}

    def call(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    written = call(sys.executable, "-m", "xgpt_fairseq.cli.recipe", "quickstart", "--output", "q")
    assert written.returncode == 0, written.stderr
    for name in ("quickstart", "real_photos", "xgpt_base"):
        for file in files(ROOT / "examples" / name):
            copy = tmp_path / "q" / file.relative_to(ROOT / "examples")
            assert copy.read_bytes() == file.read_bytes()
    found = call("bash", "-c", '. q/xgpt_base/settings.sh; echo "$USER_DIR"')
    assert found.stdout == f"{installed / 'xgpt_fairseq'}\n", found.stderr
    # through fairseq-train to the plugin, which finds no data
    stage = call("bash", "q/xgpt_base/1_text.sh")
    assert stage.returncode != 0 and "data/text is not a data directory" in stage.stderr.splitlines()[-1]
    stage = call("bash", "q/xgpt_base/4_finetune.sh")
    assert stage.returncode != 0 and "in_domain/averaged.pt is not there: run the stage before" in stage.stderr
    assert call("bash", "q/real_photos/run.sh", "none").stderr == "error: none is not a folder\n"


def test_works_as_an_installed_package(installed: Path, tiny_captions: Path, tmp_path: Path) -> None:
    """Import, preparation, training, scores and captions by the package's programs, outside the checkout."""
    site = installed

    def programs(*commands):
        """One program after the other, in one process."""
        calls = [f"import {name}; {name}.main({[*map(str, given)]})" for name, *given in commands]
        program = "\n".join(call.replace("import", "from xgpt_fairseq.cli import", 1) for call in calls)
        return run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(site))

    where = run(
        sys.executable, "-c", "import xgpt_fairseq, os; print(os.path.dirname(xgpt_fairseq.__file__))",
        cwd=tmp_path, PYTHONPATH=str(site),
    ).stdout.strip()  # fmt: skip
    assert Path(where) == site / "xgpt_fairseq"
    shipped = {path.name for path in (site / "xgpt_fairseq" / "pages" / "templates").iterdir()}
    assert shipped >= {"captioning.html", "gallery.css", "page.html", "page_view.js", "anywhere.js"}
    scripts = {path.name for path in (site / "bin").iterdir()}
    assert scripts >= {
        "xgpt-import-regions", "xgpt-extract-regions", "xgpt-learn-bpe", "xgpt-prepare-text", "xgpt-prepare-captions",
        "xgpt-caption-text", "xgpt-caption", "xgpt-evaluate",
    }  # fmt: skip

    images = [made_up(number) for number, *_ in TINY_IMAGES]
    source = LAYOUTS["butd-tsv"].write(tmp_path / "archive", images)
    programs(
        ("import_regions", source, "--output", "regions"),
        ("learn_bpe", "--input", tiny_captions, "--output", "vocabulary", "--symbols", 60),
        ("prepare_captions", tiny_captions, "--vocabulary", "vocabulary", "--regions", "regions", "--output", "data"),
    )
    result = run(
        "fairseq-train", "data", "--user-dir", where, "--task", "xgpt_caption", "--arch", "xgpt_demo", *SMALL,
        "--criterion", "xgpt", "--optimizer", "adam", "--lr", "1e-3", "--batch-size", "16", "--cpu",
        "--max-update", "1", "--save-dir", "checkpoints",
        cwd=tmp_path, PYTHONPATH=str(site),
    )  # fmt: skip
    checkpoint = tmp_path / "checkpoints" / "checkpoint_last.pt"
    assert checkpoint.exists(), result.stdout[-2000:]
    programs(
        ("export", checkpoint, "--output", "bundle"),
        ("caption", "regions", "--path", "bundle", "--json", "captions.json", "--max-len", 8),
    )
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert len(captions) == len(images) and all(each["caption"] is not None for each in captions)


def test_the_container_copies_what_is_there_and_what_is_not_ignored() -> None:
    names = [*copied(), "constraints.txt"]
    assert len(names) == len(set(names)) + 1 == 8  # constraints.txt is copied, too
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8")
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8") == ignored
    for name in names:
        assert (ROOT / name).exists() and f"!{name}\n" in ignored


def test_the_container_runs_programs_that_exist() -> None:
    assert "ENTRYPOINT" not in CONTAINER and re.search(r"^USER (?!root)\w+$", CONTAINER, re.MULTILINE)
    commands = [part for line in re.findall(r"^RUN (.+)$", CONTAINER, re.MULTILINE) for part in line.split(" && ")]
    assert {shlex.split(command)[0] for command in commands} == {"pip", "useradd", "mkdir", "chown"}
    [program] = re.findall(r'^CMD \["([\w-]+)"', CONTAINER, re.MULTILINE)
    assert f'"{program} = ' in (ROOT / "setup.py").read_text(encoding="utf-8")
