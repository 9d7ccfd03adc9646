"""What quickstart/run.sh and real_photos/run.sh pass on to the stages, and folders of results of other settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.programs import ROOT
from tests.preloaded import python

EXAMPLES = ROOT / "examples"
PROGRAMS = (
    "xgpt-draw-scenes", "xgpt-extract-regions", "xgpt-caption-text", "xgpt-learn-bpe", "xgpt-prepare-text",
)  # fmt: skip
LENGTHS = {"TEXT_ITERATIONS": "0", "WEB_ITERATIONS": "0", "IN_DOMAIN_ITERATIONS": "0"}  # fine-tuning comes first


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs that do nothing, a fairseq-train that says its arguments and fails, and python.

    Its arguments are also in the file `trained` beside the folder, a line for each call. xgpt-prepare-captions writes
    data directories with the captions in REFERENCES alone.
    """
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
    (folder / "xgpt-prepare-captions").write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do if [ "$1" = --output ]; then mkdir "$2"; printf %s "$REFERENCES" > '
        '"$2/train.references.json"; cp "$2/train.references.json" "$2/valid.references.json"; '
        """printf '{"splits": {"valid": {}}}' > "$2/dataset.json"; fi; shift; done\n"""
    )
    trained = tmp_path / "trained"
    (folder / "fairseq-train").write_text(f'#!/bin/sh\necho "fairseq-train: $*"\necho "$*" >> "{trained}"\nexit 1\n')
    (folder / "python").write_text(
        "#!/bin/sh\n"
        # one GPU, of a machine that has it; find_captions.py would read the folder, and report.py scores
        'case "$*" in\n*device_count*) echo 1 80000 --bf16;;\n*find_captions.py*) printf "captions.json\\0";;\n'
        "*/real_photos/report.py*) ;;\n"
        f'*) exec {python()} "$@";;\nesac\n'  # joins_words.py imports the package, and so fairseq
    )
    for file in folder.iterdir():
        file.chmod(0o755)
    return folder


def call(programs: Path, script: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {name: value for name, value in os.environ.items() if name not in ("PRECISION", "GPUS")}
    variables["REFERENCES"] = references("A dog on a chair.")
    return subprocess.run(
        ["bash", str(EXAMPLES / script), *map(str, arguments)],
        env={**variables, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def references(caption: str) -> str:
    """Those of a split, in COCO's format."""
    return json.dumps({"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": caption}]})


def make(work: Path, *names: str) -> None:
    """Empty files, for what was made."""
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).touch()


@pytest.mark.parametrize("photos", [False, True])
@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "--bf16"), ({"PRECISION": "--fp16"}, "--fp16"), ({"PRECISION": ""}, ""), ({"GPUS": "0"}, "--cpu")],
    ids=str,
)
def test_precision_is_that_of_the_stages(
    environment: dict[str, str], expected: str, photos: bool, programs: Path, tmp_path: Path
) -> None:
    """By the GPU, unless PRECISION says it."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "text.txt").touch()
    folder = [tmp_path / "photos"] if photos else []
    (tmp_path / "photos").mkdir()
    script = "real_photos/run.sh" if photos else "quickstart/run.sh"
    done = call(programs, script, *folder, WORK=str(tmp_path / "work"), **LENGTHS, **environment)
    log = tmp_path / "work" / "logs" / "finetune.log"
    assert log.exists(), done.stderr
    (train,) = log.read_text().splitlines()
    found = [option for option in ("--bf16", "--fp16", "--cpu") if option in train.split()]
    assert found == [option for option in [expected] if option]


@pytest.mark.parametrize("photos", [False, True])
def test_results_of_unknown_settings_are_not_taken_for_ones_own(photos: bool, programs: Path, tmp_path: Path) -> None:
    """As those of photos in a folder called scenes, for the quickstart's scenes; or of an earlier version."""
    script, settings = ("real_photos/run.sh", "real_photos") if photos else ("quickstart/run.sh", "quickstart")
    work, arguments = tmp_path / "work", [tmp_path] if photos else []
    (work / "regions").mkdir(parents=True)
    environment = {"WORK": str(work), "PREPARE_ONLY": "1"}
    done = call(programs, script, *arguments, **environment)
    said, *lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert said.startswith(f"error: {work} was made by another program or an earlier version: it has no {settings}.set")
    assert {path.name for path in work.iterdir()} == {"regions", "logs"}
    (work / f"{settings}.settings").write_text("\n".join(lines) + "\n")  # as it says
    (work / "text.txt").touch()
    assert call(programs, script, *arguments, **environment).returncode == 0


def test_settings_of_an_interrupted_extraction_are_kept(programs: Path, tmp_path: Path) -> None:
    """Only with them it can go on: `.regions.partial` is what there is of the regions."""
    work, settings = tmp_path / "work", tmp_path / "work" / "quickstart.settings"
    call(programs, "quickstart/run.sh", WORK=str(work), PREPARE_ONLY="1")
    for path in work.iterdir():
        if path != settings:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = settings.read_text()
    make(work, ".regions.partial/journal.json")
    done = call(programs, "quickstart/run.sh", WORK=str(work), PREPARE_ONLY="1", SYMBOLS="7")
    assert done.returncode == 1 and "was made with other settings" in done.stderr
    assert settings.read_text() == before


@pytest.mark.parametrize("name", ["SEED", "SCENES", "SYMBOLS", "ARCH", "BATCH", "PRECISION", "LR"])
def test_variables_are_not_ignored_where_there_are_results(name: str, programs: Path, tmp_path: Path) -> None:
    """Those of data at once; those of training, which tables have, too, where something is trained."""
    environment = {"WORK": str(tmp_path / "work"), **LENGTHS}
    log = tmp_path / "work" / "logs" / "finetune.log"
    call(programs, "quickstart/run.sh", **environment, FINETUNE_ITERATIONS="8")
    make(tmp_path / "work", "scenes/x", "checkpoints/captions/finetune/checkpoint_last.pt")
    call(programs, "quickstart/run.sh", **environment, FINETUNE_ITERATIONS="9")  # lengths may change
    assert log.read_text().count("fairseq-train: ") == 2
    changed = {**environment, name: "7"}
    done = call(programs, "quickstart/run.sh", **changed)
    assert done.returncode == 1 and f"error: {tmp_path / 'work'} was made with other settings" in done.stderr
    assert f"\n> {name}: 7\n" in done.stderr and log.read_text().count("fairseq-train: ") == 2
    status = call(programs, "quickstart/run.sh", **changed, PREPARE_ONLY="1").returncode
    assert status == (0 if name in ("ARCH", "BATCH", "PRECISION", "LR") else 1)


@pytest.mark.parametrize(
    ("script", "tries"),
    [
        ("quickstart/run.sh", [{"GPUS": "3"}, {"GPUS": "3", "BATCH": "63"}, {"TRAINING": "--x"}, {"SCENES": "--y"}]),
        ("real_photos/run.sh", [{"GPUS": "3"}, {"GPUS": "3", "BATCH": "63"}, {"TRAINING": "--x"}, {"IMAGES": "65"}]),
        ("ablations/flickr8k.sh", [{"TRAINING": "--w"}, {"TRAINING": "--x"}, {"GRID": "3"}]),
    ],
    ids=["quickstart", "real_photos", "flickr8k"],
)
def test_settings_that_nothing_was_made_with_can_be_corrected(
    script: str, tries: list[dict[str, str]], programs: Path, tmp_path: Path
) -> None:
    """A batch that the GPUs do not divide, as the message advises; and arguments that fairseq-train refuses."""
    work = tmp_path / "work"
    for name in ("flickr8k", "coco5k"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset_x.json").write_text('{"images": []}')
    make(work, "text.txt")
    (work / "checkpoints" / "text").mkdir(parents=True)  # as a training leaves it that fails before it saves
    variables = {name: str(tmp_path / name.lower()) for name in ("FLICKR8K", "COCO5K", "WORK")}
    arguments = [tmp_path / "coco5k"] if script.startswith("real_photos") else []

    def tried(**settings: str) -> str:
        return call(programs, script, *arguments, **variables, **LENGTHS, HELD_OUT="0", **settings).stderr

    for settings in tries:
        assert "was made with other settings" not in tried(**settings)
    trained = len((tmp_path / "trained").read_text().splitlines())
    assert trained == sum(settings != {"GPUS": "3"} for settings in tries)
    make(work, "checkpoints/text/checkpoint_last.pt")
    said = tried(**{**tries[-1], "TRAINING": "--z"})
    assert f"error: {work} was made with other settings" in said and "\n> TRAINING: --z\n" in said
    assert f"write those given into {work}/training.settings:" in said
    if arguments:  # the last stage's own
        tried(IMAGES="66")
        make(work, "checkpoints/captions/scst/checkpoint_last.pt")
        assert len((tmp_path / "trained").read_text().splitlines()) == trained + 1
        (work / "scst.settings").write_text("IMAGES: 66\n")
        assert f"write those given into {work}/scst.settings:\n" in tried(IMAGES="67")


def test_settings_of_an_earlier_version_are_kept(programs: Path, tmp_path: Path) -> None:
    """It had those of data and of trainings in one file."""
    work, settings = tmp_path / "work", tmp_path / "work" / "real_photos.settings"
    photos = tmp_path / "photos"
    photos.mkdir()
    make(work, "text.txt", "regions", "checkpoints/text/checkpoint_last.pt")
    data = f"folders: {photos}\nWEB: \nCAPTIONS: \nGRID: 7\nIMAGE_SIZE: 384\nSYMBOLS: 3000\nTEXT_LINES: \n"
    trainings = "ARCH: xgpt_demo\nBATCH: 160\nSEED: 1\nDROPOUT: \nIMAGES: \nTRAINING: \n"
    settings.write_text(data + trainings + "VIEWS: 1\n")
    (work / "view-1").mkdir()
    environment = {"WORK": str(work), "VIEWS": "1", **LENGTHS}
    done = call(programs, "real_photos/run.sh", photos, **environment)  # its defaults were others
    assert done.returncode == 1
    assert "\n< BATCH: 160\n---\n> BATCH: 64\n" in done.stderr and "\n> REGION_DROPOUT: 0.4\n" in done.stderr
    call(programs, "real_photos/run.sh", photos, **environment, BATCH="160", REGION_DROPOUT="0", WORD_DROPOUT="0")
    assert (tmp_path / "trained").exists()
    assert settings.read_text() == f"{data}VIEWS: 1\n"
    assert (work / "training.settings").read_text() == trainings.replace("IMAGES: \n", "")
    assert (work / "scst.settings").read_text() == "IMAGES: \n"


@pytest.mark.parametrize("first", ["quickstart", "real_photos"])
def test_a_folder_that_another_program_has_begun_is_refused(first: str, programs: Path, tmp_path: Path) -> None:
    """As quickstart's scenes, and photos in a folder called scenes: the first one was interrupted, and may go on."""
    work, photos = tmp_path / "work", tmp_path / "scenes"
    photos.mkdir()
    make(work, "text.txt")
    commands = {"quickstart": ("quickstart/run.sh",), "real_photos": ("quickstart/run.sh", photos)}
    assert call(programs, *commands.pop(first), WORK=str(work), PREPARE_ONLY="1").returncode == 0
    before = sorted(path.name for path in work.iterdir())
    for command in commands.values():
        done = call(programs, *command, WORK=str(work), PREPARE_ONLY="1")
        assert done.returncode == 1
        assert done.stderr == (
            f"error: {work} is another program's: it has {first}.settings; name another WORK, or remove it\n"
        )
    assert sorted(path.name for path in work.iterdir()) == before


def test_captions_are_scored_again_by_other_metrics(tmp_path: Path) -> None:
    """And by another segmentation, or of another checkpoint; not by the same, nor where an earlier version scored."""
    work, stages = tmp_path / "work", tmp_path / "stages"
    make(work, "results/finetune/scores-test.json", "logs/x")
    make(stages, "5_caption.sh")
    (stages / "5_caption.sh").write_text(
        f'echo "${{METRICS-}} ${{SEGMENT-}}" >> "{work}/calls"\n: > "$OUT/scores-test.json"\n'
    )
    (work / "results" / "finetune" / "captioner").write_text("checkpoints/a.pt\n")
    steps = f'set -eu; . "{EXAMPLES}/quickstart/steps.sh"; caption finetune "$WORK/checkpoints/$0.pt" data test'

    def scored(checkpoint: str = "a", **environment: str) -> int:
        variables = {"WORK": str(work), "STAGES": str(stages), "PATH": os.environ["PATH"], **environment}
        subprocess.run(["bash", "-c", steps, checkpoint], env=variables, check=True)
        return len((work / "calls").read_text().splitlines()) if (work / "calls").exists() else 0

    assert scored() == 0
    assert scored(METRICS="cider") == scored(METRICS="cider") == 1
    assert scored(METRICS="bleu") == 2
    assert scored() == scored() == 3
    assert scored(SEGMENT="char") == scored(SEGMENT="char") == 4
    assert scored("b", SEGMENT="char") == 5


@pytest.mark.parametrize(("example", "least"), [("real_photos", 10), ("quickstart", 8)])
def test_the_readme_has_the_defaults_of_the_script(example: str, least: int) -> None:
    """`NAME` (VALUE) in the text: the value that NAME has where it is not set; first, that for photos."""
    page = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    script = (EXAMPLES / example / "run.sh").read_text(encoding="utf-8")
    for_photos = script[: script.find("exec bash")] if example == "quickstart" else script
    stated = re.findall(r"`([A-Z_]+)`\s\(([\w. ]*\w)\)", page)
    for name, value in stated:
        if value not in ("all", "none"):
            given = re.findall(rf"\$\{{{name}:-([^}}]*)\}}", for_photos)
            assert value.replace(" ", "") in given, f"{name}: {value} stated, {given}"
    assert len(stated) >= least


def test_settings_at_their_default_have_no_line() -> None:
    """So that folders of versions without it stay as they are."""
    steps = f'set -u; . "{EXAMPLES}/quickstart/steps.sh"; set_settings PRECISION LR AVERAGE=best VALIDATIONS=5'
    for environment, lines in (
        ({"VALIDATIONS": "5", "AVERAGE": "best", "LR": ""}, ""),
        ({"VALIDATIONS": "6", "AVERAGE": "last", "PRECISION": ""}, "PRECISION: |AVERAGE: last|VALIDATIONS: 6|"),
    ):
        command = ["bash", "-c", f"{steps}; ((${{#SET[@]}} == 0)) || printf '%s|' \"${{SET[@]}}\""]
        variables = {"PATH": os.environ["PATH"], **environment}
        assert subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout == lines


@pytest.fixture
def calls(programs: Path, tmp_path: Path) -> Path:
    """A file with the calls of programs that succeed, a line for each: trainings, averages, captions, scores, pages."""
    calls = tmp_path / "calls"
    recorded = ("fairseq-train", "xgpt-average-checkpoints", "fairseq-generate", "xgpt-evaluate", "xgpt-gallery")
    for name in (*recorded, "xgpt-curves", "xgpt-export"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{calls}"\n')
        (programs / name).chmod(0o755)
    with (programs / "xgpt-average-checkpoints").open("a") as averager:  # its last argument is the output
        averager.write('for file; do :; done\nmkdir -p "${file%/*}"\n: > "$file"\necho "average of 4 written"\n')
    with (programs / "xgpt-evaluate").open("a") as evaluator:
        evaluator.write('while [ "$1" != --output ]; do shift; done\n: > "$2"\n')
    return calls


def test_another_length_scores_shows_and_exports_another_captioner(programs: Path, calls: Path, tmp_path: Path) -> None:
    """Without the last stage, after a run with it: that of the stage before, which is trained already."""
    photos, work = tmp_path / "photos", tmp_path / "work"
    photos.mkdir()
    make(work, "text.txt")

    def run(**environment: str) -> tuple[list[str], list[str]]:
        """The programs that were called, and the stages whose averages were captioned with, shown and exported."""
        calls.write_text("")
        done = call(programs, "real_photos/run.sh", photos, WORK=str(work), VIEWS="2", **LENGTHS, **environment)
        assert done.returncode == 0, done.stderr
        words = [line.split() for line in calls.read_text().splitlines()]
        trainings = [line for line in words if line[0] == "fairseq-train"]
        assert all(line[line.index("--views") + 1] == f"{work}/view-1:{work}/view-2" for line in trainings)
        named = [word.removeprefix("captioner=") for line in words for word in line if word.endswith("/averaged.pt")]
        of = [Path(file).parent.name for file in named]
        return [line[0] for line in words if line[0] != "xgpt-curves"], of[-3:]

    trained = ["fairseq-train", "xgpt-average-checkpoints"] * 2
    scored, shown = ["fairseq-generate", "xgpt-evaluate"], ["xgpt-gallery", "xgpt-export"]
    assert run() == ([*trained, *scored, *shown], ["scst"] * 3)
    assert run() == (shown, ["scst"] * 2)
    assert run(SCST_ITERATIONS="0") == ([*scored, *shown], ["finetune"] * 3)
    assert (work / "results" / "photos" / "captioner").read_text() == "checkpoints/captions/finetune/averaged.pt\n"


def test_captions_without_spaces_between_words_are_scored_by_characters(
    programs: Path, calls: Path, tmp_path: Path
) -> None:
    """And not optimised for CIDEr, whose words they do not tell apart: who asks for that learns it before trainings."""
    photos = tmp_path / "photos"
    photos.mkdir()
    chinese = references("一只黑色的狗坐在椅子的左边")

    def run(work: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str], list[str]]:
        """What it said, the segmentations of scores and of the page, and the folders of trainings."""
        make(tmp_path / work, "text.txt")
        calls.write_text("")
        done = call(programs, "real_photos/run.sh", photos, WORK=str(tmp_path / work), **LENGTHS, **environment)
        words = [line.split() for line in calls.read_text().splitlines()]
        scored = [line for line in words if line[0] in ("xgpt-evaluate", "xgpt-gallery")]
        segmented = [line[line.index("--segment") + 1] if "--segment" in line else "" for line in scored]
        trained = [Path(line[line.index("--save-dir") + 1]).name for line in words if line[0] == "fairseq-train"]
        return done, segmented, trained

    done, *made = run("work", REFERENCES=chinese, SCST_ITERATIONS="5")
    assert done.returncode == 1 and made == [[], []]
    assert done.stderr.startswith("error: SCST_ITERATIONS=5: the captions have no spaces between words, which CIDEr")
    done, *made = run("work", REFERENCES=chinese)
    assert done.returncode == 0, done.stderr
    assert "\nSCST_ITERATIONS=0: the captions have no spaces between words" in done.stdout
    assert made == [["char", "char"], ["finetune"]]
    done, *made = run("work", REFERENCES=chinese, SEGMENT="jieba")
    assert done.returncode == 0 and made == [["jieba", "jieba"], []], done.stderr
    done, *made = run("english")
    assert done.returncode == 0 and made == [["", ""], ["finetune", "scst"]], done.stderr
