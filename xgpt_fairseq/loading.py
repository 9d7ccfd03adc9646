"""Loads models from checkpoints for captioning, retrieval and diagnosis. (fairseq's programs load their own.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Optional

import torch
from torch import Tensor

from xgpt_fairseq.data.directory import DataDirectory
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.models.xgpt import SHARING_LAYERS, XGPTConfig, XGPTModel, apply_architecture
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Objective
from xgpt_fairseq.regions.statistics import comparable_statistics
from xgpt_fairseq.text.vocabulary import Vocabulary

# the types of such options of the configuration; fairseq knows no `int | None`
_WHOLE_NUMBERS: Final = (int, Optional[int])  # noqa: UP045


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
    return load_model(path, config, directory.vocabulary, state["model"], directory=directory, objectives=objectives)


def load_model(
    path: Path,
    config: XGPTConfig,
    vocabulary: Vocabulary,
    tensors: Mapping[str, Any],
    *,
    directory: DataDirectory | None = None,
    objectives: Mapping[str, Objective] | None = None,
) -> XGPTModel:
    """Build a model from *config*, and load the parameters *tensors* of the file *path* into it.

    Both may be damaged, or a stranger's: nothing is built that the parameters cannot fill.

    Raises:
        DataError: an option of another type, parameters that are not finite, or not those of such a model.
    """
    _check_options(path, config)
    _check_tensors(path, tensors)
    _check_size(path, config, tensors)
    model = build_model(config, vocabulary, directory=directory, objectives=objectives)
    try:
        model.load_state_dict(tensors)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return model.eval()


def _check_options(path: Path, config: XGPTConfig) -> None:
    """Raise DataError where an option of the model is of another type than it has."""
    for option in fields(XGPTConfig):
        value = getattr(config, option.name)
        if option.name == "sharing":
            right = str(value) in SHARING_LAYERS
        elif option.type in _WHOLE_NUMBERS:
            right = (value is None and option.type is not int) or (
                isinstance(value, int) and not isinstance(value, bool)
            )
        elif option.type is bool:
            right = isinstance(value, bool)
        elif option.type is float:
            right = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            continue  # fairseq's own
        if not right:
            raise DataError(f"{path} is damaged: the model's option {option.name} is {value!r:.60}")


def _check_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Raise DataError unless *tensors* are tensors by their names, of finite values."""
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise DataError(f"{path} is damaged: parameter {name!r:.60} is no tensor")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(
                f"{path}: parameter {name} has values that are not finite: damaged, or of a failed training"
            )


def _check_size(path: Path, config: XGPTConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raise DataError for a model that is larger than *tensors*, before memory is taken for it."""
    described = XGPTConfig(**{option.name: getattr(config, option.name) for option in fields(XGPTConfig)})
    apply_architecture("xgpt_base", described)
    found = {
        "layers": len(tensors),
        "refine_layers": len(tensors),
        "hidden_size": _side(tensors, "encoder.text.tokens.weight", 1),
        "attention_heads": _side(tensors, "encoder.text.tokens.weight", 1),
        "max_target_positions": _side(tensors, "encoder.text.positions.weight", 0),
        "ffn_size": max((_side(tensors, name, 0) for name in tensors if name.endswith(".fc1.weight")), default=0),
        "feature_dim": _side(tensors, "encoder.regions.embedding.project.weight", 1) or described.feature_dim or 0,
    }
    for name, most in found.items():
        if (getattr(described, name) or 0) > most:
            raise DataError(
                f"{path} describes a model of {name} {getattr(described, name)}, and its parameters are of at most "
                f"{most}: it is damaged"
            )


def _side(tensors: Mapping[str, Tensor], name: str, dimension: int) -> int:
    """A size of a matrix; 0 where there is none of this name."""
    return tensors[name].size(dimension) if name in tensors and tensors[name].dim() == 2 else 0


def build_model(
    config: XGPTConfig,
    vocabulary: Vocabulary,
    *,
    directory: DataDirectory | None = None,
    objectives: Mapping[str, Objective] | None = None,
) -> XGPTModel:
    """Build a model to load weights into; *config*'s feature width must be that of *directory*'s regions.

    It knows what their features look like, to compare them with the checkpoint's.
    """
    task = SimpleNamespace(
        target_dictionary=vocabulary.dictionary, objectives=objectives or {}, spare_heads=PRETRAINING_OBJECTIVES
    )
    if directory is not None:
        task.feature_dim, task.store_name = directory.regions.feature_dim, str(directory.regions.path)
        task.has_boxes = directory.regions.has_boxes
        task.feature_settings = directory.regions.source.get("extractor")
    model = XGPTModel.build_model(config, task)
    statistics = None if directory is None else comparable_statistics(directory.regions)
    if statistics is not None:
        model.encoder.regions.keep_statistics(*map(torch.from_numpy, statistics))
    return model


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
