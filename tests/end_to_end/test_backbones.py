"""Photos seen by each kind of backbone and detector: regions, 12 updates, a bundle, and captions of other photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.end_to_end.layouts import kaggle_flickr8k, make
from tests.end_to_end.programs import logged, train
from tests.vision.backbones.tiny import import_detectors, import_torchvision, saved
from tests.vision.detectors import tiny_vg
from xgpt_fairseq.cli import caption, export, extract_regions, prepare_captions
from xgpt_fairseq.regions.store import RegionStore


def weights_of(name: str, folder: Path) -> Path:
    """Random weights for a backbone."""
    library, _, model = name.partition(":")
    torch.manual_seed(0)
    if library == "transformers":
        saved(model, folder / model)
        return folder / model
    import_torchvision()
    path = folder / "weights.pth"
    if library == "timm":
        import timm

        torch.save(timm.create_model(model, num_classes=0).state_dict(), path)
    else:
        from torchvision import models

        torch.save(models.get_model(model, weights=None).state_dict(), path)
    return path


def captions_of_photos_and_store(
    photos: Path, own: list[Any], call_program: Callable[..., Any], vocabulary: Path, folder: Path
) -> Path:
    """Train 12 updates on folder/regions, export, and caption both the photos and the store. Returns the bundle."""
    data, bundle = folder / "data", folder / "bundle"
    done = call_program(
        prepare_captions.main, photos / "captions.txt", "--hold-out", "val=0.3", "--vocabulary", vocabulary,
        "--regions", folder / "regions", "--output", data,
    )  # fmt: skip
    assert done.status == 0, done.error
    options = ["--max-update", "12", "--no-epoch-checkpoints", "--disable-validation"]
    losses = logged(train(data, folder / "run", *options).stdout, "ic_nll_loss")
    assert len(losses) == 12 and losses[-1] < losses[0]

    done = call_program(export.main, folder / "run" / "checkpoint_last.pt", "--output", bundle)
    assert done.status == 0 and "captions photos and region stores" in done.stdout
    here = ["--backbone-weights", own[1]] if own else []
    arguments = ["--path", bundle, "--offline", "--json", folder / "captions.json"]
    done = call_program(caption.main, photos / "Images", *arguments, *here)
    assert done.status == 0, done.error
    of_photos = {each["image_id"]: each["caption"] for each in json.loads((folder / "captions.json").read_text())}
    # the regions of photos are those of the store
    done = call_program(caption.main, folder / "regions", *arguments, "--overwrite")
    of_store = {each["image_id"]: each["caption"] for each in json.loads((folder / "captions.json").read_text())}
    assert of_photos == of_store and len(of_photos) == 12

    # packed with the network, a bundle needs nothing else
    packed = folder / "packed"
    done = call_program(export.main, bundle, "--output", packed, "--with-backbone", "--offline", *here)
    if not own:
        assert "come with its package (extra photos), so they are not packed" in done.stdout
        return bundle
    assert done.status == 0 and "their licence is not known here" in done.stdout, done.error
    arguments = ["--path", packed, "--offline", "--json", folder / "captions.json", "--overwrite"]
    done = call_program(caption.main, *sorted((photos / "Images").iterdir())[:3], *arguments)
    assert done.status == 0, done.error
    found = {each["image_id"]: each["caption"] for each in json.loads((folder / "captions.json").read_text())}
    assert len(found) == 3 and found.items() <= of_photos.items()
    again = folder / "again"  # a bundle of a bundle keeps it
    assert call_program(export.main, packed, "--output", again).status == 0
    assert (again / "backbone.safetensors").read_bytes() == (packed / "backbone.safetensors").read_bytes()
    return bundle


@pytest.mark.parametrize(
    ("name", "options", "regions"),
    [
        pytest.param("efficientnet-lite2", ["--grid", "2", "--image-size", "64"], 5, marks=pytest.mark.thorough),
        pytest.param(  # more regions than the 100 of the paper
            "transformers:dinov3", ["--tokens", "--image-size", "88"], 122, marks=pytest.mark.thorough
        ),
        ("timm:test_vit", ["--pool", "3"], 10),
        pytest.param(
            "torchvision:mobilenet_v3_small",
            ["--tokens", "--image-size", "96", "--layer", "features.6"],
            37,
            marks=pytest.mark.thorough,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_from_photos_to_captions(
    name: str,
    options: list[str],
    regions: int,
    call_program: Callable[..., Any],
    tiny_vocabulary: Path,
    tmp_path: Path,
) -> None:
    photos = make(kaggle_flickr8k, tmp_path / "photos").folder
    own = [] if name.startswith("efficientnet") else ["--weights", weights_of(name, tmp_path)]
    extract = [photos / "Images", "--backbone", name, *own, *options, "--offline", "--device", "cpu", "--workers", "0"]
    done = call_program(extract_regions.main, *extract, "--output", tmp_path / "regions")
    assert done.status == 0, done.error
    store = RegionStore(tmp_path / "regions")
    assert len(store) == 12 and store.region_counts().max() == regions
    settings = store.source["extractor"]
    assert settings["backbone"] == name and len(settings["weights_sha256"]) == 64

    bundle = captions_of_photos_and_store(photos, own, call_program, tiny_vocabulary, tmp_path)

    if name != "efficientnet-lite2":
        return
    for option, message in (
        (["--image-size", "32"], "was made with image_size 32, the model was trained on features with 64"),
        (["--grid", "3"], "was made with grid 3, the model was trained on features with 2"),
    ):
        call_program(extract_regions.main, *extract, *option, "--output", tmp_path / option[0])
        done = call_program(caption.main, tmp_path / option[0], "--path", bundle)
        assert done.status == 1 and message in done.error  # of the same width


@pytest.mark.parametrize(
    "name",
    ["vg-bottom-up", pytest.param("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", marks=pytest.mark.thorough)],
)
def test_from_photos_to_captions_by_detectors(
    name: str,
    call_program: Callable[..., Any],
    tiny_vocabulary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = make(kaggle_flickr8k, tmp_path / "photos").folder
    if name == "vg-bottom-up":
        weights, width, least = tiny_vg.save(tmp_path, "pkl"), tiny_vg.FEATURES, 4
        names = tmp_path / "names.txt"
        names.write_text("\n".join(f"thing {number}" for number in range(tiny_vg.OBJECTS)))
        options = ["--min-regions", "4", "--max-regions", "6", "--label-names", names]
    else:
        import_detectors(monkeypatch)
        from torchvision import models

        torch.manual_seed(0)
        weights, width, least = tmp_path / "weights.pth", 1024, 1
        model = models.get_model(name.partition(":")[2], weights=None, weights_backbone=None, num_classes=4)
        torch.save(model.state_dict(), weights)
        options = ["--max-regions", "6"]
    own = ["--weights", weights]
    extract = [photos / "Images", "--detector", name, *own, *options, "--offline", "--device", "cpu", "--workers", "0"]
    done = call_program(extract_regions.main, *extract, "--output", tmp_path / "regions")
    assert done.status == 0, done.error
    store = RegionStore(tmp_path / "regions")
    assert len(store) == 12 and store.feature_dim == width
    assert store.region_counts().min() >= least and store.region_counts().max() <= 6
    assert store.source["extractor"]["detector"] == name and store.source["boxes"] == f"detector {name}"
    for row in range(len(store)):
        assert (np.diff(store.scores(row)) <= 0).all()
        labels = store.labels(row)
        assert all(label.startswith("thing") for label in labels) if least == 4 else labels[0] == "whole image"
    bundle = captions_of_photos_and_store(photos, own, call_program, tiny_vocabulary, tmp_path)

    extract[0] = next((photos / "Images").iterdir())
    call_program(extract_regions.main, *extract, "--max-regions", "5", "--output", tmp_path / "other")
    done = call_program(caption.main, tmp_path / "other", "--path", bundle)
    assert done.status == 1 and "was made with max_regions 5" in done.error
