"""Models of a hub: their code never runs, and offline nothing asks the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision import families
from xgpt_fairseq.vision.backbones import registry
from xgpt_fairseq.vision.backbones.base import BackboneOptions
from xgpt_fairseq.vision.backbones.registry import load_backbone
from xgpt_fairseq.vision.backbones.torchvision_models import published_state

CODE = """from pathlib import Path
Path(__file__).with_name("ran").write_text("ran")
Path({marker!r}).write_text("ran")
"""


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in families._OFFLINE:
        monkeypatch.setenv(name, "")  # and what the code sets is taken back
    return monkeypatch


# found, not imported: transformers must not look for torchvision before what is broken is hidden from it
@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.parametrize("model_type", ["vit", "somebodys"])
def test_code_beside_a_model_does_not_run(tmp_path: Path, model_type: str) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    code = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoImageProcessor": "code.Processor"}
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": code}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": code}))
    for name in ("code.py", "modeling_vit.py", "__init__.py"):
        (folder / name).write_text(CODE.format(marker=str(marker)))
    with pytest.raises(DataError):  # it has no weights
        load_backbone(f"transformers:{folder}", BackboneOptions(offline=True))
    assert not marker.exists() and not (folder / "ran").exists()


PROGRAM = """
import socket, sys
def refuse(*arguments, **options):
    print("ASKED THE NETWORK", arguments, file=sys.stderr)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
from xgpt_fairseq.cli import run
from xgpt_fairseq.cli.extract_regions import main
sys.argv = ["xgpt-extract-regions", *sys.argv[1:]]
run(main)
"""


@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE", "neither"])
@pytest.mark.parametrize(
    "network",
    [
        ("--backbone", "timm:resnet18.a1_in1k"),
        ("--backbone", "transformers:xgpt/none"),
        ("--backbone", "torchvision:resnet18"),
        ("--detector", "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"),
    ],
)
@pytest.mark.thorough
def test_offline_programs(tmp_path: Path, network: tuple[str, str], how: str) -> None:
    package = network[1].partition(":")[0]
    if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{package} cannot be imported")  # not here: see above
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    options = ["--offline"] if how == "--offline" else []
    environment = {name: value for name, value in os.environ.items() if name not in families._OFFLINE}
    environment |= {"HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    if how == "HF_HUB_OFFLINE":
        environment[how] = "1"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "photos", "--output", tmp_path / "store", *network, *options],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1 and "error: " in done.stderr, done.stderr
    assert ("ASKED THE NETWORK" in done.stderr) == (how == "neither"), done.stderr


def test_torchvision_s_weights(tmp_path: Path, no_environment: pytest.MonkeyPatch) -> None:
    """torchvision does not know Hugging Face's variable; its weights were fetched all the same."""

    class Published:
        url = "https://download.example/weights-1234.pth"
        fetched = 0

        def get_state_dict(self, **_: object) -> dict[str, object]:
            Published.fetched += 1
            return {}

    no_environment.setenv("TORCH_HOME", str(tmp_path))
    no_environment.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="is missing; fetch it elsewhere"):
        published_state("resnet", Published(), offline=False)
    assert Published.fetched == 0
    for name in families._OFFLINE:
        no_environment.setenv(name, "0")
    published_state("resnet", Published(), offline=False)
    assert Published.fetched == 1


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("no", False)]
)
def test_the_variable_is_read_as_the_hub_does(no_environment: pytest.MonkeyPatch, value: str, offline: bool) -> None:
    no_environment.setenv("HF_HUB_OFFLINE", value)
    assert families.stay_offline(False) is offline
    assert families.stay_offline(True) is True


def test_a_library_that_is_imported_already(no_environment: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    no_environment.setattr(constants, "HF_HUB_OFFLINE", False)
    assert families.stay_offline(True) and constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("users", [False, True])
def test_offline_is_said_of_one_network_alone(no_environment: pytest.MonkeyPatch, users: bool) -> None:
    """A network that is loaded offline leaves the next one as the user's environment has it."""
    constants = SimpleNamespace(HF_HUB_OFFLINE=users)
    loaded = SimpleNamespace(load=lambda _, options: (families.stay_offline(options.offline), constants.HF_HUB_OFFLINE))
    no_environment.setitem(sys.modules, "huggingface_hub.constants", constants)
    no_environment.setattr(registry, "import_module", lambda _: loaded)
    no_environment.setenv("HF_HUB_OFFLINE", "1" if users else "")
    before = dict(os.environ)
    assert load_backbone("timm:NAME", BackboneOptions(offline=True)) == (True, True)
    assert os.environ == before
    assert load_backbone("timm:NAME", BackboneOptions()) == (users, users)
