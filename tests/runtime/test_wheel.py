"""The wheel of the runtime, as `make runtime` builds it: with a captioner, it captions outside of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xgpt_runtime
from tests.conftest import ROOT
from tests.test_hub_interface import draw


def test_the_wheel_holds_the_captioner_and_captions(lite_folder: Path, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    left_out = shutil.ignore_patterns("__pycache__", "captioner", "build", "*.egg-info")
    shutil.copytree(ROOT / "runtime", source, ignore=left_out)
    shutil.copytree(lite_folder, source / "xgpt_runtime" / "captioner")
    pip = [sys.executable, "-m", "pip"]
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", tmp_path, source], check=True)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name == f"xgpt_runtime-{xgpt_runtime.__version__}-py3-none-any.whl"
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", site, wheel], check=True)
    assert (site / "bin" / "xgpt-caption-lite").exists()
    photos = tmp_path / "photos"
    photos.mkdir()
    files = draw(photos)
    done = subprocess.run(
        [sys.executable, "-m", "xgpt_runtime.cli", photos],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = xgpt_runtime.Captioner(lite_folder).caption(files)
    lines = [f"{file}\t{text}" for file, text in zip(files, expected, strict=True)]
    assert done.stdout.splitlines() == lines


def test_both_distributions_have_one_version_and_licence() -> None:
    text = (ROOT / "xgpt_fairseq" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{xgpt_runtime.__version__}"' in text
    assert (ROOT / "runtime" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_what_it_needs_is_what_its_metadata_says() -> None:
    text = (ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8")
    [needed] = re.findall(r"^dependencies = \[(.+)\]$", text, re.MULTILINE)
    assert re.findall(r'"(\w+)', needed) == ["numpy", "onnxruntime", "pillow"]
    [pillow] = re.findall(r'"(pillow[^"]*)"', needed)  # both read photos by the same code
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert re.findall(r'"(pillow(?!-heif)[^"]*)"', setup) == [pillow] and setup.count("PILLOW]") == 2


PROGRAM = """
import importlib, pkgutil, sys
from unittest.mock import MagicMock
for name in ("numpy", "numpy.typing", "onnxruntime", "PIL"):
    sys.modules[name] = MagicMock()
import xgpt_runtime
for module in pkgutil.iter_modules(xgpt_runtime.__path__):
    importlib.import_module(f"xgpt_runtime.{module.name}")
print(*sys.version_info[:2], sep=".")
"""


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_each_python_imports_its_modules(version: str) -> None:
    """From the oldest that the metadata names; those that this machine has. The packages it needs are made up."""
    text = (ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.10"' in text
    command = [f"python{version}", "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"}
    if shutil.which(command[0]) is None or subprocess.run([command[0], "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no {command[0]}")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == version, done.stderr
