"""`xgpt-export --onnx`: what the folder holds, which photos it can't take, and what the program refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

from tests.test_hub_interface import build
from xgpt_fairseq.cli import export
from xgpt_fairseq.onnx_export import folder as onnx_folder
from xgpt_fairseq.onnx_export import storage
from xgpt_fairseq.vision.extractor import RegionExtractor
from xgpt_fairseq.vision.photos import Photo
from xgpt_runtime import Captioner
from xgpt_runtime.captioner import Regions

HALF = 2  # bytes


def test_the_folder_is_whole_and_says_no_place_of_a_machine(lite_folder: Path) -> None:
    assert {file.name for file in lite_folder.iterdir()} == set(onnx_folder.FILES)
    described = json.loads((lite_folder / "captioner.json").read_text())
    assert described["storage"] == "float32" and described["photos"]["grid"] == 2
    for file in lite_folder.glob("*.onnx"):
        graph = onnx.load(file, load_external_data=False)
        assert (graph.ir_version, [each.version for each in graph.opset_import]) == (8, [18]), file.name
    for file in lite_folder.iterdir():
        assert not re.search(rb"/(home|root|tmp|work|Users|mnt)/", file.read_bytes()), file.name
    card = (lite_folder / "README.md").read_text()
    assert card.startswith("# Of seven photos") and "efficientnet-lite0" in card and "LICENSE.backbone" in card
    assert "Apache" in (lite_folder / "LICENSE.backbone").read_text()


def test_the_graphs_stored_in_16_bits_are_half_as_large_and_say_the_same(lite_folder: Path, tmp_path: Path) -> None:
    graphs = {file.name: onnx.load(file) for file in lite_folder.glob("*.onnx")}
    less = shutil.copytree(lite_folder, tmp_path / "onnx")
    storage.write_graphs(graphs, less, storage="16-bit")
    size = {folder: (folder / storage.WEIGHTS).stat().st_size for folder in (lite_folder, less)}
    assert 0.5 * size[lite_folder] < size[less] < 0.55 * size[lite_folder]
    regions = Regions(np.random.default_rng(0).random((4, 1280)).astype(np.float16), np.tile([0, 0, 1, 1], (4, 1)))
    (exact, *_), (found, *_) = (Captioner(folder).candidates([regions])[0] for folder in (lite_folder, less))
    assert found.text == exact.text and found.score == pytest.approx(exact.score, abs=1e-2)


def test_a_folder_without_the_graph_of_photos_captions_regions_alone(lite_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lite_folder, tmp_path / "onnx", ignore=shutil.ignore_patterns("photo.onnx"))
    described = json.loads((folder / "captioner.json").read_text())
    reason = "the model was trained on others"
    (folder / "captioner.json").write_text(json.dumps(described | {"photos": None, "no_photos": reason}))
    lite = Captioner(folder)
    [found] = lite.candidates([Regions(np.ones((4, 1280), np.float16), np.tile([0, 0, 1, 1], (4, 1)))])
    assert found[0].text
    with pytest.raises(ValueError, match=f"captions only regions that are given: {reason}"):
        lite.caption(tmp_path / "photo.jpg")


def test_what_the_export_is_asked_for_and_says(
    call_program: Callable[..., Any], tiny_bundle: Path, lite_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """16 bits by default; and what is there is not replaced unasked, nor what is none of its own."""
    stored = []

    def write_folder(*_: object, storage: str, **__: object) -> onnx_folder.Exported:
        stored.append(storage)
        return onnx_folder.Exported(1.5, "" if storage == "mixed" else "the model was trained on others")

    monkeypatch.setattr(onnx_folder, "write_folder", write_folder)
    command = [export.main, tiny_bundle, "--onnx"]
    none = call_program(*command, "--output", tmp_path / "onnx")
    assert none.stdout == (
        f"{tmp_path / 'onnx'}: 1.5 MB, weights stored as 16-bit\n"
        "captions only regions that are given to it, no photos: the model was trained on others\n"
    )
    done = call_program(*command, "--output", tmp_path / "onnx", "--storage", "mixed")
    assert "weights stored as mixed\ncaptions photos" in done.stdout and stored == ["16-bit", "mixed"]
    again = call_program(*command, "--output", lite_folder)
    assert again.error.endswith("exists and is not empty; --overwrite replaces a folder of --onnx in it")
    other = call_program(*command, "--overwrite", "--output", tiny_bundle)
    assert "is not a folder of --onnx (it has no captioner.json), and is not replaced" in other.error
    assert len(stored) == 2


@pytest.mark.thorough
def test_a_captioner_without_photos(call_program: Callable[..., Any], tiny_vocabulary: Path, tmp_path: Path) -> None:
    """Of a model whose regions are given to it, of a store of some other network; of one layer, half the export."""
    captioner = build(tiny_vocabulary, extractor=False, sharing="enc-dec", layers=1)
    captioner.save(tmp_path / "bundle")
    done = call_program(export.main, tmp_path / "bundle", "--onnx", "--output", tmp_path / "onnx")
    assert done.status == 0, done.stderr
    assert "weights stored as 16-bit\n" in done.stdout
    assert done.stdout.endswith(
        "captions only regions that are given to it, no photos: the model was trained on regions of photos (mine)\n"
    )
    matrices = sum(p.numel() for p in captioner.model.parameters() if p.dim() > 1)
    assert (tmp_path / "onnx" / "weights.bin").stat().st_size < 1.05 * HALF * matrices
    assert not (tmp_path / "onnx" / "photo.onnx").exists()
    lite = Captioner(tmp_path / "onnx")
    features = np.random.default_rng(0).random((4, 1280)).astype(np.float16)
    [found] = lite.candidates([Regions(features, np.tile([0, 0, 1, 1], (4, 1)))])
    assert found[0].text
    with pytest.raises(ValueError, match=r"captions only regions that are given: the model was trained on"):
        lite.caption(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--onnx", "--dtype", "float16"],
            "--dtype is for bundles; with --onnx, the weights are stored as --storage",
        ),
        (["--onnx", "--with-backbone"], "--with-backbone is for bundles"),
        (["--storage", "mixed"], "--storage is for --onnx"),
        (["--title", "Cats"], "--title has no effect without --html or --html-folder"),
        (["--onnx", "--title", "Cats"], "--title has no effect without --html or --html-folder"),
        (["--backbone-weights", "w"], "--backbone-weights has no effect on a bundle without --with-backbone"),
    ],
)
def test_options_that_do_not_go_together(
    call_program: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = call_program(export.main, tiny_bundle, *options, "--output", tmp_path / "out")
    assert done.error.startswith(message) and not (tmp_path / "out").exists()


def test_without_the_packages(
    call_program: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_folder, "find_spec", lambda name: None if name.startswith("onnxs") else True)
    done = call_program(export.main, tiny_bundle, "--onnx", "--output", tmp_path / "out")
    assert done.error == '--onnx needs the packages onnxscript: pip install "xgpt-fairseq[onnx]"'


class Network(nn.Module):
    """A network of one convolution; *broken*: what an exporter can't follow, or follows wrongly."""

    def __init__(self, broken: str = "") -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 32, stride=32)
        self.broken = broken

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.broken == "branch":
            return y if float(y.sum()) > 0 else -y
        if self.broken == "constant":
            return y + torch.from_numpy(np.full(1, float(np.prod(x.shape[2:] == (np.int64(224), 160)))))
        return y


@pytest.mark.thorough
@pytest.mark.parametrize("grid", [3, "tokens", None])
def test_photos_of_any_grid(grid: Any, monkeypatch: pytest.MonkeyPatch, tiny_vocabulary: Path) -> None:
    import onnxruntime

    extractor = RegionExtractor(grid=grid, image_size=96, device="cpu")
    torch.manual_seed(0)
    monkeypatch.setattr(extractor.backbone, "network", Network().eval().requires_grad_(False))
    bundle = build(tiny_vocabulary).bundle
    graph, reason = onnx_folder._photo(bundle, extractor)
    assert not reason
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    for shape in ((96, 64, 3), (32, 96, 3)):
        pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        boxes = [np.array([[0, 0.5, 0.5, 1]])] if grid is None else None
        [expected] = extractor.extract([Photo(pixels, (1, 1))], boxes)
        inputs = {"pixels": pixels[None], **({} if grid == "tokens" else {"boxes": expected.boxes[None]})}
        [[found]] = session.run(None, inputs)
        np.testing.assert_allclose(found.astype(float), expected.features.astype(float), rtol=1e-3, atol=1e-3)


def test_a_network_that_is_not_exported_is_named(monkeypatch: pytest.MonkeyPatch, tiny_vocabulary: Path) -> None:
    bundle = build(tiny_vocabulary).bundle
    extractor = RegionExtractor(grid=2, image_size=96, device="cpu")
    monkeypatch.setattr(extractor.backbone, "network", Network("branch").eval().requires_grad_(False))
    graph, reason = onnx_folder._photo(bundle, extractor)
    assert graph is None and reason.startswith("efficientnet-lite0 can't be exported (")
    monkeypatch.setattr(extractor, "bf16", True)
    assert "bfloat16" in onnx_folder._photo(bundle, extractor)[1]


@pytest.mark.thorough
def test_a_network_that_computes_something_else_is_named(
    monkeypatch: pytest.MonkeyPatch, tiny_vocabulary: Path
) -> None:
    extractor = RegionExtractor(grid=2, image_size=96, device="cpu")
    monkeypatch.setattr(extractor.backbone, "network", Network().eval().requires_grad_(False))
    monkeypatch.setattr(onnx_folder, "_distance", lambda *_: float("nan"))
    graph, reason = onnx_folder._photo(build(tiny_vocabulary).bundle, extractor)
    assert graph is None and "computes other features" in reason
