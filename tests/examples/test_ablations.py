"""The runner of the paper's tables."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ablations
import comparison
import numpy as np
import program
import pytest
import results
import table7
from runs import Node, Runner, Setting, count, devices, folder_of, tree
from tables import FINETUNE, METRICS, TABLES

from tests.end_to_end.programs import ROOT, SMALL, run
from tests.preloaded import python
from xgpt_fairseq.checkpoints import load_checkpoint
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import STRUCTURES


def write_scores(folder: Path, per_image: list[float] | None = None, **scores: float) -> None:
    """Scores of a corpus, and CIDEr of each image where it is compared with another row's."""
    folder.mkdir(parents=True)
    images = {str(n): {"CIDEr": value} for n, value in enumerate(per_image or [scores["CIDEr"]])}
    (folder / "scores-test.json").write_text(json.dumps({"scores": scores, "per_image": images}))


def test_the_table_has_mean_and_spread_of_what_is_finished(tmp_path: Path) -> None:
    rows = TABLES["table2"].rows[:2]
    for seed, cider in ((1, 0.42), (2, 0.46)):
        write_scores(folder_of(rows[0], seed, tmp_path), CIDEr=cider, **{"BLEU@4": 0.125, "METEOR": 0.2})
    write_scores(folder_of(rows[1], 2, tmp_path), CIDEr=0.5)
    scores = results.read_scores(rows, [1, 2, 3], tmp_path)
    assert results.table(rows, scores, "objectives", METRICS).splitlines() == [
        "| objectives | seeds | CIDEr | BLEU@4 | METEOR | SPICE |",
        "|---|---|---|---|---|---|",
        "| ic | 2 | 44.0 ± 2.8 (116.4) | 12.5 ± 0.0 (35.9) | 20.0 ± 0.0 (28.2) | – (21.1) |",
        "| ic+imlm | 1 | 50.0 (117.7) | – (36.2) | – (28.2) | – (21.2) |",
    ]
    results.plot(rows, scores, "objectives", METRICS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_rows_are_compared_image_by_image(tmp_path: Path) -> None:
    single, multi, _ = TABLES["table6"].rows
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0.5, 0.3, size=400)  # of the images: far more than what the rows differ by
    for seed, better in ((1, 0.03), (2, 0.05), (3, 0.04)):
        write_scores(folder_of(multi, seed, tmp_path), list(difficulty), CIDEr=0.5)
        if seed < 3:  # the third is not finished
            noisy = difficulty + better + rng.normal(0, 0.001, size=400)
            write_scores(folder_of(single, seed, tmp_path), list(noisy), CIDEr=0.5)
    (line,) = comparison.comparisons([single, multi], [1, 2, 3], tmp_path).splitlines()[2:]
    assert line.startswith("| single [MASK] less multi [MASK] | 400 | +4.0 [") and line.endswith("| +3.0, +5.0 |")
    assert comparison.comparisons([single], [1, 2, 3], tmp_path) == ""
    assert comparison.comparisons([single, multi], [3], tmp_path) == ""


def test_the_interval_is_of_images_and_seeds() -> None:
    rng = np.random.default_rng(5)

    # where seeds agree, the textbook's interval of a mean of 1 000 images
    of_images = rng.normal(0, 1, size=(1, 1000)).repeat(5, axis=0)
    found = comparison.paired_difference(of_images, np.zeros((5, 1000)))
    assert found.high - found.low == pytest.approx(2 * 1.96 / 1000**0.5, rel=0.1)
    # where images agree, that of all ways to draw five of five seeds
    of_seeds = np.array([1.0, 2, 3, 4, 5])[:, None].repeat(7, axis=1)
    found = comparison.paired_difference(of_seeds, np.zeros((5, 7)))
    assert found.mean == 3 and found.by_seed == (1, 2, 3, 4, 5)
    means = sorted(np.mean(drawn) for drawn in itertools.product([1, 2, 3, 4, 5], repeat=5))
    assert found.low == pytest.approx(means[int(0.025 * len(means))], abs=0.21)
    assert found.high == pytest.approx(means[int(0.975 * len(means))], abs=0.21)


def test_every_row_is_compared_with_a_row_of_its_table() -> None:
    for table in TABLES.values():
        names = [row.name for row in table.rows]
        assert all(other in names and other != row.name for row in table.rows for other in row.against)
        assert sum(not row.against for row in table.rows) == 1


def test_a_plot_of_nothing_is_none(tmp_path: Path) -> None:
    rows = TABLES["table3"].rows
    results.plot(rows, results.read_scores(rows, [1], tmp_path), "structures", METRICS, tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_rows_are_the_papers() -> None:
    rows = TABLES["table2"].rows
    assert rows[0].name == "ic" and rows[4].name == "ic+imlm+ida+tifg" and rows[8].name == "ic+imlm+ida+tifg in domain"
    assert [len(row.stages) for row in rows] == [2] * 5 + [3] * 4
    structures = {row.stages[0].arguments[1] for row in TABLES["table3"].rows}
    assert structures == set(STRUCTURES)
    for table in TABLES.values():
        assert all(len(row.paper) <= len(METRICS) for row in table.rows)
        assert {stage.script for row in table.rows for stage in row.stages} <= set(table.demo)
        assert len({row.name for row in table.rows}) == len(table.rows)


def test_stages_that_rows_share_are_run_once(tmp_path: Path) -> None:
    nodes = tree(TABLES["table2"].rows, 1, output=tmp_path, start="text.pt")
    assert len(nodes) == 5 and count(nodes) == 5 + 4 + 9
    (ida,) = [node for node in nodes if node.stage.name == "out_of_domain-ic+ida"]
    assert ida.start == "text.pt" and set(ida.children) == {"in_domain-ic+ida", "finetune"}
    assert ida.children["finetune"].start == str(tmp_path / "seed1" / ida.stage.name / "out_of_domain" / "averaged.pt")
    last = ida.children["in_domain-ic+ida"].children["finetune"]
    assert last.folder == folder_of(TABLES["table2"].rows[6], 1, tmp_path)
    single, multi, kept = tree(TABLES["table6"].rows, 1, output=tmp_path, start="none")
    assert single.folder == ida.folder and len({single.folder, multi.folder, kept.folder}) == 3
    assert multi.stage.arguments == ("--ida-placeholder", "multi")


def test_what_a_stage_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, *_, base = tree(TABLES["table3"].rows, 2, output=tmp_path, start="none")
    paper = Setting(demo=None, environment={"IN_DOMAIN_DATA": "coco"})
    assert paper.command(tiny) == (
        {"ARCH": "xgpt_tiny", "IN_DOMAIN_DATA": "coco", "SEED": "2"},
        ["--sharing", "enc"],
    )
    assert paper.command(base)[0]["ARCH"] == "xgpt_base"
    demo = Setting(demo=TABLES["table3"].demo, environment={}, arguments=["--tensorboard-logdir", "runs"])
    assert demo.command(tiny)[1][-4:] == ["--layers", "2", "--tensorboard-logdir", "runs"]
    assert "--layers" not in demo.command(base)[1]
    lengths = TABLES["table3"].demo[FINETUNE]
    assert demo.command(base)[0].items() >= lengths.items()
    monkeypatch.setenv("ITERATIONS", "7")
    monkeypatch.setenv("BATCH", "32")
    changed, _ = demo.command(base)
    assert (changed["ITERATIONS"], changed["BATCH"], changed["ARCH"]) == ("7", "32", "xgpt_demo")
    (pretrain, *_) = tree(TABLES["table2"].rows[4:], 2, output=tmp_path, start="none")
    assert paper.command(pretrain)[0]["OBJECTIVES"] == "ic,imlm,ida,tifg"


def test_runs_share_the_gpus_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices(gpus=5, gpus_per_run=2, jobs=None) == [
        {"GPUS": "2", "CUDA_VISIBLE_DEVICES": "0,1"},
        {"GPUS": "2", "CUDA_VISIBLE_DEVICES": "2,3"},
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in devices(gpus=2, gpus_per_run=1, jobs=None)] == ["4", "7"]
    assert len(devices(gpus=2, gpus_per_run=1, jobs=1)) == 1
    with pytest.raises(DataError, match="--gpus-per-run 4, but there are 2 GPUs"):
        devices(gpus=2, gpus_per_run=4, jobs=None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert devices(gpus=0, gpus_per_run=1, jobs=2) == [{"GPUS": "0", "OMP_NUM_THREADS": "4"}] * 2
    assert devices(gpus=0, gpus_per_run=1, jobs=None) == [{"GPUS": "0", "OMP_NUM_THREADS": "1"}] * 8


class Fake(Runner):
    """Stages that leave their average, but for one that fails."""

    def __init__(self, at_once: int, broken: str = "") -> None:
        super().__init__(Setting(demo={}, environment={}), [{"GPUS": "0"}] * at_once)
        self.setting = Setting(demo=None, environment={})
        self.broken, self.started = broken, []

    def _script(self, node: Node, script: str, variables, arguments) -> None:
        assert node.is_root or Path(node.start).is_file()  # the stage before is done
        if script == "5_caption.sh":
            scores = {"scores": {"CIDEr": 0.5}, "per_image": {"1": {"CIDEr": 0.5}}}
            (node.folder / "scores-test.json").write_text(json.dumps(scores))
            return
        self.started.append((node.seed, node.stage.name))
        if node.stage.name == self.broken:
            raise DataError("it broke")
        node.average.parent.mkdir(parents=True, exist_ok=True)
        (node.average.parent / "checkpoint_best.pt").touch()
        node.average.touch()


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_stage_runs_after_the_one_before_and_only_once(at_once: int, tmp_path: Path) -> None:
    rows = TABLES["table2"].rows
    nodes = [node for seed in (1, 2) for node in tree(rows, seed, output=tmp_path, start="none")]
    fake = Fake(at_once)
    assert fake.run(nodes) == []
    assert len(fake.started) == 2 * 18
    assert [seed for seed, _ in fake.started][:10] == [1] * 10  # a whole table of one seed first
    assert all(len(found) == 2 for found in results.read_scores(rows, [1, 2], tmp_path).values())
    assert not list(tmp_path.rglob("checkpoint*.pt")) and len(list(tmp_path.rglob("averaged.pt"))) == 36
    assert fake.run(nodes) == [] and len(fake.started) == 2 * 18


def test_a_stage_that_fails_takes_its_rows_alone_with_it(tmp_path: Path) -> None:
    rows = TABLES["table2"].rows
    failed = Fake(2, broken="in_domain-ic+tifg").run(tree(rows, 1, output=tmp_path, start="none"))
    assert failed == ["seed 1, out_of_domain-ic+tifg > in_domain-ic+tifg: it broke"]
    scores = results.read_scores(rows, [1], tmp_path)
    assert [name for name, found in scores.items() if not found] == ["ic+tifg in domain"]


def test_a_stage_of_other_settings_is_refused(tmp_path: Path) -> None:
    nodes = tree(TABLES["table6"].rows[:1], 1, output=tmp_path, start="none")
    Fake(1).run(nodes)
    other = Fake(1)
    other.setting = Setting(demo=None, environment={}, arguments=["--lr", "1"])
    (failed,) = other.run(nodes)
    assert f"{tmp_path / 'seed1' / 'out_of_domain-ic+ida' / 'settings.json'} says" in failed
    assert "other arguments ([], now ['--lr', '1']): use another --output" in failed
    (start,) = Fake(1).run(tree(TABLES["table6"].rows[:1], 1, output=tmp_path, start="text.pt"))
    assert "other start (none, now text.pt)" in start


def test_unknown_rows_and_seeds_are_named(call_program, tmp_path: Path) -> None:
    outcome = call_program(ablations.main, "table2", "--rows", "ic,itm", "--output", tmp_path)
    assert outcome.status == 1
    assert outcome.error.startswith("--rows: table2 has no row 'itm'; it has: ic, ic+imlm")
    outcome = call_program(ablations.main, "table2", "--seeds", "1,two")
    assert outcome.status == 2 and "'1,two' is no list of numbers such as 1,2,3" in outcome.stderr


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
    monkeypatch.setattr(sys, "executable", python())
    folder = program.quickstart(prepare_only=True)
    assert folder == tmp_path and not (tmp_path / "checkpoints").exists()
    assert DataDirectory(folder / "captions").regions.feature_dim == DataDirectory(folder / "web").regions.feature_dim
    monkeypatch.setenv("SCENES", "--no-such-option")  # they are there, and not drawn again
    assert program.quickstart(prepare_only=True) == folder
    monkeypatch.setenv("WORK", str(tmp_path / "other"))
    with pytest.raises(DataError, match="the quickstart's scenes could not be made"):
        program.quickstart(prepare_only=True)


# tiny sizes and lengths, given as a user gives arguments to every training and variables to the scripts
TINY = ["--", *SMALL, "--layers", "1"]
SHORT = {"ITERATIONS": "6", "VALIDATIONS": "6", "METRICS": "cider,bleu"}


def test_demo_scale_changes_sizes_and_lengths_and_nothing_that_the_recipe_decides() -> None:
    for table in [*TABLES.values(), table7.TABLE7]:
        for variables in table.demo.values():
            assert set(variables) <= {"ITERATIONS", "VALIDATIONS", "LR", "HARD_POOL"}
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
    log = (tmp_path / "seed7/out_of_domain-ic+tifg/in_domain-ic+tifg/3_in_domain.log").read_text()
    assert "ic=1,tifg=0.3" in log and "parameters new: 0" in log
    again = run(*command, **SHORT)
    assert "seed 7, " not in again.stderr and again.stdout == done.stdout


def test_structures_and_placeholders_run(tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples/ablations/ablations.py"]
    common = ["--scale", "demo", "--seeds", "1", "--data", tiny_data, "--gpus", "0", "--output"]
    done = run(*command, "table3", *common, tmp_path / "3", "--rows", "Tiny Enc,Tiny EncDec", *TINY, **SHORT)
    assert "| Tiny Enc | 1 |" in done.stdout and "| Tiny EncDec | 1 |" in done.stdout
    state = load_checkpoint(tmp_path / "3/seed1/captions-tiny-enc-dec/captions/finetune/averaged.pt")["model"]
    assert "decoder.layers.0.cross_attention.qkv.weight" in state
    done = run(*command, "table6", *common, tmp_path / "6", "--rows", "multi [MASK]", *TINY, **SHORT)
    assert "| multi [MASK] | 1 |" in done.stdout
    log = (tmp_path / "6/seed1/out_of_domain-ic+ida-multi/2_out_of_domain.log").read_text()
    assert "'ida_placeholder': multi" in log


def test_a_stopped_table_stops_its_trainings_and_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    command = [
        python(), str(ROOT / "examples/ablations/ablations.py"), "table3", "--scale", "demo", "--seeds", "1",
        "--rows", "Tiny Enc", "--data", str(tiny_data), "--output", str(tmp_path), "--gpus", "0", *TINY,
    ]  # fmt: skip
    log = tmp_path / "seed1" / "captions-tiny-enc" / f"{Path(FINETUNE.name).stem}.log"
    environment = {**os.environ, "ITERATIONS": "4000", "VALIDATIONS": "400"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    for _ in range(600):
        if log.exists() and "Saved checkpoint" in log.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    size = log.stat().st_size
    time.sleep(1)
    assert log.stat().st_size == size  # the training has stopped with it
    assert not (tmp_path / "table3.md").exists()
