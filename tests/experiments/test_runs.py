"""Which stages run, after which, and with what."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.scripts import example
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.experiments import results
from xgpt_fairseq.experiments.comparison import comparisons
from xgpt_fairseq.experiments.rows import Row, Script, Stage
from xgpt_fairseq.experiments.runs import DECIDING, Node, Runner, Setting, count, devices, folder_of, tree

ablations = example("ablations/ablations.py")
FINETUNE, TABLES = ablations.FINETUNE, ablations.TABLES


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


def test_a_length_of_the_users_wins_over_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not what tells rows apart."""
    monkeypatch.setenv("ITERATIONS", "7")
    monkeypatch.setenv("TRAIN_ON", "nothing")
    (original,) = tree(example("retrieval_augmentation/table7.py").TABLE7.rows, 1, output=tmp_path, start="none")
    variables, _ = Setting(demo=None, environment={}).command(original.children["augmented"])
    assert (variables["ITERATIONS"], variables["TRAIN_ON"]) == ("7", "augmented")


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
    for gpus, per_run, jobs, message in (
        (-1, 1, None, "--gpus must be at least 0, got -1"),
        (2, 0, None, "--gpus-per-run must be at least 1, got 0"),
        (0, 1, 0, "--jobs must be at least 1, got 0"),
        (2, 1, -1, "--jobs must be at least 1, got -1"),
    ):
        with pytest.raises(DataError, match=message):
            devices(gpus=gpus, gpus_per_run=per_run, jobs=jobs)
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


def failures(runner: Runner, nodes: list[Node]) -> list[str]:
    return list(runner.run(nodes).values())


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_stage_runs_after_the_one_before_and_only_once(at_once: int, tmp_path: Path) -> None:
    rows = TABLES["table2"].rows
    nodes = [node for seed in (1, 2) for node in tree(rows, seed, output=tmp_path, start="none")]
    fake = Fake(at_once)
    assert fake.run(nodes) == {}
    assert len(fake.started) == 2 * 18
    assert [seed for seed, _ in fake.started][:10] == [1] * 10  # a whole table of one seed first
    assert all(len(found) == 2 for found in results.read_scores(rows, [1, 2], tmp_path).values())
    assert not list(tmp_path.rglob("checkpoint*.pt")) and len(list(tmp_path.rglob("averaged.pt"))) == 36
    assert fake.run(nodes) == {} and len(fake.started) == 2 * 18


def test_a_stage_that_fails_takes_its_rows_alone_with_it(tmp_path: Path) -> None:
    rows = TABLES["table2"].rows
    failed = Fake(2, broken="in_domain-ic+tifg").run(tree(rows, 1, output=tmp_path, start="none"))
    folder = tmp_path / "seed1" / "out_of_domain-ic+tifg" / "in_domain-ic+tifg"
    assert failed == {folder: "seed 1, out_of_domain-ic+tifg > in_domain-ic+tifg: it broke"}
    scores = results.read_scores(rows, [1], tmp_path)
    assert [name for name, found in scores.items() if not found] == ["ic+tifg in domain"]


def test_a_length_of_the_users_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At paper's scale, too, where no variable of the scripts is set by the table itself."""
    nodes = tree(TABLES["table3"].rows[:1], 1, output=tmp_path, start="none")
    assert Fake(1).run(nodes) == {}
    assert Fake(1).run(nodes) == {}
    monkeypatch.setenv("ITERATIONS", "1000")
    (failed,) = failures(Fake(1), nodes)
    assert "says that this stage was run with other variables" in failed and "'ITERATIONS': '1000'" in failed


def test_the_settings_of_a_stage_are_what_it_is_run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's, where the row has one of its own, too."""
    script = Script(tmp_path, "retrieval.sh", "retrieval")
    longer = Row("longer", (Stage("longer", script, variables=(("ITERATIONS", "22660"),)),))
    (node,) = tree([longer], 1, output=tmp_path, start="none")
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ITERATIONS", "10")
    monkeypatch.setenv("HARD_POOL", "50")
    assert Fake(1).run([node]) == {}
    variables = json.loads((node.folder / "settings.json").read_text())["variables"]
    assert (variables["ITERATIONS"], variables["HARD_POOL"]) == ("10", "50")
    assert Fake(1).run([node]) == {}
    for name, other, before in (("ITERATIONS", "20", "10"), ("HARD_POOL", "10", "50")):
        monkeypatch.setenv(name, other)
        (failed,) = failures(Fake(1), [node])
        assert "was run with other variables" in failed and f"'{name}': '{other}'" in failed
        monkeypatch.setenv(name, before)


def test_stages_are_scored_again_with_other_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages without a record are those of earlier versions, or of no variables."""
    nodes = tree(TABLES["table6"].rows[:1], 1, output=tmp_path, start="none")
    folder = folder_of(TABLES["table6"].rows[0], 1, tmp_path)
    for name in ("METRICS", "SEGMENT"):
        monkeypatch.delenv(name, raising=False)

    def scored_again() -> bool:
        (folder / "scores-test.json").write_text("earlier ones")
        assert Fake(1).run(nodes) == {}
        return (folder / "scores-test.json").read_text() != "earlier ones"

    Fake(1).run(nodes)
    settings = (folder / "settings.json").read_bytes()
    assert not (folder / "scoring.json").exists() and not scored_again()
    monkeypatch.setenv("METRICS", "cider")
    assert scored_again() and json.loads((folder / "scoring.json").read_text()) == {"METRICS": "cider"}
    assert not scored_again()
    monkeypatch.setenv("SEGMENT", "char")
    assert scored_again() and not scored_again()
    monkeypatch.setattr(Fake, "_script", lambda *_: None)  # ends before there are scores
    monkeypatch.delenv("SEGMENT")
    assert failures(Fake(1), nodes) == [
        f"seed 1, out_of_domain-ic+ida > finetune: 5_caption.sh left no scores-test.json in {folder}"
    ]
    monkeypatch.undo()
    for name in ("METRICS", "SEGMENT"):
        monkeypatch.delenv(name, raising=False)
    assert scored_again() and not (folder / "scoring.json").exists() and not scored_again()
    assert (folder / "settings.json").read_bytes() == settings


def test_a_stage_of_other_settings_is_refused(tmp_path: Path) -> None:
    """And what it has left, with what hangs on it, is no part of the table."""
    rows = TABLES["table6"].rows[:2]
    nodes = tree(rows, 1, output=tmp_path, start="none")
    Fake(1).run(nodes[:1])
    other = Fake(1)
    other.setting = Setting(demo=None, environment={}, arguments=["--lr", "1"])
    failed = other.run(nodes)
    folder = tmp_path / "seed1" / "out_of_domain-ic+ida"
    assert list(failed) == [folder] and f"{folder / 'settings.json'} says" in failed[folder]
    assert "other arguments ([], now ['--lr', '1']): use another --output" in failed[folder]
    (start,) = failures(Fake(1), tree(rows[:1], 1, output=tmp_path, start="text.pt"))
    assert "other start (none, now text.pt)" in start
    scores = results.read_scores(rows, [1], tmp_path, without=failed)
    assert [name for name, found in scores.items() if not found] == ["single [MASK]"]
    assert comparisons(rows, [1], tmp_path) and not comparisons(rows, [1], tmp_path, without=failed)


def test_settings_may_change_where_nothing_was_made(tmp_path: Path) -> None:
    """As after a mistyped --data, with which no training got as far as a checkpoint."""
    row = TABLES["table3"].rows[0]
    (node,) = tree([row], 1, output=tmp_path, start="none")

    def run(data: str, *, broken: str = "") -> list[str]:
        fake = Fake(1, broken=broken)
        fake.setting = Setting(demo=None, environment={"IN_DOMAIN_DATA": data})
        return failures(fake, [node])

    (failed,) = run("typo", broken=node.stage.name)
    assert failed.endswith(": it broke")
    (failed,) = run("data", broken=node.stage.name)
    assert failed.endswith(": it broke")
    settings = json.loads((node.folder / "settings.json").read_text())
    assert settings["variables"]["IN_DOMAIN_DATA"] == os.path.realpath("data")
    (node.average.parent / "checkpoint_last.pt").parent.mkdir(parents=True)
    (node.average.parent / "checkpoint_last.pt").touch()
    (failed,) = run("other")
    assert "says that this stage was run with other variables" in failed
    assert json.loads((node.folder / "settings.json").read_text()) == settings
    assert run("data") == []


def test_data_by_another_path_are_the_same(tmp_path: Path) -> None:
    """And a link that was pointed to others since is not; the script is given the link itself."""
    (node,) = tree(TABLES["table3"].rows[:1], 1, output=tmp_path / "out", start="none")
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")

    def run(data: str) -> list[str]:
        fake = Fake(1)
        fake.setting = Setting(demo=None, environment={"IN_DOMAIN_DATA": str(tmp_path / data)})
        assert fake.setting.command(node)[0]["IN_DOMAIN_DATA"] == str(tmp_path / data)
        return failures(fake, [node])

    assert run("link") == run("data") == run("link") == []
    (failed,) = run("other")
    assert "was run with other variables" in failed
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (failed,) = run("link")
    assert "was run with other variables" in failed
    assert run("data") == []


def test_a_stage_s_settings_are_what_its_script_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier versions recorded all; their runs go on. Other out-of-domain data are no other fine-tuning."""
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    (pretrain,) = nodes = tree(TABLES["table2"].rows[:1], 1, output=tmp_path, start="none")
    finetune = pretrain.children["finetune"]
    fake = Fake(1)
    data = {"IN_DOMAIN_DATA": "/in", "OUT_OF_DOMAIN_DATA": "/out"}
    fake.setting = Setting(demo=TABLES["table2"].demo, environment=data)
    assert fake.run(nodes) == {}
    for node, reads in ((pretrain, "OUT_OF_DOMAIN_DATA"), (finetune, "IN_DOMAIN_DATA")):
        file = node.folder / "settings.json"
        settings = json.loads(file.read_text())
        assert settings["variables"].keys() & data.keys() == {reads}
        settings["variables"] |= {**data, "EPOCHS": "3"}
        file.write_text(json.dumps(settings))
    assert fake.run(nodes) == {} and len(fake.started) == 2
    fake.setting = Setting(demo=TABLES["table2"].demo, environment={**data, "OUT_OF_DOMAIN_DATA": "/other"})
    assert list(fake.run([finetune])) == [] and list(fake.run([pretrain])) == [pretrain.folder]
