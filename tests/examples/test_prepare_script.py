"""What 0_prepare.sh refuses before anything is imported, and what it passes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import ROOT
from tests.preloaded import python
from tests.scripts import example

check_captions = example("xgpt_base/check_captions.py")
SCRIPT = ROOT / "examples" / "xgpt_base" / "0_prepare.sh"
TRAIN, VALID = "Train_GCC-training.tsv", "Validation GCC-1.1.0-Validation.tsv"


def prepare(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The script in *folder*, with the programs that are there, if there are any."""
    path = os.pathsep.join([str(folder / "programs"), str(Path(python()).parent), "/usr/bin", "/bin"])
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(["bash", SCRIPT, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A folder with programs that only write down what they were called with, and Conceptual Captions' files."""
    (tmp_path / "programs").mkdir()
    for name in ("xgpt-learn-bpe", "xgpt-prepare-text", "xgpt-import-regions", "xgpt-prepare-captions"):
        program = tmp_path / "programs" / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"open({str(tmp_path / 'calls')!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
        )
        program.chmod(0o755)
    for name in (TRAIN, VALID):
        (tmp_path / name).write_text("".join(f"a caption\thttp://{name[:5]}.com/{n}.jpg\n" for n in range(3)))
    return tmp_path


def recorded(folder: Path, program: str) -> list[list[str]]:
    """The arguments of each call of *program*."""
    if not (folder / "calls").exists():
        return []
    calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    return [arguments for name, *arguments in calls if name == program]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "nothing to prepare: set TEXT, or NAME_REGIONS and NAME_CAPTIONS of CC, COCO or FLICKR30K"),
        ({"CC_CAPTIONS": "cc.tsv"}, "CC needs CC_REGIONS and CC_CAPTIONS, both; one of them is not set"),
        ({"COCO_REGIONS": "coco"}, "COCO needs COCO_REGIONS and COCO_CAPTIONS, both; one of them is not set"),
        ({"CC_SIZES": "cc.json"}, "CC needs CC_REGIONS and CC_CAPTIONS, both; one of them is not set"),
        (
            {"CC_REGIONS": "cc", "CC_CAPTIONS": "cc.tsv"},
            "data/vocabulary is not there, and TEXT, from which it is learned, is not set",
        ),
        (
            {"TEXT": "wiki", "CC_REGIONS": "cc", "CC_CAPTIONS": "train=cc.tsv", "CC_SIZES": "none.json"},
            "CC_SIZES: none.json is not there",
        ),
    ],
)
def test_refused_before_the_import(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "cc.tsv").touch()
    done = prepare(tmp_path, **variables)
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert not (tmp_path / "data").exists()


def test_arguments_are_refused(recorder: Path) -> None:
    """As those of the other scripts, which go to fairseq: they would be dropped without a word."""
    done = prepare(recorder, "--max-missing", "0.3", TEXT="wiki")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --max-missing: 0_prepare.sh takes no arguments, but variables before")
    assert not (recorder / "calls").exists() and not (recorder / "data").exists()


CC = {"TEXT": "wiki", "CC_REGIONS": "cc"}
OPTIONS = "--image-ids crc32 --missing-images skip --max-missing 0.3"


def test_captions_in_several_files_with_options(recorder: Path) -> None:
    """As they are published."""
    done = prepare(recorder, **CC, CC_CAPTIONS=f"{TRAIN} '{VALID}' {OPTIONS} --workers 3", WORKERS="2")
    assert done.returncode == 0, done.stderr
    (call,) = recorded(recorder, "xgpt-prepare-captions")
    expected = ["--workers", "2", "--splits", "train,val", "--missing-images", "error", TRAIN, VALID, *OPTIONS.split()]
    assert call[: len(expected)] == expected
    assert call[len(expected) :][:3] == ["--workers", "3", "--vocabulary"]  # the last wins
    assert call.count("--workers") == 2


def test_captions_that_do_not_fit_are_refused_before_the_import(recorder: Path) -> None:
    done = prepare(recorder, **CC, CC_CAPTIONS=TRAIN)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: CC_CAPTIONS has no captions for split 'valid'; it has"
    )
    assert not (recorder / "calls").exists() and not (recorder / "data").exists()


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (TRAIN, 1, "error: CC_CAPTIONS has no captions for split 'valid'; it has 'train' (3 images): name more files"),
        (VALID, 1, "error: CC_CAPTIONS has no captions for split 'train'; it has 'valid' (3 images)"),
        ("none.tsv", 1, "error: CC_CAPTIONS: none.tsv is not there"),
        (f"{TRAIN} none.tsv {OPTIONS}", 1, "error: CC_CAPTIONS: none.tsv is not there"),
        (f"{TRAIN} --max-missing 0.3", 1, "error: --max-missing needs --missing-images skip"),
        (f"{TRAIN} --output here", 1, "error: CC_CAPTIONS: --output can't be given here"),
        (f"{TRAIN} --mising-images skip", 2, "xgpt-prepare-captions: error: unrecognized arguments: --mising-images"),
        (f"'{TRAIN}", 1, f"error: CC_CAPTIONS: '{TRAIN} cannot be parted into words: No closing quotation"),
        (f"{TRAIN} " * 20, 1, "error: CC_CAPTIONS has no captions for split 'valid'"),  # longer than a name can be
    ],
)
def test_what_is_wrong_with_captions_is_said(
    text: str, status: int, message: str, recorder: Path, call_program: Callable[..., Any], monkeypatch
) -> None:
    monkeypatch.chdir(recorder)
    done = call_program(check_captions.main, "--", "CC_CAPTIONS", text, "train,val", "error")
    assert done.status == status and done.stderr.startswith(message), done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (VALID, [VALID]),  # a file, whose name may have blanks
        (f"val={VALID}", [f"val={VALID}"]),
        (f"{TRAIN} 'val={VALID}' --hold-out val=0.1", [TRAIN, f"val={VALID}", "--hold-out", "val=0.1"]),
        ("-x", ["./-x"]),
    ],
)
def test_a_file_is_one_word(text: str, words: list[str], recorder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recorder)
    Path("-x").touch()
    assert check_captions.words_of("CC_CAPTIONS", text) == words


def test_what_is_prepared_is_not_looked_at_again(recorder: Path) -> None:
    """Its downloads may be gone, where the same command now names more."""
    for name in ("vocabulary", "cc", "coco.regions"):
        (recorder / "data" / name).mkdir(parents=True)
    gone = dict.fromkeys(("CC_REGIONS", "CC_CAPTIONS", "CC_SIZES", "COCO_REGIONS", "COCO_SIZES"), "gone")
    assert prepare(recorder, **{name: gone[name] for name in gone if name.startswith("CC")}).returncode == 0
    assert not (recorder / "calls").exists()
    named = f"train={TRAIN} 'val={VALID}' --splits train,val"
    done = prepare(recorder, **gone, COCO_CAPTIONS=named)
    assert done.returncode == 0, done.stderr
    (call,) = recorded(recorder, "xgpt-prepare-captions")
    assert f"val={VALID}" in call and "data/coco" in call
    assert not recorded(recorder, "xgpt-import-regions")
