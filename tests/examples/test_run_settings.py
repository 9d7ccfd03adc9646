"""What quickstart/run.sh and real_photos/run.sh pass on to the stages, and folders of results of other settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.programs import ROOT

EXAMPLES = ROOT / "examples"
PROGRAMS = (
    "xgpt-draw-scenes", "xgpt-extract-regions", "xgpt-caption-text", "xgpt-learn-bpe", "xgpt-prepare-text",
    "xgpt-prepare-captions",
)  # fmt: skip
LENGTHS = {"TEXT_ITERATIONS": "0", "WEB_ITERATIONS": "0", "IN_DOMAIN_ITERATIONS": "0"}  # fine-tuning comes first


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with programs that do nothing, a fairseq-train that says its arguments and fails, and python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
    (folder / "fairseq-train").write_text('#!/bin/sh\necho "fairseq-train: $*"\nexit 1\n')
    (folder / "python").write_text(
        "#!/bin/sh\n"
        # one GPU, of a machine that has it; find_captions.py would read the folder
        'case "$*" in\n*device_count*) echo 1 80000 --bf16;;\n*find_captions.py*) printf "captions.json\\0";;\n'
        f'*) exec {sys.executable} "$@";;\nesac\n'
    )
    for file in folder.iterdir():
        file.chmod(0o755)
    return folder


def call(programs: Path, script: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {name: value for name, value in os.environ.items() if name not in ("PRECISION", "GPUS")}
    return subprocess.run(
        ["bash", str(EXAMPLES / script), *map(str, arguments)],
        env={**variables, **environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


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


@pytest.mark.parametrize("name", ["SEED", "SCENES", "SYMBOLS", "ARCH", "BATCH"])
def test_variables_are_not_ignored_where_there_are_results(name: str, programs: Path, tmp_path: Path) -> None:
    """Those of data at once; those of training, which tables have, too, where something is trained."""
    environment = {"WORK": str(tmp_path / "work"), **LENGTHS}
    log = tmp_path / "work" / "logs" / "finetune.log"
    call(programs, "quickstart/run.sh", **environment, FINETUNE_ITERATIONS="8")
    call(programs, "quickstart/run.sh", **environment, FINETUNE_ITERATIONS="9")  # lengths may change
    assert log.read_text().count("fairseq-train: ") == 2
    changed = {**environment, name: "7"}
    done = call(programs, "quickstart/run.sh", **changed)
    assert done.returncode == 1 and f"error: {tmp_path / 'work'} was made with other settings" in done.stderr
    assert f"\n> {name}: 7\n" in done.stderr and log.read_text().count("fairseq-train: ") == 2
    status = call(programs, "quickstart/run.sh", **changed, PREPARE_ONLY="1").returncode
    assert status == (0 if name in ("ARCH", "BATCH") else 1)
