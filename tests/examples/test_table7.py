"""Table 7: its rows, what they are given, and a run of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.end_to_end.programs import ROOT, SMALL, path, run
from tests.scripts import example
from xgpt_fairseq.experiments.rows import Row
from xgpt_fairseq.experiments.runs import Setting, count, tree

table7 = example("retrieval_augmentation/table7.py")

ROWS = table7.TABLE7.rows


def test_the_rows_go_on_from_one_model(tmp_path: Path) -> None:
    (original,) = tree(ROWS, 1, output=tmp_path, start="captions.pt")
    assert count([original]) == 3 and original.start == "captions.pt"
    longer, augmented = original.children["longer"], original.children["augmented"]
    assert longer.start == augmented.start == str(original.folder / "retrieval" / "averaged.pt")
    setting = Setting(demo=None, environment={"ORIGINAL_DATA": "a", "AUGMENTED_DATA": "b"})
    commands = [setting.command(node) for node in (longer, augmented)]
    assert [variables.pop("TRAIN_ON") for variables, _ in commands] == ["original", "augmented"]
    assert commands[0] == commands[1]  # as many updates on both

    def gains(better: Row, worse: Row) -> list[float]:
        return [round(a - b, 1) for a, b in zip(better.paper, worse.paper, strict=True)]

    assert gains(ROWS[2], ROWS[0]) == [2.2, 1.5, 0.4]  # section 6.1


def test_an_update_of_the_demo_has_16_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in what the README says was measured."""
    for name in ("BATCH", "GPU_BATCH", "ITERATIONS"):
        monkeypatch.delenv(name, raising=False)
    (node,) = tree(ROWS, 1, output=tmp_path, start="captions.pt")
    demo = Setting(demo=table7.TABLE7.demo, environment={})
    variables, _ = demo.command(node)
    assert (variables["BATCH"], variables["GPU_BATCH"], variables["ITERATIONS"]) == ("16", "16", "300")
    monkeypatch.setenv("BATCH", "32")  # the user's own wins
    assert demo.command(node)[0]["BATCH"] == "32"


def test_the_columns_are_percent_but_for_ranks() -> None:
    found = {"R@1": 0.25, "R@5": 0.5, "R@10": 0.75, "median_rank": 4.0}
    columns = table7.recall_scores({"image_retrieval": found, "caption_retrieval": {**found, "R@1": 0.5}})
    assert tuple(columns) == table7.METRICS
    assert columns["image R@1"] == 25 and columns["caption R@1"] == 50 and columns["image median rank"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "paper"], "--start FILE: name a checkpoint"),
        (["--start", "none", "--data", "d"], "data/flickr30k-augmented is not there: xgpt-augment d --path CHECKPOINT"),
        (["--scale", "demo", "--start", "none", "--data", "d"], "--captioner FILE: name a checkpoint that generates"),
        (["--cpu-bf16", "--gpus", "2"], "--cpu-bf16 is for CPUs (--gpus 0); on GPUs training is in float16"),
        (["--captioner", "c.pt"], "--captioner has no effect without --scale demo: it is of the captions that are"),
        (["--regions", "r"], "--regions has no effect without --scale demo"),
        (["--per-image", "2.1"], "--per-image has no effect without --scale demo"),
        (
            ["--scale", "demo", "--augmented-data", "a", "--per-image", "3"],
            "--per-image has no effect with --augmented",
        ),
        (["--rows", "vilbert"], "--rows: table7 has no row 'vilbert'; it has: people's captions, people's"),
    ],
)
def test_what_is_missing_is_named(
    call_program, tmp_path: Path, monkeypatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_program(table7.main, *arguments).error.startswith(message)


def test_variables_that_the_table_would_ignore_are_refused(call_program, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, option in (("ORIGINAL_DATA", "--data"), ("SPLITS", "--splits"), ("FROM", "--start")):
        with monkeypatch.context() as patch:
            patch.setenv(name, "other")
            outcome = call_program(table7.main, "--gpus", 0)
        assert outcome.error == f"{name}=other has no effect here: {option} is for tables"


def test_generated_captions_of_other_options_are_not_taken(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In OUTPUT/augmented, of an earlier run: how many, and whose, is compared."""
    ran: list[str] = []
    monkeypatch.setattr(table7, "run_table", lambda *_, **options: ran.append(options["environment"]["AUGMENTED_DATA"]))
    monkeypatch.setattr(table7, "augment", lambda *_: pytest.fail("captions were generated"))
    # of a file's text, in place of a model's parameters
    monkeypatch.setattr(table7.XGPTHubInterface, "from_path", lambda path, **_: path.read_text())
    monkeypatch.setattr(table7, "model_crc32", lambda text: f"crc of {text}")
    (tmp_path / "augmented").mkdir()
    file = tmp_path / "augmented" / "augmentation.json"
    file.write_text(json.dumps({"model_crc32": "crc of first", "options": {"per_image": 2.1}}))
    for name in ("first", "second"):
        (tmp_path / f"{name}.pt").write_text(name)

    def again(*options: object, start: str = "first.pt") -> str:
        ran.clear()
        done = call_program(
            table7.main, "--scale", "demo", "--data", tmp_path, "--start", tmp_path / start, "--output", tmp_path,
            "--gpus", 0, *options,
        )  # fmt: skip
        assert (done.status == 0) == (ran == [str(tmp_path / "augmented")]), done.stderr
        return "" if done.status == 0 else done.error

    assert again() == again("--per-image", 2.1) == again("--captioner", tmp_path / "first.pt") == ""
    assert again(start="gone.pt") == ""  # the checkpoint was removed since
    instead = "use another --output, or remove the folder"
    assert again("--per-image", 3) == f"{file} says that --per-image was 2.1, now 3: {instead}"
    other = tmp_path / "second.pt"
    for said in (again("--captioner", other), again(start="second.pt")):
        assert said == f"{file} says that another model than {other} generated the captions: {instead}"
    assert again("--captioner", other, "--rows", "people's captions") == ""  # which needs none
    file.write_text("{}")
    assert (
        again()
        == f"{file} does not say how the captions were generated: KeyError('options'); --augmented-data takes it"
    )


def test_links_to_data_are_handed_on_as_they_are(call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A data directory may find its regions from the link."""
    given: dict[str, str] = {}
    monkeypatch.setattr(table7, "run_table", lambda *_, **options: given.update(options["environment"]))
    monkeypatch.chdir(tmp_path)
    for name in ("people", "both"):
        (tmp_path / f"{name}-elsewhere").mkdir()
        (tmp_path / name).symlink_to(f"{name}-elsewhere")
    arguments = ["--data", "people", "--augmented-data", "both", "--start", "none", "--gpus", 0]
    assert call_program(table7.main, *arguments).status == 0
    assert (given["ORIGINAL_DATA"], given["AUGMENTED_DATA"]) == (str(tmp_path / "people"), str(tmp_path / "both"))


def test_the_captioner_s_regions_are_handed_on(call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To what generates captions, and to what compares its model with that of an earlier run."""
    monkeypatch.setattr(table7, "run_table", lambda *_, **options: None)
    monkeypatch.setattr(
        table7.subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(returncode=0)
    )
    commands: list[list[str]] = []
    arguments = ["--scale", "demo", "--data", tmp_path, "--start", tmp_path / "a.pt", "--output", tmp_path, "--gpus", 0]
    for options in ((), ("--regions", tmp_path / "store")):
        assert call_program(table7.main, *arguments, *options).status == 0
        assert commands[-1][-2:] == [str(part) for part in options or ("--output", tmp_path / "augmented")]
    (tmp_path / "augmented").mkdir()
    report = {"model_crc32": "crc", "options": {"per_image": 2.1}}
    (tmp_path / "augmented" / "augmentation.json").write_text(json.dumps(report))
    (tmp_path / "a.pt").touch()
    monkeypatch.setattr(table7, "model_crc32", lambda _: "crc")
    opened: list[object] = []
    monkeypatch.setattr(table7.XGPTHubInterface, "from_path", lambda _, **given: opened.append(given))
    assert call_program(table7.main, *arguments, "--regions", tmp_path / "store").status == 0
    assert opened == [{"data": tmp_path, "regions": tmp_path / "store"}]


def recorded(program: str, folder: Path, *, status: int) -> dict[str, str]:
    """An environment in which *program* says its arguments; other programs are those of this Python's environment."""
    recorder = folder / program
    recorder.write_text(f'#!/bin/sh\necho "$@"\nexit {status}\n')
    recorder.chmod(0o755)
    return {**os.environ, "PATH": os.pathsep.join([str(folder), path()])}


def test_a_script_trains_on_what_it_is_told(tmp_path: Path) -> None:
    environment = {
        **recorded("fairseq-train", tmp_path, status=1), "ORIGINAL_DATA": "people", "AUGMENTED_DATA": "both",
        "CHECKPOINTS": str(tmp_path), "FROM": "none", "GPUS": "4", "SEED": "3",
    }  # fmt: skip
    for data, captions in (("people", 145_000), ("both", 206_000)):
        (tmp_path / data).mkdir()
        (tmp_path / data / "dataset.json").write_text(json.dumps({"splits": {"train": {"captions": captions}}}))
    for train_on, data in (("original", "people"), ("augmented", "both")):
        script = ["bash", ROOT / "examples/retrieval_augmentation/retrieval.sh", "--lr", "1"]
        done = subprocess.run(
            script, env={**environment, "TRAIN_ON": train_on}, cwd=tmp_path, capture_output=True, text=True
        )
        said = done.stdout.split()
        assert said[0] == data and said[-2:] == ["--lr", "1"]
        # 20 passes, 64 captions an update on 4 GPUs
        passes = {"people": 45_313, "both": 64_375}
        assert said[said.index("--max-update") + 1] == str(passes[data])
        assert said[said.index("--batch-size") + 1] == "16" and said[said.index("--update-freq") + 1] == "1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GPUS": "0"}, ["--device", "cpu"]),
        ({"GPUS": "0", "PRECISION": "--cpu-bf16"}, ["--device", "cpu", "--cpu-bf16"]),
        ({"GPUS": "4"}, ["--fp16"]),
        ({"GPUS": "4", "PRECISION": "--bf16"}, ["--bf16"]),
        ({"GPUS": "4", "PRECISION": ""}, []),
    ],
)
def test_recall_is_computed_in_the_precision_of_training(
    environment: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    variables = {"CHECKPOINT": "x.pt", "ORIGINAL_DATA": "d", "OUT": "out", **environment}
    script = ["bash", ROOT / "examples/retrieval_augmentation/recall.sh", "--batch-size", "8"]
    said = subprocess.run(
        script,
        env={**recorded("xgpt-evaluate", tmp_path, status=0), **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[said.index("--overwrite") + 1 :] == [*expected, "--batch-size", "8"]


def test_a_row_runs(tiny_data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, ROOT / "examples/retrieval_augmentation/table7.py", "--scale", "demo", "--data", tiny_data,
        "--start", "none", "--seeds", "3", "--output", tmp_path, "--gpus", "0", "--splits", "valid,test",
        "--rows", "people's captions", "--", *SMALL, "--layers", "1",
    ]  # fmt: skip
    done = run(*command, ITERATIONS="4", VALIDATIONS="4")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| people's captions")]
    assert "(58.2)" in line and "–" not in line
    assert done.stdout == (tmp_path / "table7.md").read_text()
    assert (tmp_path / "table7.png").stat().st_size > 5000
    scores = json.loads((tmp_path / "seed3/original/scores-test.json").read_text())
    assert scores["splits"] == ["valid", "test"] and scores["data"] == str(tiny_data)
