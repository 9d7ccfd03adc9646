"""The Visual Genome detector against a plain reading, and its files of weights."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vision.detectors import plain_vg, tiny_vg
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.detectors.base import DetectorOptions
from xgpt_fairseq.vision.detectors.registry import load_detector
from xgpt_fairseq.vision.detectors.vg_bottom_up import FORM, VGBottomUp, base_anchors

OBJECTS = [f"object{number}" for number in range(tiny_vg.OBJECTS)]
ATTRIBUTES = [f"attribute{number}" for number in range(tiny_vg.ATTRIBUTES)]


def photo(seed: int, height: int = 96, width: int = 128) -> torch.Tensor:
    """A photo of few coloured rectangles: (1, H, W, 3)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), rng.integers(0, 255, 3), dtype=np.uint8)
    for _ in range(6):
        y, x = rng.integers(0, height - 20), rng.integers(0, width - 20)
        pixels[y : y + rng.integers(20, 60), x : x + rng.integers(20, 60)] = rng.integers(0, 255, 3)
    return torch.from_numpy(pixels)[None]


def in_float64(seed: int) -> tuple[VGBottomUp, dict[str, Any]]:
    """A tiny detector, and its state for `plain_vg`."""
    state = tiny_vg.caffe_state(seed)
    used = {name: value for name, value in state.items() if ".bbox_pred." not in name}
    detector = VGBottomUp(used, OBJECTS, ATTRIBUTES).double()
    return detector, {name: value.double().numpy() for name, value in state.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_regions_are_those_of_a_plain_reading(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, state = in_float64(seed)
    # pixels are float32 before the means are subtracted, which is exact for 0 to 255
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    detector.means = torch.tensor([102.9801, 115.9465, 122.7717], dtype=torch.float64).view(1, 3, 1, 1)
    pixels = photo(seed)
    [found] = detector.detect(pixels, [(256, 192)], min_regions=3, max_regions=12)
    expected = plain_vg.detect(state, pixels[0].numpy(), 0.5, 3, 12)
    np.testing.assert_allclose(found.boxes.numpy(), expected["boxes"], atol=1e-9)
    np.testing.assert_allclose(found.scores.numpy(), expected["scores"], atol=1e-12)
    np.testing.assert_allclose(
        found.features.numpy(), expected["features"], atol=2e-6
    )  # the reference pools in float32
    names = []
    for number, probabilities in zip(expected["objects"], expected["attributes"], strict=True):
        best = int(probabilities[1:].argmax())
        names.append(f"{ATTRIBUTES[best]} {OBJECTS[number]}" if probabilities[1 + best] >= 0.1 else OBJECTS[number])
    assert list(found.labels) == names
    assert (np.diff(found.scores.numpy()) <= 0).all()


def test_the_reference_is_no_trivial_case() -> None:
    """Some boxes are confident and some not; some are doubles of others."""
    detector, state = in_float64(1)
    expected = plain_vg.detect(state, photo(1)[0].numpy(), 0.5, 1, 1000)
    assert 3 <= len(expected["scores"]) < len(expected["proposals"])
    doubles = np.array(expected["overlaps"]) >= 0.3
    assert doubles.sum() > 2 * len(doubles)
    assert len(set(expected["objects"])) > 1
    assert detector.feature_dim == tiny_vg.FEATURES


def test_anchors() -> None:
    assert base_anchors().tolist() == plain_vg.ANCHORS


@pytest.mark.parametrize(("fewest", "most"), [(1, 100), (10, 100), (36, 36), (1, 2)])
def test_how_many_regions(fewest: int, most: int) -> None:
    detector, _ = in_float64(2)
    detector = detector.float()
    [unlimited] = detector.detect(photo(2), [(128, 96)], min_regions=1, max_regions=300)
    confident = int((unlimited.scores >= 0.2).sum())
    [found] = detector.detect(photo(2), [(128, 96)], min_regions=fewest, max_regions=most)
    proposed = 300
    assert len(found.scores) == min(max(min(confident, most), fewest), proposed)
    assert found.truncated == (confident > most)


def test_a_photo_of_one_colour_has_regions() -> None:
    detector, _ = in_float64(3)
    pixels = torch.zeros(1, 40, 48, 3, dtype=torch.uint8)
    [found] = detector.float().detect(pixels, [(48, 40)], min_regions=10, max_regions=100)
    assert len(found.boxes) >= 1
    for height, width in ((16, 1000), (1000, 16)):  # a strip
        strip = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        [found] = detector.detect(strip, [(width, height)], min_regions=10, max_regions=100)
        assert len(found.boxes) >= 1
    tiny = torch.zeros(1, 20, 30, 3, dtype=torch.uint8)
    [found] = detector.float().detect(tiny, [(3, 2)], min_regions=10, max_regions=100)  # no box is large enough
    assert found.boxes.tolist() == [[0, 0, 29, 19]]


def test_photos_of_a_batch_are_as_alone() -> None:
    detector, _ = in_float64(1)
    detector = detector.float()
    both = torch.cat([photo(1), photo(2)])
    options = {"min_regions": 10, "max_regions": 100}
    together = detector.detect(both, [(128, 96)] * 2, **options)
    for number in range(2):
        [alone] = detector.detect(both[number : number + 1], [(128, 96)], **options)
        torch.testing.assert_close(together[number].features, alone.features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[number].boxes, alone.boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (800, 600)), ((480, 640), (600, 800)), ((2000, 500), (1000, 250)), ((1200, 2), (1000, 16))],
)
def test_sizes_of_photos(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert FORM.size_of(*size) == expected


@pytest.mark.parametrize("wrong", ["twice as large", "one twice", "four"])
def test_anchors_of_another_detector_are_refused(tmp_path: Path, wrong: str) -> None:
    path = tiny_vg.save(tmp_path, "bin")
    state = torch.load(path, weights_only=True)
    own = state["proposal_generator.anchor_generator.cell_anchors.0"]
    others = {"twice as large": 2 * own, "one twice": torch.cat([own[:1], own[:-1]]), "four": own[:4]}
    torch.save({**state, "proposal_generator.anchor_generator.cell_anchors.0": others[wrong]}, path)
    with pytest.raises(DataError, match=r"tiny\.bin, entry 'proposal_generator\.anchor.*: boxes .* detector proposes"):
        load_detector("vg-bottom-up", DetectorOptions(weights=path))


def test_the_three_files_are_one_detector(tmp_path: Path) -> None:
    names = [tmp_path / "objects.txt", tmp_path / "attributes.txt"]
    names[0].write_text("\n".join(f"{name},another name" for name in OBJECTS))
    names[1].write_text("\n".join(ATTRIBUTES))
    found = []
    for kind in ("pth", "pkl", "bin"):
        path = tiny_vg.save(tmp_path, kind, seed=2)
        detector = load_detector("vg-bottom-up", DetectorOptions(weights=path, label_names=names))
        found.append(detector.detect(photo(2), [(128, 96)], min_regions=10, max_regions=100)[0])
    for other in found[1:]:
        torch.testing.assert_close(other.features, found[0].features, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other.boxes, found[0].boxes, atol=1e-3, rtol=1e-5)
        assert other.labels == found[0].labels
    assert all(label.split()[-1] in OBJECTS for label in found[0].labels)
    without = load_detector("vg-bottom-up", DetectorOptions(weights=tmp_path / "tiny.pth"))
    labels = without.detect(photo(2), [(128, 96)], min_regions=10, max_regions=100)[0].labels
    assert [f"object{int(label) - 1}" for label in labels] == [label.split()[-1] for label in found[0].labels]


def test_weights_without_attributes(tmp_path: Path) -> None:
    state = {k: v for k, v in tiny_vg.caffe_state().items() if not any(n in k for n in ("attr", "embedding"))}
    torch.save(state, tmp_path / "tiny.pth")
    detector = load_detector("vg-bottom-up", DetectorOptions(weights=tmp_path / "tiny.pth"))
    assert detector.detect(photo(2), [(128, 96)], min_regions=10, max_regions=100)[0].labels
    (tmp_path / "names").write_text("a\n" * tiny_vg.OBJECTS)
    with pytest.raises(DataError, match="2 files; these weights know objects alone"):
        load_detector(
            "vg-bottom-up",
            DetectorOptions(weights=tmp_path / "tiny.pth", label_names=[tmp_path / "names", tmp_path / "names"]),
        )


def damaged(folder: Path, change: str) -> DetectorOptions:
    path = tiny_vg.save(folder, "pth")
    options = DetectorOptions(weights=path)
    state = torch.load(path)["model"]
    match change:
        case "no file":
            return DetectorOptions()
        case "not there":
            return DetectorOptions(weights=folder / "other.pth")
        case "cut":
            path.write_bytes(path.read_bytes()[:1000])
        case "another network":
            torch.save({"layer1.weight": torch.zeros(2)}, path)
        case "a list":
            torch.save([1, 2], path)
        case "a missing layer":
            del state["backbone.res4.1.conv2.weight"]
            torch.save({"model": state}, path)
        case "a missing norm":
            del state["backbone.res4.1.conv2.norm.bias"]
            torch.save({"model": state}, path)
        case "code":
            path = folder / "code.pkl"
            path.write_bytes(pickle.dumps({"model": {"a": print}}))
            return DetectorOptions(weights=path)
        case "text":
            state["backbone.res2.0.conv1.weight"] = "text"
            torch.save({"model": state}, path)
        case "anchors":
            state["proposal_generator.rpn_head.objectness_logits.weight"] = torch.zeros(30, 8, 1, 1)
            torch.save({"model": state}, path)
        case "names":
            (folder / "names").write_text("a\nb\n")
            return dataclasses.replace(options, label_names=[folder / "names"])
    return options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no file", "needs the file of its weights, --weights FILE"),
        ("not there", "other.pth can't be loaded"),
        ("cut", "tiny.pth can't be loaded"),
        ("another network", "has no entry 'proposal_generator.rpn_head.objectness_logits.weight'; the first of its 1"),
        ("a list", "holds a list, not weights by their names"),
        ("a missing layer", "backbone.res4.1.conv2.weight"),
        ("a missing norm", "backbone.res4.1.conv2.norm.bias"),
        ("code", "asks for builtins.print, which is refused"),
        ("text", "entry 'backbone.res2.0.conv1.weight': a str, not numbers"),
        ("anchors", "objectness_logits.weight: 30 rows; 12 or 24 are expected"),
        ("names", "names: 2 names; the detector knows 7"),
    ],
)
def test_files_that_are_refused(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_detector("vg-bottom-up", damaged(tmp_path, change))


def test_identity(tmp_path: Path) -> None:
    detector = load_detector("vg-bottom-up", DetectorOptions(weights=tiny_vg.save(tmp_path, "pth")))
    other = load_detector("vg-bottom-up", DetectorOptions(weights=tiny_vg.save(tmp_path, "pth", seed=1)))
    assert detector.identity["detector"] == "vg-bottom-up"
    different = [name for name in detector.identity if detector.identity[name] != other.identity[name]]
    assert different == ["weights_sha256"]


def test_boxes_below_sixteen_pixels_of_the_original_are_left_out() -> None:
    """Of a side from pixel 0 to pixel 15 there are 16. A box that isn't changed ends a pixel later, as Caffe's does."""
    detector, _ = in_float64(1)
    anchors = torch.tensor([[0, 0, 14, 14], [0, 0, 13.9, 40], [40, 0, 60, 13.5]], dtype=torch.float64)
    unchanged, objects = torch.zeros(3, 4, dtype=torch.float64), torch.tensor([0.2, 0.9, 0.8], dtype=torch.float64)
    [box] = detector._proposals(anchors, objects, unchanged, 100, 100, 16.0)
    assert box.tolist() == [0, 0, 15, 15]
