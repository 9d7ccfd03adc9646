"""The paper's tables: their rows, and runs of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.programs import ROOT, SMALL, run
from tests.preloaded import python
from tests.scripts import example
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments.program import run_quickstart
from xgpt_fairseq.experiments.runs import Node, Runner
from xgpt_fairseq.models.xgpt import SHARING_LAYERS

ablations = example("ablations/ablations.py")
table7 = example("retrieval_augmentation/table7.py")
FINETUNE, METRICS, TABLES = ablations.FINETUNE, ablations.METRICS, ablations.TABLES


def test_every_row_is_compared_with_a_row_of_its_table() -> None:
    for table in TABLES.values():
        names = [row.name for row in table.rows]
        assert all(other in names and other != row.name for row in table.rows for other in row.against)
        assert sum(not row.against for row in table.rows) == 1


def test_rows_are_the_papers() -> None:
    rows = TABLES["table2"].rows
    assert rows[0].name == "ic" and rows[4].name == "ic+imlm+ida+tifg" and rows[8].name == "ic+imlm+ida+tifg in domain"
    assert [len(row.stages) for row in rows] == [2] * 5 + [3] * 4
    structures = {row.stages[0].arguments[1] for row in TABLES["table3"].rows}
    assert structures == set(SHARING_LAYERS)
    for table in TABLES.values():
        assert all(len(row.paper) <= len(METRICS) for row in table.rows)
        assert {stage.script for row in table.rows for stage in row.stages} <= set(table.demo)
        assert len({row.name for row in table.rows}) == len(table.rows)
        assert not [row.name for row in table.rows if "," in row.name]  # --rows separates them by commas


def test_unknown_rows_and_seeds_are_named(call_program, tmp_path: Path) -> None:
    outcome = call_program(ablations.main, "table2", "--rows", "ic,itm", "--output", tmp_path)
    assert outcome.status == 1
    assert outcome.error.startswith("--rows: table2 has no row 'itm'; it has: ic, ic+imlm")
    outcome = call_program(ablations.main, "table2", "--seeds", "1,two")
    assert outcome.status == 2 and "'1,two' is no list of numbers such as 1,2,3" in outcome.stderr


def test_an_architecture_of_the_users_is_refused_at_the_papers_scale(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARCH", "xgpt_tiny")
    outcome = call_program(ablations.main, "table3", "--gpus", 0, "--output", tmp_path / "out")
    assert outcome.error == "ARCH=xgpt_tiny is for --scale demo: at the paper's, rows have sizes of their own"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "arguments", "instead"),
    [
        ("SUBSET", "valid", [], "tables are of the split test"),
        ("EPOCHS", "3", ["--scale", "demo", "--data", "d"], "at demo scale ITERATIONS is the length"),
        ("GPUS", "2", ["--scale", "demo"], "--gpus is for tables"),
        ("SEED", "2", [], "--seeds is for tables"),
        ("IN_DOMAIN_DATA", "d", [], "--data is for tables"),
        ("OUT_OF_DOMAIN_DATA", "d", [], "--out-of-domain-data is for tables"),
        ("OUT_OF_DOMAIN_DATA", "data/coco", ["--data", "data/coco"], "--out-of-domain-data is for tables"),
        ("FROM", "text.pt", [], "--start is for tables"),
        ("CHECKPOINTS", "runs", [], "--output is for tables"),
        ("OBJECTIVES", "ic", ["--scale", "demo"], "rows have objectives of their own"),
    ],
)
def test_variables_that_a_table_would_ignore_are_refused(
    call_program, monkeypatch: pytest.MonkeyPatch, name: str, value: str, arguments: list[str], instead: str
) -> None:
    """Before the quickstart, and the first training."""
    monkeypatch.setattr(ablations, "run_quickstart", lambda *_, **__: pytest.fail("the quickstart was run"))
    monkeypatch.setattr(ablations, "run_table", lambda *_, **__: pytest.fail("a training was begun"))
    monkeypatch.setenv(name, value)
    outcome = call_program(ablations.main, "table2", "--gpus", 0, *arguments)
    assert outcome.error == f"{name}={value} has no effect here: {instead}"


def test_variables_that_say_what_the_options_say_are_no_matter(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is the SEED of the quickstart, or what no stage of the table reads."""
    monkeypatch.setattr(ablations, "run_quickstart", lambda *_, **__: tmp_path)
    monkeypatch.setattr(ablations, "run_table", lambda *_, **__: None)
    for name, value in {"SUBSET": "test", "GPUS": "0", "FROM": "none", "SEED": "3", "OUT_OF_DOMAIN_DATA": "d"}.items():
        monkeypatch.setenv(name, value)
    for arguments in (["table3", "--scale", "demo"], ["table2", "--seeds", "3", "--out-of-domain-data", "d"]):
        assert call_program(ablations.main, *arguments, "--gpus", 0).status == 0
    monkeypatch.delenv("OUT_OF_DOMAIN_DATA")
    monkeypatch.chdir(tmp_path)
    here, absolute = Path("data/coco"), tmp_path / "data" / "coco"
    for value, options in (
        ("data/coco", []), ("data/coco/", ["--data", here]), (absolute, []), ("data/coco", ["--data", absolute]),
    ):  # fmt: skip
        monkeypatch.setenv("IN_DOMAIN_DATA", str(value))
        assert call_program(ablations.main, "table2", "--seeds", 3, *options, "--gpus", 0).status == 0
    monkeypatch.setenv("OUT_OF_DOMAIN_DATA", "data/cc")  # those of the paper's scale
    assert call_program(ablations.main, "table2", "--seeds", 3, "--gpus", 0).status == 0
    monkeypatch.setenv("OUT_OF_DOMAIN_DATA", "data/coco")  # those of the other scale: --data
    demo = ["--scale", "demo", "--data", "data/coco", "--seeds", 3]
    assert call_program(ablations.main, "table2", *demo, "--gpus", 0).status == 0


@pytest.mark.parametrize(
    ("table", "option", "why"),
    [
        ("features", "--data", "its data directories are those of --features"),
        *((table, "--start", "whose rows are trained from scratch") for table in ("table3", "features")),
        ("table3", "--out-of-domain-data", "whose rows are not pre-trained"),
        ("captions_per_image", "--out-of-domain-data", "whose rows are not pre-trained"),
    ],
)
def test_options_without_effect_are_refused(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, option: str, why: str
) -> None:
    monkeypatch.setattr(ablations, "run_table", lambda *_, **__: pytest.fail("a training was begun"))
    features = ["--features", "a=a", "--features", "b=b"] if table == "features" else []
    outcome = call_program(ablations.main, table, *features, option, tmp_path, "--gpus", 0)
    assert outcome.error.startswith(option) and f"has no effect on {table}" in outcome.error and why in outcome.error


def test_a_table_of_other_runs_stays_where_all_are_refused(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "seed1" / "captions-tiny-enc"
    folder.mkdir(parents=True)
    (folder / "scores-test.json").write_text('{"scores": {"CIDEr": 0.5}, "per_image": {}}')
    (tmp_path / "table3.md").write_text("the table")
    monkeypatch.setattr(Runner, "run", lambda *_: {folder: "other settings"})
    command = [ablations.main, "table3", "--rows", "Tiny Enc", "--seeds", 1, "--gpus", 0, "--output", tmp_path]
    outcome = call_program(*command)
    assert outcome.error == "1 of the stages failed; the first: other settings" and outcome.stdout == ""
    assert (tmp_path / "table3.md").read_text() == "the table"
    monkeypatch.setattr(Runner, "run", lambda *_: {tmp_path / "seed2": "other settings"})
    assert "| Tiny Enc | 1 | 50.0 " in call_program(*command).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["features"], 1, "features compares two or more data directories, --features NAME=DATA each: none"),
        (["features", "--features", "a=x"], 1, "each: --features a"),
        (["features", "--features", "a=x", "--features", "a=y"], 1, "each: --features a --features a"),
        (["features", "--features", "x"], 2, "'x' is not NAME=DATA"),
        (["features", "--features", "a/b=x"], 2, "'a/b=x' is not NAME=DATA"),
        (["table3", "--features", "a=x"], 1, "--features belongs to the table features, not to table3"),
    ],
)
def test_features_that_cannot_be_compared(call_program, arguments: list[str], status: int, message: str) -> None:
    outcome = call_program(ablations.main, *arguments)
    assert outcome.status == status and message in outcome.stderr


def write_images(folder: Path, *images: str) -> Path:
    """A data directory as far as its test images go."""
    folder.mkdir()
    captions = [{"id": n, "image_id": image, "caption": "a"} for n, image in enumerate(images)]
    file = {"images": [{"id": image} for image in images], "annotations": captions}
    (folder / "test.references.json").write_text(json.dumps(file))
    return folder


def test_features_of_other_test_images_are_refused(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before the first training: rows are compared image by image after the last."""
    monkeypatch.setattr(Runner, "run", lambda *_: pytest.fail("a training was begun"))
    a, b = write_images(tmp_path / "a", "1", "2", "3"), write_images(tmp_path / "b", "3", "1")
    for pair, first, second in (((a, b), "a", "b"), ((b, a), "b", "a")):
        arguments = [f"--features={data.name}={data}" for data in pair]
        outcome = call_program(ablations.main, "features", *arguments, "--gpus", 0, "--output", tmp_path / "out")
        assert outcome.error.startswith(
            f"--features {first} and {second}: {b} (b) lacks 1 of the other's test images (2): rows are compared"
        )


def test_features_are_compared_with_the_first(call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each row trains on its own data, with what the table of captions per image has for all."""
    given: list[dict[str, str]] = []
    monkeypatch.setattr(Runner, "_script", lambda self, node, script, variables, arguments: given.append(variables))
    for name in ("a", "b"):
        write_images(tmp_path / name, "1")
    arguments = ["--features", f"a={tmp_path / 'a'}", "--features", f"b={tmp_path / 'b'}"]
    call_program(
        ablations.main, "features", "--scale", "demo", "--seeds", "1", *arguments, "--gpus", 0, "--output", tmp_path
    )
    assert {each["IN_DOMAIN_DATA"] for each in given} == {str(tmp_path / "a"), str(tmp_path / "b")}
    assert {each["ITERATIONS"] for each in given} == {"600"}
    table = ablations.features_table([("a", tmp_path / "a"), ("b", tmp_path / "b"), ("c", tmp_path / "c")])
    assert [row.against for row in table.rows] == [(), ("a",), ("a",)]


def test_a_link_to_data_is_handed_on_as_it_is(call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A data directory may find its regions from the link."""
    given: list[dict[str, str]] = []
    monkeypatch.setattr(Runner, "_script", lambda self, node, script, variables, arguments: given.append(variables))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "data"
    link.symlink_to("elsewhere")
    call_program(
        ablations.main, "table6", "--rows", "multi [MASK]", "--scale", "demo", "--seeds", "1", "--data", "data",
        "--gpus", 0, "--output", "out",
    )  # fmt: skip
    for name in ("IN_DOMAIN_DATA", "OUT_OF_DOMAIN_DATA"):
        assert {each[name] for each in given if name in each} == {str(link)}
    (first, _) = ablations.features_table([("a", Path("data")), ("b", tmp_path)]).rows
    assert first.stages[0].variables == (("IN_DOMAIN_DATA", str(link)),)


def test_a_row_s_own_option_is_that_of_its_pre_training(
    call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the row has one; and fine-tuning has none. (A row that is run to its end is below.)"""
    given: dict[tuple[str, str], list[str]] = {}

    def note(self: Runner, node: Node, script: str, variables: dict[str, str], arguments: list[str]) -> None:
        given[node.stage.name, script] = list(arguments)

    monkeypatch.setattr(Runner, "_script", note)
    rows = ["--rows", "multi [MASK],single [MASK]"]
    call_program(
        ablations.main, "table6", *rows, "--scale", "demo", "--seeds", "1", "--data", tmp_path, "--gpus", 0,
        "--output", tmp_path,
    )  # fmt: skip
    out_of_domain = {name: arguments for (name, script), arguments in given.items() if script.startswith("2_")}
    finetune = [arguments for (_, script), arguments in given.items() if script.startswith("4_")]
    multi, single = out_of_domain["out_of_domain-ic+ida-multi"], out_of_domain["out_of_domain-ic+ida"]
    assert multi[multi.index("--ida-placeholder") + 1] == "multi" and "--ida-placeholder" not in single
    assert finetune and not any("--ida-placeholder" in arguments for arguments in finetune)


def test_a_failing_stage_names_its_log(call_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", python())
    outcome = call_program(
        ablations.main, "table2", "--rows", "ic", "--seeds", "1", "--data", tmp_path / "none", "--output", tmp_path,
        "--scale", "demo",
    )  # fmt: skip
    assert outcome.status == 1
    log = tmp_path / "seed1" / "out_of_domain-ic" / "2_out_of_domain.log"
    assert outcome.error == (
        f"1 of the stages failed; the first: seed 1, out_of_domain-ic: 2_out_of_domain.sh failed; see {log}"
    )
    assert "is not a data directory" in log.read_text()


def test_the_demo_draws_the_quickstart_s_scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = {
        "WORK": str(tmp_path), "TEXT_LINES": "200", "SYMBOLS": "60", "VALID_LINES": "20",
        "SCENES": "--web-train 8 --web-val 2 --train 4 --val 2 --test 2 --unseen 2",
    }  # fmt: skip
    for name, value in tiny.items():
        monkeypatch.setenv(name, value)
    words = ("red", "green", "blue", "small", "large")
    text = "".join(f"a {one} ball is left of a {other} box.\n" for one in words for other in words for _ in words)
    (tmp_path / "text.txt").write_text(text)  # or it would be chosen of all captions of COCO, which takes seconds
    monkeypatch.setattr(sys, "executable", python())
    folder = run_quickstart(ROOT / "examples/quickstart/run.sh", prepare_only=True)
    assert folder == tmp_path and not (tmp_path / "checkpoints").exists()
    assert DataDirectory(folder / "captions").regions.feature_dim == DataDirectory(folder / "web").regions.feature_dim
    drawn = (folder / "scenes" / "dataset_scenes.json").stat().st_mtime_ns
    monkeypatch.setenv("BATCH", "32")  # of the table's stages
    assert run_quickstart(ROOT / "examples/quickstart/run.sh", prepare_only=True) == folder
    assert (folder / "scenes" / "dataset_scenes.json").stat().st_mtime_ns == drawn
    monkeypatch.setenv("SCENES", "--no-such-option")
    monkeypatch.setenv("WORK", str(tmp_path / "other"))
    with pytest.raises(DataError, match="the quickstart's scenes could not be made"):
        run_quickstart(ROOT / "examples/quickstart/run.sh", prepare_only=True)


# tiny sizes and lengths, given as a user gives arguments to every training and variables to the scripts
TINY = ["--", *SMALL, "--layers", "1"]
SHORT = {"ITERATIONS": "4", "VALIDATIONS": "4", "METRICS": "cider,bleu"}


def test_demo_scale_changes_sizes_and_lengths_and_nothing_that_the_recipe_decides() -> None:
    for table in [*TABLES.values(), table7.TABLE7]:
        for variables in table.demo.values():
            assert set(variables) <= {"ITERATIONS", "VALIDATIONS", "BATCH", "GPU_BATCH", "LR", "HARD_POOL"}
    assert all("LR" not in variables for table in TABLES.values() for variables in table.demo.values())


def test_rows_run_from_their_first_stage_to_scores_and_are_not_run_again(tiny_data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, ROOT / "examples/ablations/ablations.py", "table2", "--scale", "demo", "--rows",
        "ic+tifg in domain,ic+tifg", "--seeds", "7", "--data", tiny_data, "--output", tmp_path, "--gpus", "0", *TINY,
    ]  # fmt: skip
    done = run(*command, **SHORT)
    assert "| ic+tifg | 1 |" in done.stdout and "| ic+tifg in domain | 1 |" in done.stdout
    assert done.stdout == (tmp_path / "table2.md").read_text()
    assert (tmp_path / "table2.png").stat().st_size > 5000
    assert done.stderr.count("seed 7, ") == 4 and "seed 7, out_of_domain-ic+tifg > finetune: " in done.stderr
    folder = tmp_path / "seed7/out_of_domain-ic+tifg/in_domain-ic+tifg"
    assert "parameters new: 0" in (folder / "3_in_domain.log").read_text()
    task = load_checkpoint(folder / "captions/in_domain/averaged.pt")["cfg"]["task"]
    assert task["objective_weights"] == "ic=1,tifg=0.3"
    again = run(*command, **SHORT)
    assert "seed 7, " not in again.stderr and again.stdout == done.stdout


@pytest.mark.thorough
def test_structures_run(tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/ablations/ablations.py"]
    common = ["--scale", "demo", "--seeds", "1", "--data", tiny_data, "--gpus", "0", "--output"]
    done = run(*command, "table3", *common, tmp_path / "3", "--rows", "Tiny EncDec", *TINY, **SHORT)
    assert "| Tiny EncDec | 1 |" in done.stdout
    state = load_checkpoint(tmp_path / "3/seed1/captions-tiny-enc-dec/captions/finetune/averaged.pt")["model"]
    assert "decoder.layers.0.cross_attention.qkv.weight" in state


@pytest.mark.thorough
def test_placeholders_run(tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/ablations/ablations.py"]
    common = ["--scale", "demo", "--seeds", "1", "--data", tiny_data, "--gpus", "0", "--output"]
    done = run(*command, "table6", *common, tmp_path / "6", "--rows", "multi [MASK]", *TINY, **SHORT)
    assert "| multi [MASK] | 1 |" in done.stdout
    average = tmp_path / "6/seed1/out_of_domain-ic+ida-multi/out_of_domain/averaged.pt"
    assert str(load_checkpoint(average)["cfg"]["task"]["ida_placeholder"]) == "multi"


def test_a_stopped_table_stops_its_trainings(tiny_data: Path, tmp_path: Path) -> None:
    command = [
        python(), str(ROOT / "examples/ablations/ablations.py"), "table3", "--scale", "demo", "--seeds", "1",
        "--rows", "Tiny Enc", "--data", str(tiny_data), "--output", str(tmp_path), "--gpus", "0", *TINY,
    ]  # fmt: skip
    log = tmp_path / "seed1" / "captions-tiny-enc" / f"{Path(FINETUNE.name).stem}.log"
    environment = {**os.environ, "ITERATIONS": "4000", "VALIDATIONS": "400"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    for _ in range(600):
        if (log.exists() and "Saved checkpoint" in log.read_text()) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert "Saved checkpoint" in log.read_text()  # it was in the midst of its training
    size = log.stat().st_size
    time.sleep(1)
    assert log.stat().st_size == size  # the training has stopped with it
    assert not (tmp_path / "table3.md").exists()
