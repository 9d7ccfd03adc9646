"""The program `xgpt-curves` as users run it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.pages.test_fonts import only_latin
from tests.preloaded import python
from xgpt_fairseq.cli.curves import main, named_files
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.pages.training_log import TrainingLog


def log(path: Path, updates: list[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"epoch 001:  {at:4d} / 999 loss=6.2, ic_nll_loss=5.6, num_updates={at}, lr=0.0002" for at in updates]
    lines.append(
        f"epoch 001 | valid on 'valid' subset | loss 6 | ic_nll_loss 5.9 | cider 0.12 | num_updates {updates[-1]}"
    )
    path.write_text("\n".join(lines) + "\n")
    return path


def curves(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [python(), "-m", "xgpt_fairseq.cli.curves", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_as_a_program(tmp_path: Path) -> None:
    output = tmp_path / "curves.png"
    done = curves(log(tmp_path / "a" / "train.log", [10, 20, 30, 20, 30]), f"b={log(tmp_path / 'b.log', [5])}",
                  "--output", output)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}\n"
    # one line: not a word of the libraries
    assert done.stderr == "train: went back from update 30 (a resumed run): from 20 on, the later lines count\n"
    with Image.open(output) as image:
        assert image.width > 1000 and image.height > 1000
        assert image.convert("L").getextrema() == (0, 255)


def test_captions_that_no_font_has_are_left_out(tmp_path: Path, call_program, monkeypatch: pytest.MonkeyPatch) -> None:
    only_latin(monkeypatch)
    captions = {"valid": {"7": {1: "一", 2: "一只"}}}
    found = TrainingLog(Path("a.log"), steps={"ic_nll_loss": {1: 5.0, 2: 4.0}}, captions=captions)
    monkeypatch.setattr("xgpt_fairseq.cli.curves.read_training_log", lambda _: found)
    done = call_program(main, "a.log", "--output", tmp_path / "curves.png")
    assert done.status == 0
    assert done.stderr == (
        "captions are left out of which no installed font has all characters, such as '一'; Noto Sans has, or, for "
        "Chinese, Japanese and Korean, Noto Sans CJK\n"
    )


def test_nothing_is_overwritten_unasked(tmp_path: Path, call_program) -> None:
    output = tmp_path / "curves.png"
    output.write_text("precious")
    refused = call_program(main, log(tmp_path / "train.log", [1]), "--output", output)
    assert refused == (1, "", f"error: {output} exists; give another name or --overwrite\n")
    assert output.read_text() == "precious"


@pytest.mark.parametrize("layout", [[], ["--stages"], ["--overlay"]])
def test_layouts(tmp_path: Path, call_program, layout: list[str]) -> None:
    logs = [log(tmp_path / name / "train.log", [10, 20]) for name in ("one", "two")]
    output = tmp_path / "curves.svg"
    output.write_text("old")
    done = call_program(main, *logs, "--output", output, "--overwrite", *layout)
    assert done == (0, f"{output}\n", "")
    text = output.read_text()
    for name in ("one/train", "two/train"):
        assert f"<!-- {name} -->" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.log", "--output", "c.png"], "nothing.log: cannot be read"),
        (["empty.log", "--output", "c.png"], "empty.log: no training or validation lines"),
        (["a.log", "--output", "c.gif"], "c.gif: curves are drawn as .png, .svg, .pdf"),
        (["a.log", "--output", "nowhere/c.png"], "no folder nowhere"),
        (["a=a.log", "a=a.log", "--output", "c.png"], "two logs are called 'a'; give each another name"),
        (["=a.log", "--output", "c.png"], "'=a.log' is not NAME=LOG"),
        (["a=", "--output", "c.png"], "'a=' is not NAME=LOG"),
        (["a.log", "--output", "c.png", "--at", "1,x"], "--at '1,x': numbers of updates, with commas"),
        (["a.log", "--output", "c.png", "--captions", "-1"], "--captions must be at least 0, got -1"),
        (["a.log", "--output", "c.png", "--captions", "0", "--at", "1"], "--captions 0 shows none"),
    ],
)
def test_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_program, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    log(Path("a.log"), [1])
    Path("empty.log").touch()
    done = call_program(main, *arguments)
    assert done.status == 1
    assert message in done.error
    assert not Path("c.png").exists()


def test_stages_and_overlay_exclude_each_other(call_program) -> None:
    assert call_program(main, "a.log", "--output", "c.png", "--stages", "--overlay").status == 2


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_files(["a/x/train.log", "b/x/train.log", "pre=c/train.log", "other.txt"]) == {
        "a/x/train": Path("a/x/train.log"),
        "b/x/train": Path("b/x/train.log"),
        "pre": Path("c/train.log"),
        "other": Path("other.txt"),
    }
    log(Path("runs/lr=1e-4/train.log"), [1])
    assert named_files(["runs/lr=1e-4/train.log"]) == {"train": Path("runs/lr=1e-4/train.log")}
    assert named_files(["lr=runs/lr=1e-4/train.log"]) == {"lr": Path("runs/lr=1e-4/train.log")}
    with pytest.raises(DataError, match="two logs are called 'a/train'"):
        named_files(["a/train.log", "a/train.log"])


def test_help_has_an_example(call_program) -> None:
    done = call_program(main, "--help")
    assert done.status == 0
    assert "xgpt-curves train.log --output curves.png" in done.stdout
    assert "--stages" in done.stdout and "resumed" in done.stdout
