"""Loads models from checkpoints for captioning, retrieval and diagnosis. (fairseq's programs load their own.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Objective
from xgpt_fairseq.text.vocabulary import Vocabulary


def open_model(
    path: Path, state: Mapping[str, Any], directory: DataDirectory, *, objectives: Mapping[str, Objective] | None = None
) -> XGPTModel:
    """Build and load the model of the checkpoint *state* of *path* for the vocabulary and regions of *directory*.

    Args:
        objectives: the objectives whose heads it must have; None: no heads, to generate.

    Raises:
        DataError: another kind of model, a text-only model, or one with another feature width or dictionary.
    """
    config = model_config(path, state)
    trained_width(path, state)
    model = build_model(config, directory.vocabulary, directory=directory, objectives=objectives)
    try:
        model.load_state_dict(state["model"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return model.eval()


def build_model(
    config: XGPTConfig,
    vocabulary: Vocabulary,
    *,
    directory: DataDirectory | None = None,
    objectives: Mapping[str, Objective] | None = None,
) -> XGPTModel:
    """Build a model to load weights into; *config*'s feature width must be that of *directory*'s regions."""
    task = SimpleNamespace(
        target_dictionary=vocabulary.dictionary, objectives=objectives or {}, spare_heads=PRETRAINING_OBJECTIVES
    )
    if directory is not None:
        task.feature_dim, task.store_name = directory.regions.feature_dim, str(directory.regions.path)
        task.has_boxes = directory.regions.has_boxes
        task.feature_settings = directory.regions.source.get("extractor")
    return XGPTModel.build_model(config, task)


def model_config(path: Path, state: Mapping[str, Any]) -> XGPTConfig:
    """The configuration that the model in the checkpoint *state* of *path* was built from.

    Raises:
        DataError: the checkpoint has none.
    """
    given = (state.get("cfg") or {}).get("model")
    if given is None:
        raise DataError(f"{path} has no configuration of its model: it is not a checkpoint of fairseq-train")
    values = vars(given) if not isinstance(given, Mapping) else given
    names = {field.name for field in fields(XGPTConfig)}
    return XGPTConfig(**{name: value for name, value in values.items() if name in names})


def trained_width(path: Path, state: Mapping[str, Any]) -> int:
    """The width of the region features that the model in the checkpoint *state* of *path* was trained on.

    Raises:
        DataError: it is a model of text alone.
    """
    embedding = state["model"].get("encoder.regions.embedding.project.weight")  # (H, D + 5)
    if embedding is None:
        raise DataError(f"{path} is a model of text alone; it has to be trained with images before it is used on them")
    width: int = embedding.size(1) - 5
    return width
