"""The weights of all objectives act, through the recipe's own script."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.end_to_end.programs import ROOT, SMALL, run

PROGRAM = ROOT / "examples/ablations/weight_effect.py"
SIZES = {"GPUS": "0", "BATCH": "8", "WORKERS": "0", "ARCH": "xgpt_demo"}


def test_the_weight_of_tifg_moves_the_model(tiny_data: Path, tmp_path: Path) -> None:
    program = [sys.executable, PROGRAM, "--data", tiny_data]
    done = run(*program, "--output", tmp_path, "--objectives", "imlm,tifg", "--iterations", "4", "--", *SMALL, **SIZES)
    imlm, tifg = (float(value) for value in re.findall(r"against 0\.3: ([\d.]+)", done.stdout))
    assert imlm > 0 and tifg > imlm / 5
    refused = run(*program, "--output", tmp_path, "--objectives", "itm", check=False)
    assert refused.returncode == 1 and "--objectives: unknown objective 'itm'" in refused.stderr


@pytest.fixture
def weight_effect(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, whose runs leave a model of one parameter at once."""
    spec = importlib.util.spec_from_file_location("weight_effect", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def trained(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        folder = Path(env["CHECKPOINTS"]) / "out_of_domain"
        folder.mkdir(exist_ok=True)
        torch.save({"cfg": None, "model": {"a": torch.ones(1)}}, folder / "checkpoint_last.pt")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", trained)
    return module


@pytest.mark.parametrize(
    ("changed", "variables", "name", "values"),
    [
        (["--iterations", "8"], {}, "ITERATIONS", "(4, now 8)"),
        (["--data", "other"], {}, "data", "(DATA/data, now DATA/other)"),
        (["--", "--tifg-reduction", "sum"], {}, "arguments", "([], now ['--tifg-reduction', 'sum'])"),
        ([], {"BATCH": "64"}, "BATCH", "(None, now 64)"),
        ([], {"ARCH": "xgpt_demo"}, "ARCH", "(None, now xgpt_demo)"),
        ([], {"SEED": "2"}, "SEED", "(None, now 2)"),
        ([], {"OBJECTIVES": "ic,ida"}, "OBJECTIVES", "(None, now ic,ida)"),
    ],
)
def test_runs_with_other_settings_are_not_taken_for_these(
    changed: list[str],
    variables: dict[str, str],
    name: str,
    values: str,
    weight_effect: ModuleType,
    call_program: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in weight_effect.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    command = ["--data", "data", "--output", "runs", "--objectives", "ic", "--iterations", "4"]
    for _ in range(2):
        done = call_program(weight_effect.main, *command)
        assert done.status == 0 and "ic     weight 1 against 0.3: 0.0000" in done.stdout, done.stderr
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    done = call_program(weight_effect.main, *command, *changed)
    assert done.status == 1 and done.error == (
        f"{tmp_path}/runs/all-1/settings.json says that this run was made with other {name} "
        f"{values.replace('DATA', str(tmp_path))}: use another --output, or remove the folder"
    )


def test_a_run_of_unknown_settings_is_not_taken_for_these(
    weight_effect: ModuleType, call_program: Callable[..., Any], tmp_path: Path
) -> None:
    """As earlier versions have left them."""
    command = ["--data", tmp_path, "--output", tmp_path / "runs", "--objectives", "ic"]
    assert call_program(weight_effect.main, *command).status == 0
    settings = tmp_path / "runs" / "all-1" / "settings.json"
    settings.unlink()
    done = call_program(weight_effect.main, *command)
    assert done.status == 1 and done.error.startswith(
        f"{settings.parent} holds a run of an earlier version, without settings.json"
    )
    assert not settings.exists()


def test_settings_may_change_where_nothing_was_made(
    weight_effect: ModuleType, call_program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a mistyped --data, with which no training got as far as a checkpoint."""
    command = ["--output", tmp_path / "runs", "--objectives", "ic", "--data"]
    with monkeypatch.context() as patch:

        def failing(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[bytes]:
            (Path(env["CHECKPOINTS"]) / "out_of_domain").mkdir()  # as fairseq-train leaves it
            return subprocess.CompletedProcess(command, 1)

        patch.setattr(subprocess, "run", failing)
        done = call_program(weight_effect.main, *command, tmp_path / "typo")
        assert done.status == 1 and done.error.startswith("2_out_of_domain.sh failed")
    assert call_program(weight_effect.main, *command, tmp_path / "data").status == 0
    settings = json.loads((tmp_path / "runs" / "all-1" / "settings.json").read_text())
    assert settings["data"] == str(tmp_path / "data")
    assert "made with other data" in call_program(weight_effect.main, *command, tmp_path / "typo").error


def test_a_link_to_data_is_handed_on_as_it_is(
    weight_effect: ModuleType, call_program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data directory may find its regions from the link; its settings are those of what it leads to."""
    trained, data = subprocess.run, []

    def noted(command: list[str], *, env: dict[str, str], **more: Any) -> subprocess.CompletedProcess[bytes]:
        data.append(env["OUT_OF_DOMAIN_DATA"])
        return trained(command, env=env, **more)

    monkeypatch.setattr(subprocess, "run", noted)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("link", "elsewhere"):
        command = ["--output", tmp_path / "runs", "--objectives", "ic", "--data", tmp_path / name]
        assert call_program(weight_effect.main, *command).status == 0
        assert set(data) == {str(tmp_path / name)}
        data.clear()


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("ITERATIONS", "7", "--iterations is the length"),
        ("VALIDATIONS", "7", "there are 2"),
        ("OUT_OF_DOMAIN_DATA", "d", "--data names the data directory"),
        ("FROM", "text.pt", "trainings are from scratch"),
        ("CHECKPOINTS", "runs", "--output is where runs go"),
    ],
)
def test_variables_that_would_be_ignored_are_refused(
    weight_effect: ModuleType,
    call_program: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    instead: str,
) -> None:
    monkeypatch.setenv(name, value)
    done = call_program(weight_effect.main, "--data", tmp_path, "--output", tmp_path / "runs")
    assert done.error == f"{name}={value} has no effect here: {instead}"
    assert not (tmp_path / "runs").exists()
