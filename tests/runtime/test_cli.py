"""`xgpt-caption-lite` beside `xgpt-caption`: the same lines, files and errors, without torch."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, Outcome
from tests.test_hub_interface import draw
from xgpt_fairseq.cli import caption
from xgpt_fairseq.cli import parser as product_parser
from xgpt_runtime import cli, parser


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos in two folders, one of noise, a text file and a photo that is cut."""
    path = tmp_path_factory.mktemp("photos") / "holiday"
    (path / "more").mkdir(parents=True)
    draw(path)
    noise = np.random.default_rng(5).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path / "noise.png")
    Image.fromarray(noise[::-1]).save(path / "more" / "1.png")
    (path / "notes.txt").write_text("bread, milk")
    (path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    return path


@pytest.fixture
def both(
    call_program: Callable[..., Any], tiny_bundle: Path, lite_folder: Path
) -> Callable[..., tuple[Outcome, Outcome]]:
    """both(*arguments): what xgpt-caption and xgpt-caption-lite do with the same captioner."""

    def call(*arguments: object) -> tuple[Outcome, Outcome]:
        theirs = call_program(caption.main, *arguments, "--path", tiny_bundle)
        return theirs, call_program(cli.main, *arguments, "--path", lite_folder)

    return call


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--beam", 5],
        ["--beam", 1, "--max-len", 4],
        ["--no-repeat-ngram-size", 1, "--batch-size", 2],
        ["--no-early-stop", "--lenpen", 2],
    ],
    ids=str,
)
def test_a_folder_is_captioned_as_by_xgpt_caption(both: Callable[..., Any], photos: Path, options: list[Any]) -> None:
    theirs, ours = both(photos, *options)
    assert ours.status == 0 and ours.stdout == theirs.stdout and ours.stdout.count("\n") == 9
    assert sorted(ours.stderr.splitlines()) == sorted(theirs.stderr.splitlines())
    assert f"not read: {photos / 'notes.txt'}: not a photo" in ours.stderr
    assert "looks unlike the images that the model was trained on (distance" in ours.stderr


def test_the_json_is_that_of_xgpt_caption(
    call_program: Callable[..., Any], tiny_bundle: Path, lite_folder: Path, photos: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text(f"{photos / '0.png'}\n\n{photos}\n")
    for program, path, name in ((caption.main, tiny_bundle, "theirs"), (cli.main, lite_folder, "ours")):
        assert call_program(program, "--list", names, "--path", path, "--json", tmp_path / name).status == 0
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert {each["image_id"] for each in json.loads((tmp_path / "ours").read_text())} >= {"0", "1", "more/1", "noise"}


def test_names_that_would_break_a_line(both: Callable[..., Any], lite_folder: Path, tmp_path: Path) -> None:
    for name in ("a\tb.png", "a\nb.png", "a\\b.png", "a\x1b[31m.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    (tmp_path / "no\nphoto").write_text("bread")
    theirs, ours = both(tmp_path)
    assert ours.status == 0 and ours.stdout == theirs.stdout and len(ours.stdout.splitlines()) == 4
    assert f"not read: {tmp_path}/no\\nphoto: not a photo" in ours.stderr
    (tmp_path / "a\tb.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))  # no UTF-8
    command = [sys.executable, "-m", "xgpt_runtime.cli", tmp_path, "--path", lite_folder, "--json", tmp_path / "c.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0 and b"/caf\xe9.png\t" in done.stdout, done.stderr
    named = {os.fsencode(Path(each["file"]).name) for each in json.loads((tmp_path / "c.json").read_text("utf-8"))}
    assert b"caf\xe9.png" in named and b"a\nb.png" in named


def test_output_to_a_file_is_utf_8_whatever_the_code_page(lite_folder: Path, photos: Path, tmp_path: Path) -> None:
    """As under Windows; a caption may have words that the code page lacks, too."""
    photo = tmp_path / "фото.png"
    photo.write_bytes((photos / "0.png").read_bytes())
    command = [sys.executable, "-m", "xgpt_runtime.cli", photo, "--path", lite_folder, "--json", tmp_path / "c.json"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith(f"{photo}\t".encode()), done.stderr
    assert [Path(each["file"]) for each in json.loads((tmp_path / "c.json").read_text("utf-8"))] == [photo]


def test_names_that_the_system_refuses(both: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    """They are files that can't be read; the others are captioned."""
    refused = [tmp_path / f"{'long' * 99}.{kind}" for kind in ("jpg", "tar", "parquet")]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(map(str, (photos / "0.png", *refused, photos / "1.png"))))
    theirs, ours = both("--list", names)
    assert ours.status == theirs.status == 0 and ours.stdout == theirs.stdout and ours.stdout.count("\n") == 2
    assert sorted(ours.stderr.splitlines()) == sorted(theirs.stderr.splitlines())
    for file in refused:
        assert f"not read: {file}: File name too long" in ours.stderr
    for each in both("--list", names, "--jsonl", tmp_path / "c", "--overwrite"):
        assert each.status == 0 and each.stdout.endswith(f"2 of 5 images captioned: {tmp_path / 'c'}\n"), each


MISTAKES: dict[str, list[Any]] = {
    "nothing is there": ["gone.jpg"],
    "an empty folder": ["empty"],
    "a beam of none": ["empty", "--beam", 0],
    "no batch": ["empty", "--batch-size", -1],
    "a length penalty that is no number": ["empty", "--lenpen", "nan"],
    "a length penalty that leads to none": ["empty", "--lenpen", -1000],
    "no length": ["empty", "--max-len", 0],
    "n-grams below none": ["empty", "--no-repeat-ngram-size", -1],
    "a list that is not there": ["--list", "gone.txt"],
    "a list of nothing": ["--list", "nothing.txt"],
    "a photo as a list": ["--list", "0.png"],
    "a file that is there": ["empty", "--json", "nothing.txt"],
    "a folder for the captions": ["empty", "--json", "empty"],
    "no folder for the captions": ["empty", "--json", "gone/captions.json"],
    "no folder for the lines": ["0.png", "--jsonl", "gone/captions.jsonl"],
    "captions over a photo": ["0.png", "--json", "0.png", "--overwrite"],
    "two photos of one id": ["same", "--json", "captions.json"],
    "one that is not read, strictly": ["0.png", "text.jpg", "--strict"],
    "about and photos": ["0.png", "--about"],
    "about and a file": ["--about", "--json", "captions.json"],
    "about and how to caption": ["--about", "--beam", 3, "--strict"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_have_the_same_line(
    both: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "same").mkdir()
    (tmp_path / "nothing.txt").write_text("\n")
    (tmp_path / "text.jpg").write_text("no photo")
    for copy in ("0.png", "same/01.png", "same/1.png"):
        (tmp_path / copy).write_bytes((photos / "0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    theirs, ours = both(*MISTAKES[name])
    assert ours.status == theirs.status == 1
    wording = "--about prints what the captioner is; it captions nothing: leave photos"
    assert ours.error == theirs.error or (ours.error.startswith(wording) and theirs.error.startswith(wording))
    assert not (tmp_path / "captions.json").exists() and not (tmp_path / "gone").exists()


def test_output_that_nobody_can_write_and_kill(lite_folder: Path, photos: Path, tmp_path: Path) -> None:
    """In processes of their own: a full disk is a line, `kill` 143, Ctrl-C 130, and nothing is left behind."""
    command = [sys.executable, "-m", "xgpt_runtime.cli", photos, "--path", lite_folder]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
        assert done.returncode == 1 and done.stderr.endswith(
            "error: the output cannot be written: No space left on device\n"
        )
    many = tmp_path / "many"
    many.mkdir()
    for number in range(2000):
        (many / f"{number}.png").symlink_to(photos / "0.png")
    for end, status, last in ((signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "interrupted\n")):
        options = [many, *command[4:], "--json", tmp_path / "captions.json", "--batch-size", 1]
        started = subprocess.Popen(
            [*command[:3], *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert started.stdout is not None and started.stdout.readline()
        started.send_signal(end)
        _, said = started.communicate()
        assert started.returncode == status and said.endswith(last) and "Traceback" not in said, said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["many"]


def test_options_are_read_by_the_same_code(call_program: Callable[..., Any]) -> None:
    assert inspect.getsource(parser.Parser) == inspect.getsource(product_parser.Parser)
    done = call_program(cli.main, "photos", "--beams", "3")
    expected = "unrecognized arguments: --beams 3 (did you mean --beam?)\nxgpt-caption-lite --help lists all options\n"
    assert done.status == 2 and done.stderr == f"xgpt-caption-lite: error: {expected}"


def test_about(call_program: Callable[..., Any], tiny_bundle: Path, lite_folder: Path) -> None:
    theirs = call_program(caption.main, "--about", "--path", tiny_bundle).stdout.splitlines()
    ours = call_program(cli.main, "--about", "--path", lite_folder).stdout.splitlines()
    assert ours[: theirs.index("")] == theirs[: theirs.index("")] and "It knows nothing else." in ours
    assert any("opset 18, weights stored as float32" in line for line in ours)
    assert any("Apache-2.0" in line for line in ours)


def test_neither_torch_nor_fairseq_is_there(
    tiny_bundle: Path, lite_folder: Path, photos: Path, call_program: Callable[..., Any]
) -> None:
    """In a process of its own, where importing them fails; and all of its modules are imported."""
    program = (
        "import sys, pkgutil, importlib\n"
        "others = ('torch', 'fairseq', 'xgpt_fairseq', 'sacremoses', 'sentencepiece', 'safetensors', 'tqdm')\n"
        "sys.modules.update(dict.fromkeys(others))\n"
        "import xgpt_runtime\n"
        "for module in pkgutil.iter_modules(xgpt_runtime.__path__):\n"
        "    importlib.import_module(f'xgpt_runtime.{module.name}')\n"
        "from xgpt_runtime.cli import main\n"
        "main(sys.argv[1:])\n"
        "assert not any(sys.modules[name] for name in others)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in others and sys.modules[name]]\n"
    )
    files = [photos / f"{number}.png" for number in range(3)]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, files), "--path", str(lite_folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
        cwd=lite_folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == call_program(caption.main, *files, "--path", tiny_bundle).stdout


def test_its_files_need_nothing_but_numpy_onnxruntime_and_pillow() -> None:
    import ast

    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "PIL", "xgpt_runtime"}
    for path in (ROOT / "runtime" / "xgpt_runtime").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_help() -> None:
    program = "from xgpt_runtime.cli import main\nmain(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--no-repeat-ngram-size" in done.stdout


def test_photos_in_tars(both: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    """Of shared names, damaged, linked, hidden and cut; and compressed."""
    from tests.tars import write_tar

    content = (photos / "0.png").read_bytes()
    write_tar(tmp_path / "t" / "a.tar", {"0.png": content, "x/1.png": content, "notes.txt": "no", ".2.png": content})
    write_tar(tmp_path / "t" / "b.tar", {"0.png": b"damaged", "3.png": content})
    write_tar(tmp_path / "t" / "c.tar", {"none.txt": "no photo"})
    whole = (tmp_path / "t" / "b.tar").read_bytes()
    (tmp_path / "t" / "d.tar").write_bytes(whole[:1700])
    (tmp_path / "t" / "e.tar").write_bytes(b"no tar")
    theirs, ours = both(tmp_path / "t", "--json", tmp_path / "c.json", "--overwrite")
    assert ours.status == theirs.status == 0 and ours.stdout == theirs.stdout and ours.stdout.count("\n") == 3
    assert sorted(ours.stderr.splitlines()) == sorted(theirs.stderr.splitlines())
    assert "a tar without members that are named as photos" in ours.stderr and "cut" in ours.stderr
    (tmp_path / "t" / "f.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    theirs, ours = both(tmp_path / "t")
    assert ours.error == theirs.error and "is a compressed tar" in ours.error
