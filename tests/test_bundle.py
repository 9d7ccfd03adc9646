"""Bundles: what a model says after it was written and read; what is wrong with one."""

from __future__ import annotations

import copy
import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_hub_interface import SIZES, build, draw
from xgpt_fairseq import hub_interface
from xgpt_fairseq.bundle import Bundle
from xgpt_fairseq.cli import prepare_captions
from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.hub_interface import XGPTHubInterface
from xgpt_fairseq.models.xgpt import XGPTModel
from xgpt_fairseq.regions import novelty
from xgpt_fairseq.regions.novelty import NoveltyDetector
from xgpt_fairseq.regions.writer import RegionWriter


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def captioner(tiny_vocabulary: Path) -> XGPTHubInterface:
    return build(tiny_vocabulary)


@pytest.fixture(scope="module")
def bundle(captioner: XGPTHubInterface, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    captioner.save(path)
    return path


def test_a_bundle_says_what_the_model_says(captioner: XGPTHubInterface, bundle: Path, photos: list[Path]) -> None:
    opened = XGPTModel.from_pretrained(str(bundle))
    assert opened.config == captioner.config and opened.bundle.extractor_settings == captioner.bundle.extractor_settings
    state = opened.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in captioner.model.state_dict().items())
    assert opened.caption(photos) == captioner.caption(photos)
    assert sorted(file.name for file in bundle.iterdir()) == [
        "bpe.codes", "bundle.json", "dict.txt", "model.safetensors", "vocabulary.json",
    ]  # fmt: skip


def test_a_bundle_keeps_what_its_features_look_like(captioner: XGPTHubInterface, tmp_path: Path) -> None:
    model = copy.deepcopy(captioner.model)
    mean, std = torch.rand(2, 1280)
    model.encoder.regions.keep_statistics(mean, std)
    Bundle(model, captioner.config, captioner.vocabulary, None, trained_on="").write(tmp_path / "bundle")
    regions = Bundle.read(tmp_path / "bundle").model.encoder.regions
    assert torch.equal(regions.feature_mean, mean) and torch.equal(regions.feature_std, std)


@pytest.mark.parametrize("sharing", ["enc", "enc-dec"])
def test_every_structure_makes_a_bundle(
    sharing: str, tiny_vocabulary: Path, photos: list[Path], tmp_path: Path
) -> None:
    captioner = build(tiny_vocabulary, sharing=sharing, normalize_before=True)
    captioner.save(tmp_path / "bundle")
    assert XGPTHubInterface.from_path(tmp_path / "bundle").caption(photos[:2]) == captioner.caption(photos[:2])


def test_what_is_wrong_with_a_bundle_is_said(captioner: XGPTHubInterface, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a bundle.*xgpt-export"):
        XGPTHubInterface.from_path(tmp_path)
    captioner.save(tmp_path / "bundle")
    with pytest.raises(DataError, match="is a bundle, which needs no data directory"):
        XGPTHubInterface.from_path(tmp_path / "bundle", data=tmp_path)
    card = tmp_path / "bundle" / "README.md"
    card.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"README\.md is not readable: 'utf-8' codec"):
        XGPTHubInterface.from_path(tmp_path / "bundle")
    card.unlink()
    weights = tmp_path / "bundle" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model.safetensors is damaged or cut short"):
        XGPTHubInterface.from_path(tmp_path / "bundle")
    weights.unlink()
    with pytest.raises(DataError, match=r"model.safetensors is missing; export the model again"):
        XGPTHubInterface.from_path(tmp_path / "bundle")
    description = tmp_path / "bundle" / "bundle.json"
    description.write_text(description.read_text().replace('"layers"', '"leaders"'))
    with pytest.raises(DataError, match=r"bundle.json is damaged: .*leaders"):
        XGPTHubInterface.from_path(tmp_path / "bundle")
    description.write_text(json.dumps({**json.loads(description.read_text()), "model": "x"}))
    with pytest.raises(DataError, match=r"bundle.json is damaged: "):
        XGPTHubInterface.from_path(tmp_path / "bundle")


def test_a_checkpoint_needs_its_configuration_and_images(
    captioner: XGPTHubInterface, tiny_data: Path, tmp_path: Path
) -> None:
    state = captioner.model.state_dict()
    torch.save({"model": state}, tmp_path / "bare.pt")
    with pytest.raises(DataError, match="has no configuration of its model"):
        XGPTHubInterface.from_path(tmp_path / "bare.pt")
    cfg = {"model": Namespace(**SIZES), "task": {}}
    torch.save({"model": state, "cfg": cfg}, tmp_path / "homeless.pt")
    with pytest.raises(DataError, match="does not say which data it was trained on"):
        XGPTHubInterface.from_path(tmp_path / "homeless.pt")
    text = {name: tensor for name, tensor in state.items() if "region" not in name}
    torch.save({"model": text, "cfg": cfg}, tmp_path / "text.pt")
    with pytest.raises(DataError, match="is a model of text alone"):
        XGPTHubInterface.from_path(tmp_path / "text.pt", data=tiny_data)
    with pytest.raises(DataError, match=r"missing\.pt does not exist"):
        XGPTModel.from_pretrained(str(tmp_path), "missing.pt")


NOVELTY = NoveltyDetector(
    mean=np.linspace(0, 1, 1280, dtype=np.float32),
    directions=np.eye(3, 1280, dtype=np.float32),
    median=2.5,
    limit=1.5,
    group_limit=1.25,
)


def test_a_bundle_keeps_what_it_is_given(
    captioner: XGPTHubInterface,
    tmp_path: Path,
) -> None:
    bundle = copy.copy(captioner.bundle)
    bundle.card, bundle.training, bundle.novelty = "# A captioner: ü\n", {"images": 3}, NOVELTY
    bundle.write(tmp_path / "bundle")
    opened = Bundle.read(tmp_path / "bundle")
    assert (opened.card, opened.training) == (bundle.card, bundle.training)
    assert (tmp_path / "bundle" / "README.md").read_text() == bundle.card
    assert opened.novelty is not None
    features = np.random.default_rng(0).random((4, 1280)).astype(np.float32)
    assert opened.novelty.distance(features) == pytest.approx(NOVELTY.distance(features), rel=1e-6)
    assert (opened.novelty.limit, opened.novelty.group_limit) == (1.5, 1.25)
    captioner.save(tmp_path / "bundle")  # what the new one doesn't have goes
    opened = Bundle.read(tmp_path / "bundle")
    assert (opened.card, opened.training, opened.novelty) == ("", {}, None)


def test_a_folder_of_something_else_is_no_place_for_a_bundle(captioner: XGPTHubInterface, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(DataError, match=r"is not a bundle \(it has no bundle\.json\), and is not replaced"):
        captioner.save(tmp_path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]
    captioner.save(str(tmp_path / "bundle"))
    assert (tmp_path / "bundle" / "bundle.json").exists()


def test_float16_is_half_as_large_and_says_nearly_the_same(
    captioner: XGPTHubInterface,
    bundle: Path,
    photos: list[Path],
    tmp_path: Path,
) -> None:
    captioner.bundle.write(tmp_path / "half", dtype="float16")
    whole, half = ((path / "model.safetensors").stat().st_size for path in (bundle, tmp_path / "half"))
    assert half < 0.52 * whole
    opened = XGPTHubInterface.from_path(tmp_path / "half")
    assert next(opened.model.parameters()).dtype == torch.float32
    found, expected = (each.caption(photos, return_scores=True) for each in (opened, captioner))
    assert [each.text for each in found] == [each.text for each in expected]
    assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=0.01)
    assert [each.score for each in found] != [each.score for each in expected]


def test_a_parameter_that_float16_cannot_hold(captioner: XGPTHubInterface, tmp_path: Path) -> None:
    bundle = copy.copy(captioner.bundle)
    bundle.model = copy.deepcopy(bundle.model)
    with torch.no_grad():
        bundle.model.decoder.output.bias[0] = 1e5
    with pytest.raises(DataError, match=r"parameter decoder\.output\.bias has values that are not finite in float16"):
        bundle.write(tmp_path / "bundle", dtype="float16")
    assert not (tmp_path / "bundle").exists()


def test_without_a_path_it_is_the_captioner_of_the_package(
    bundle: Path,
    photos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_interface, "RELEASED", bundle)
    assert XGPTModel.from_pretrained().caption(photos) == XGPTModel.from_pretrained(str(bundle)).caption(photos)
    monkeypatch.setattr(hub_interface, "RELEASED", tmp_path / "none")
    with pytest.raises(DataError, match="no captioner comes with this version: name a bundle"):
        XGPTModel.from_pretrained()


def test_what_from_pretrained_is_given_counts(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = XGPTModel.from_pretrained(str(bundle), backbone_weights="weights.pt", offline=True)
    assert (opened.backbone_weights, opened.offline) == (Path("weights.pt"), True)
    with pytest.raises(TypeError, match="ofline"):
        XGPTModel.from_pretrained(str(bundle), ofline=True)
    monkeypatch.setattr(hub_interface, "RELEASED", bundle)  # which is not the checkpoint that is named
    with pytest.raises(DataError, match=r"^checkpoint gone\.pt does not exist"):
        XGPTModel.from_pretrained(checkpoint_file="gone.pt")


@pytest.fixture
def pets(
    tiny_captions: Path, tiny_vocabulary: Path, write_store: Callable[..., Path], tmp_path: Path,
    call_program: Callable[..., Any],
) -> Path:  # fmt: skip
    """A data directory with a store of features of 1280 numbers, imported ones."""
    ids = [image["cocoid"] for image in json.loads(tiny_captions.read_text())["images"]]
    store = write_store(tmp_path / "store", feature_dim=1280, images=ids)
    done = call_program(
        prepare_captions.main, tiny_captions, "--vocabulary", tiny_vocabulary, "--regions", store, "--output",
        tmp_path / "pets",
    )  # fmt: skip
    assert done.status == 0
    return tmp_path / "pets"


def test_a_checkpoint_says_what_it_was_trained_on(
    captioner: XGPTHubInterface, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = json.loads((pets / "dataset.json").read_text())["splits"]["train"]
    cfg = {"model": Namespace(**SIZES), "task": {"data": str(pets)},
           "checkpoint": {"finetune_from_model": "checkpoints/text/averaged.pt"}}  # fmt: skip
    state = {"model": captioner.model.state_dict(), "cfg": cfg, "optimizer_history": [{"num_updates": 9}]}
    torch.save(state, tmp_path / "checkpoint.pt")
    bundle = Bundle.of_checkpoint(tmp_path / "checkpoint.pt", None)
    assert bundle.training == {
        "data": "pets", "images": sizes["images"], "captions": sizes["captions"], "updates": 9,
        "started_from": "averaged.pt",
    }  # fmt: skip
    assert bundle.novelty is None  # of so few images
    monkeypatch.setattr(novelty, "FEWEST_IMAGES", sizes["images"])
    assert Bundle.of_checkpoint(tmp_path / "checkpoint.pt", None).novelty is not None
    state["cfg"]["checkpoint"], state["optimizer_history"] = {}, []
    torch.save(state, tmp_path / "checkpoint.pt")
    training = Bundle.of_checkpoint(tmp_path / "checkpoint.pt", pets).training
    assert (training["updates"], training["started_from"]) == (None, None)


def test_a_checkpoint_that_was_trained_on_another_store(
    captioner: XGPTHubInterface, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By --regions: the data directory's own store says nothing of its features."""
    own, settings = DataDirectory(pets).regions, captioner.bundle.extractor_settings
    with RegionWriter(tmp_path / "other", 1280, source={"extractor": settings, "max_regions": 37}) as writer:
        for row in range(len(own)):
            writer.add(own.image_id(row), own.features(row), own.boxes(row), position=row + 1)
        writer.finish()
    monkeypatch.chdir(tmp_path)  # where fairseq-train was started
    cfg = {"model": Namespace(**SIZES), "task": {"data": "pets", "regions": "other"}}
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"model": captioner.model.state_dict(), "cfg": cfg}, checkpoint)
    for data in (None, pets):
        bundle = Bundle.of_checkpoint(checkpoint, data)
        assert (bundle.extractor_settings, bundle.max_regions) == (settings, 37)
    assert Bundle.of_checkpoint(checkpoint, None, own.path).extractor_settings is None
    (tmp_path / "moved").symlink_to(pets)  # a link to the same one is the same one
    assert Bundle.of_checkpoint(checkpoint, tmp_path / "moved").max_regions == 37
    shutil.copytree(pets, tmp_path / "copy")
    with pytest.raises(DataError, match=r"trained on pets with --regions other: of another data directory, .*/copy"):
        Bundle.of_checkpoint(checkpoint, tmp_path / "copy")
    assert Bundle.of_checkpoint(checkpoint, tmp_path / "copy", tmp_path / "other").max_regions == 37
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(elsewhere)
        with pytest.raises(DataError, match=r": pets is not found from this folder, so that .*/pets may be another"):
            Bundle.of_checkpoint(checkpoint, pets)
        cfg["task"]["regions"] = str(tmp_path / "other")  # which is the same store from anywhere
        torch.save({"model": captioner.model.state_dict(), "cfg": cfg}, tmp_path / "absolute.pt")
        assert Bundle.of_checkpoint(tmp_path / "absolute.pt", pets).max_regions == 37
        manifest = json.loads((tmp_path / "copy" / "dataset.json").read_text())
        (tmp_path / "copy" / "dataset.json").write_text(json.dumps({**manifest, "regions_ids_crc32": "00000000"}))
        with pytest.raises(DataError, match=r": pets is not found from this folder, so that .*/copy may be another"):
            Bundle.of_checkpoint(tmp_path / "absolute.pt", tmp_path / "copy")
    (tmp_path / "other").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="with --regions other, which is not there: name it by --regions STORE"):
        Bundle.of_checkpoint(checkpoint, None)
