"""Starting one stage from another's checkpoint."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.small import build
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.feature_statistics import STATISTICS
from xgpt_fairseq.models.transfer import HEADS, IMAGE_PARTS, LoadMode, decode_structure
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTModel


def starting(model: XGPTModel, checkpoint: str) -> None:
    """The next checkpoint that *model* loads is one that a training starts from."""
    model.load_mode, model.checkpoint = LoadMode.START, checkpoint


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_images_are_new_after_text(caplog: pytest.LogCaptureFixture) -> None:
    text, model = build(seed=1, feature_dim=None), build(seed=2)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    starting(model, "text.pt")
    with caplog.at_level(logging.INFO):
        model.load_state_dict(text.state_dict())
    for name, tensor in model.state_dict().items():
        source = own if name.startswith((*IMAGE_PARTS, HEADS, "structure")) else text.state_dict()
        assert torch.equal(tensor, source[name]), name
    reused, new, dropped = logged(caplog)
    assert reused.startswith(
        f"parameters reused: {len(text.state_dict())} (dictionary_digest, structure, encoder.text.tokens"
    )
    assert "encoder.layers.0…1.attention.qkv.weight" in reused
    assert new.startswith(f"parameters new: {len(own) - len(text.state_dict())} (encoder.regions.embedding.project")
    assert "encoder.alignment.project.weight" in new and "heads.tifg.output.bias" in new
    assert dropped == "parameters dropped: 0 (none)"


def test_text_after_images_says_what_it_drops(caplog: pytest.LogCaptureFixture) -> None:
    text, model = build(seed=1, feature_dim=None), build(seed=2)
    starting(text, "images.pt")
    with caplog.at_level(logging.INFO):
        text.load_state_dict(model.state_dict())
    assert torch.equal(
        text.state_dict()["encoder.text.tokens.weight"], model.state_dict()["encoder.text.tokens.weight"]
    )
    assert logged(caplog)[2].startswith("parameters dropped:") and "encoder.regions." in logged(caplog)[2]


def test_captions_from_a_model_of_text_alone_are_refused() -> None:
    with pytest.raises(DataError, match=r"no image parts.*--finetune-from-model.*missing: encoder.regions.embedding"):
        build().load_state_dict(build(feature_dim=None).state_dict())
    with pytest.raises(DataError, match="the checkpoint has image parts, the model has none"):
        build(feature_dim=None).load_state_dict(build().state_dict())


def test_heads_may_be_new_or_dropped_where_a_training_starts(caplog: pytest.LogCaptureFixture) -> None:
    captioner, retriever = build(seed=1), build(seed=2, heads=["matching"])
    head = {name: tensor.clone() for name, tensor in retriever.state_dict().items() if name.startswith(HEADS)}
    starting(retriever, "captions.pt")
    with caplog.at_level(logging.INFO):
        retriever.load_state_dict(captioner.state_dict())
    own, given = retriever.state_dict(), captioner.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in {**given, **head}.items() if name in own)
    assert logged(caplog)[1].startswith("parameters new: 6 (heads.matching.regions.weight, heads.matching.regions.bia")
    assert logged(caplog)[2].startswith("parameters dropped: 3 (heads.tifg.start, ")
    caplog.clear()
    starting(captioner, "retrieval.pt")
    with caplog.at_level(logging.INFO):
        captioner.load_state_dict(build(seed=3, heads=["matching"]).state_dict())
    assert logged(caplog)[1].startswith("parameters new: 3 (heads.tifg.start")
    assert logged(caplog)[2].startswith("parameters dropped: 6 (heads.matching.regions.weight")


@pytest.mark.parametrize("mode", [LoadMode.RESUME, LoadMode.INFERENCE])
def test_a_head_that_is_missing_is_named(mode: LoadMode) -> None:
    model = build(heads=["tifg", "matching"])
    model.load_mode = mode
    with pytest.raises(DataError, match=r"the checkpoint has no matching head, since it was not trained for that"):
        model.load_state_dict(build().state_dict())


def test_a_model_that_is_used_does_without_heads_of_pre_training() -> None:
    model = build(seed=1, heads=[])
    given = build(seed=2, heads=["tifg"]).state_dict()
    model.load_state_dict(given)
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(DataError, match=r"has a matching head.*xgpt_retrieval trains a matching head, and does not ca"):
        model.load_state_dict(build(heads=["matching"]).state_dict())
    model.load_mode = LoadMode.RESUME
    with pytest.raises(DataError, match=r"the checkpoint has a tifg head, this model has none: it was trained with ot"):
        model.load_state_dict(given)


def of_an_earlier_version(state: dict[str, torch.Tensor], structure: int = 0) -> dict[str, torch.Tensor]:
    old = {"heads.tifg.start": "decoder.region_start", "heads.tifg.output.": "decoder.region_output."}
    old["heads.matching."] = "matching."
    renamed = {}
    for name, tensor in state.items():
        beginning = next((each for each in old if name.startswith(each)), None)
        renamed[name if beginning is None else old[beginning] + name.removeprefix(beginning)] = tensor
    return {**renamed, "structure": torch.tensor(structure, dtype=torch.uint8)}


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_checkpoints_of_earlier_versions(sharing: str) -> None:
    """They start trainings and are used; a training is not resumed, since its optimizer would mix up parameters."""
    place = ["enc-dec-share", "enc-dec", "enc"].index(sharing)
    before = build(seed=1, heads=["tifg", "matching"], sharing=sharing)
    old = of_an_earlier_version(before.state_dict(), place)
    assert "decoder.region_start" in old and "matching.score.bias" in old
    for mode in (LoadMode.START, LoadMode.INFERENCE):
        model = build(seed=2, heads=["tifg", "matching"], sharing=sharing)
        model.load_mode = mode
        model.load_state_dict(old)
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.state_dict().items())
    model.load_mode = LoadMode.RESUME
    with pytest.raises(DataError, match=r"of an earlier version, whose optimizer has its parameters in another order"):
        model.load_state_dict(old)
    model.load_mode = LoadMode.INFERENCE
    with pytest.raises(DataError, match=r"a model of --sharing \S+, this is one of --sharing"):
        model.load_state_dict({**old, "structure": torch.tensor((place + 1) % 3, dtype=torch.uint8)})


@pytest.mark.parametrize("mode", LoadMode)
def test_options_that_no_shape_shows_must_be_the_checkpoint_s(mode: LoadMode) -> None:
    for options, message in (
        ({"attention_heads": 2}, "a model with --attention-heads 4, this is one with --attention-heads 2"),
        ({"normalize_regions": True}, "with --normalize-regions False, this is one with --normalize-regions True"),
    ):
        model = build(**options)
        model.load_mode = mode
        with pytest.raises(DataError, match=message):
            model.load_state_dict(build().state_dict())
        if "normalize_regions" in options and mode is LoadMode.START:  # a model of text has no regions
            model.load_state_dict(build(feature_dim=None).state_dict())


def test_a_structure_that_was_averaged_elsewhere_is_refused() -> None:
    model = build()
    with pytest.raises(DataError, match="`structure` is unreadable: average checkpoints only with xgpt-average"):
        model.load_state_dict({**model.state_dict(), "structure": model.structure // 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, "checkpoint is a model with --layers 2, this is one with --layers 3: use the arch"),
        ({"layers": 1}, "checkpoint is a model with --layers 2, this is one with --layers 1: use the arch"),
        ({"normalize_before": True}, "only the model: encoder.final_norm.weight"),
        ({"no_segment_embedding": True}, "only the checkpoint has: encoder.segments.weight"),
        ({"hidden_size": 8}, r"checkpoint's encoder.text.tokens.weight has shape \(24, 16\), the model's \(24, 8\)"),
        ({"max_target_positions": 12}, r"encoder.text.positions.weight has shape \(24, 16\), the model's \(12, 16\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", LoadMode)
def test_other_structures_are_refused(options: dict, message: str, mode: LoadMode) -> None:
    model = build(**options)
    model.load_mode = mode
    with pytest.raises(DataError, match=message):
        model.load_state_dict(build().state_dict())


def test_regions_may_be_refined_more_deeply(caplog: pytest.LogCaptureFixture) -> None:
    model = build(refine_layers=3)
    starting(model, "stage.pt")
    with caplog.at_level(logging.INFO):
        model.load_state_dict(build(refine_layers=1).state_dict())
    assert "encoder.regions.refiner.1…2.qkv.weight" in logged(caplog)[1]


@pytest.mark.parametrize(("own", "given"), [("enc", "enc-dec-share"), ("enc-dec-share", "enc")])
def test_one_stack_starts_from_one_stack(own: str, given: str, caplog: pytest.LogCaptureFixture) -> None:
    model, checkpoint = build(seed=1, sharing=own), build(seed=2, sharing=given).state_dict()
    with pytest.raises(DataError, match=f"the checkpoint is a model of --sharing {given}, this is one of .* {own}$"):
        model.load_state_dict(checkpoint)
    starting(model, "stage.pt")
    with caplog.at_level(logging.INFO):
        model.load_state_dict(checkpoint)
    assert logged(caplog)[0] == (
        f"the checkpoint is a model of --sharing {given}: its weights are reused in one of --sharing {own}"
    )
    state = model.state_dict()
    assert decode_structure(state.pop("structure")) == {**decode_structure(checkpoint.pop("structure")), "sharing": own}
    assert all(torch.equal(tensor, checkpoint[name]) for name, tensor in state.items())


@pytest.mark.parametrize("mode", LoadMode)
@pytest.mark.parametrize("other", ["enc", "enc-dec-share"])
def test_two_stacks_and_one_are_no_start_for_each_other(other: str, mode: LoadMode) -> None:
    for own, given in (("enc-dec", other), (other, "enc-dec")):
        model = build(sharing=own)
        model.load_mode = mode
        start = f"^a model of --sharing {own} cannot start from one of --sharing {given}: "
        other_model = f"^the checkpoint is a model of --sharing {given}, this is one of --sharing {own}$"
        with pytest.raises(DataError, match=start if mode is LoadMode.START else other_model):
            model.load_state_dict(build(sharing=given).state_dict())


WIDE = 256


def trained_on(factor: float = 1.0, seed: int = 0, **options: Any) -> XGPTModel:
    """A model that knows the statistics of its features; other *seed*: of another detector."""
    rng = np.random.default_rng(seed)
    model = build(feature_dim=WIDE, **options)
    mean, spread = (torch.from_numpy(factor * rng.uniform(0.1, 2, WIDE)) for _ in range(2))
    model.encoder.regions.keep_statistics(mean, spread)
    model.store_name = "data/coco.regions"
    return model


def statistics(model: XGPTModel) -> list[torch.Tensor]:
    return [model.state_dict()[name] for name in STATISTICS]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def start(model: XGPTModel, state: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture) -> None:
    starting(model, "checkpoints/cc/averaged.pt")
    with caplog.at_level(logging.INFO):
        model.load_state_dict(state)


def test_statistics_travel_in_float32() -> None:
    assert all(each.dtype == torch.float32 and each.shape == (WIDE,) for each in statistics(trained_on()))
    assert set(STATISTICS) <= set(trained_on().state_dict())
    assert not set(STATISTICS) & set(build().state_dict()) and not set(STATISTICS) & {
        name for name, _ in trained_on().named_parameters()
    }


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"factor": 2.0}, "differ by a factor of 2.00 "),
        ({"seed": 1}, r"both correlate by -?0\.[01]\d \(far: below 0.19"),
    ],
    ids=str,
)
def test_a_stage_on_other_features_is_warned_about(
    options: dict[str, Any], numbers: str, half: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with both names; the model knows its own store's from then on."""
    model, before = trained_on(**options), trained_on()
    if half:
        model, before = model.half(), before.half()
    own = statistics(model)
    start(model, before.state_dict(), caplog)
    [warning] = warnings(caplog)
    names = (
        r"^the features of the region store data/coco\.regions are far from those that checkpoints/cc/averaged\.pt was "
    )
    assert re.search(names, warning) and re.search(numbers, warning)
    assert "must use features of one detector with the same preprocessing" in warning
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), own, strict=True))


def test_one_process_of_several_warns(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, count in ((1, 0), (0, 1)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        start(trained_on(2.0), trained_on().state_dict(), caplog)
        assert len(warnings(caplog)) == count


def test_nothing_is_said_where_features_are_near_or_not_known(caplog: pytest.LogCaptureFixture) -> None:
    old = {name: tensor for name, tensor in trained_on().state_dict().items() if name not in STATISTICS}
    text = build(feature_dim=None).state_dict()
    for given in (trained_on(1.1).state_dict(), old, text):
        model = trained_on()
        start(model, given, caplog)
        assert all(torch.equal(a, b) for a, b in zip(statistics(model), statistics(trained_on()), strict=True))
    assert not warnings(caplog)
    assert not any("feature_mean" in line for line in logged(caplog))  # no parameters


def test_a_text_model_drops_them(caplog: pytest.LogCaptureFixture) -> None:
    model = build(feature_dim=None)
    start(model, trained_on().state_dict(), caplog)
    assert not set(STATISTICS) & set(model.state_dict()) and not warnings(caplog)


def test_a_resumed_run_has_its_checkpoints_statistics(caplog: pytest.LogCaptureFixture) -> None:
    """And a model that is loaded to generate; one of an old checkpoint has none."""
    before = trained_on(2.0)
    old = {name: tensor for name, tensor in before.state_dict().items() if name not in STATISTICS}
    for model in (trained_on(1.9), build(feature_dim=WIDE), build(feature_dim=WIDE).half()):
        model.load_state_dict(before.state_dict())
        for mine, given in zip(statistics(model), statistics(before), strict=True):
            assert torch.equal(mine.half(), given.half())
    for model, has in ((trained_on(), True), (build(feature_dim=WIDE), False)):
        model.load_state_dict(old)
        assert (set(STATISTICS) <= set(model.state_dict())) == has
    assert not warnings(caplog)


@pytest.mark.parametrize("sharing", SHARING_LAYERS)
def test_each_structure_starts_from_its_own_text_model(sharing: str) -> None:
    text, model = build(seed=1, feature_dim=None, sharing=sharing), build(seed=2, sharing=sharing)
    starting(model, "text.pt")
    given = text.state_dict()
    model.load_state_dict(given)
    assert all(torch.equal(model.state_dict()[name], given[name]) for name in given.keys() - {"structure"})


# Stores without boxes


def of_kind(boxes: bool | None, **options: Any) -> XGPTModel:
    """A model for a store with boxes, one without, or one that is not known."""
    return build(**options, task_options={} if boxes is None else {"has_boxes": boxes})


@pytest.mark.parametrize("mode", LoadMode)
def test_stores_with_and_without_boxes_are_not_mixed(mode: LoadMode) -> None:
    for own, given in ((True, False), (False, True)):
        model = of_kind(own)
        model.load_mode, model.store_name = mode, "coco.regions"
        kinds = {True: "with boxes", False: r"without boxes \(import_regions.py --boxes none\)"}
        message = f"trained on regions {kinds[given]}, those of the region store coco.regions are {kinds[own]}: all"
        with pytest.raises(DataError, match=message):
            model.load_state_dict(of_kind(given).state_dict())
        same = of_kind(own)
        same.load_mode = mode
        same.load_state_dict(of_kind(own, seed=3).state_dict())


def test_checkpoints_say_nothing_of_boxes_where_there_are_some() -> None:
    """So that they are what they were, and those of earlier versions count as such."""
    assert torch.equal(of_kind(True).structure, of_kind(None).structure)
    assert "boxes" not in decode_structure(of_kind(True).structure)
    with pytest.raises(DataError, match="trained on regions with boxes, those here are without boxes"):
        of_kind(False).load_state_dict(of_kind(None).state_dict())


def test_a_model_of_no_store_is_of_its_checkpoint_s_kind() -> None:
    model = of_kind(None)
    model.load_state_dict(of_kind(False).state_dict())
    assert model.has_boxes is False and decode_structure(model.structure)["boxes"] is False
    again = of_kind(None)
    again.load_state_dict(model.state_dict())
    assert again.has_boxes is False
    other = of_kind(None)
    other.load_state_dict(of_kind(True).state_dict())
    assert other.has_boxes is True


def test_text_comes_before_either_kind() -> None:
    text = build(feature_dim=None)
    for boxes in (True, False):
        model = of_kind(boxes)
        starting(model, "text.pt")
        model.load_state_dict(text.state_dict())
        assert model.has_boxes is boxes and decode_structure(model.structure).get("boxes", True) is boxes
        starting(text, "images.pt")
        text.load_state_dict(model.state_dict())
