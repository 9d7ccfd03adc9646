"""Models and images small enough for a loop in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from fairseq.data import Dictionary

from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.objectives import PRETRAINING_OBJECTIVES, Symbols, build_objectives

HEADS, LAYERS, HIDDEN, WIDTH = 4, 2, 16, 7
IC = PRETRAINING_OBJECTIVES["ic"](Symbols(pad=1, eos=2, mask=23, words=(4, 23)))


def dictionary_of(words: int) -> Dictionary:
    dictionary = Dictionary()
    for number in range(words):
        dictionary.add_symbol(f"w{number}")
    return dictionary


def build(
    seed: int = 0,
    words: int = 20,
    heads: Sequence[str] | None = None,
    objective_options: Mapping[str, object] | None = None,
    task_options: Mapping[str, object] | None = None,
    **options,
) -> XGPTModel:
    """A model with random weights, and the heads of the objectives *heads* [TIFG's, if it has images]."""
    torch.manual_seed(seed)
    sizes = {"layers": LAYERS, "hidden_size": HIDDEN, "ffn_size": 32, "attention_heads": HEADS, "feature_dim": WIDTH}
    cfg = XGPTConfig(**{**sizes, "max_target_positions": 24, **options})
    dictionary = dictionary_of(words)
    if heads is None:
        heads = [] if cfg.feature_dim is None else ["tifg"]
    task = SimpleNamespace(
        target_dictionary=dictionary,
        objectives=build_objectives(heads, dictionary, objective_options),
        spare_heads=PRETRAINING_OBJECTIVES,
        **(task_options or {}),
    )
    model = XGPTModel.build_model(cfg, task)
    parameters = dict(model.named_parameters())
    if "heads.tifg.start" in parameters:  # drawn before the decoder's, as when the golden losses were
        parameters = {name: p for name, p in parameters.items() if name.startswith("encoder.")} | {
            "heads.tifg.start": parameters["heads.tifg.start"],
            **parameters,
        }
    with torch.no_grad():  # N(0, 0.02) and zero biases would hide mistakes
        for name, parameter in parameters.items():
            if "norm" not in name:
                parameter.normal_(0, 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def images(
    counts: list[int], seed: int = 0, dtype: torch.dtype = torch.float32, width: int = WIDTH
) -> dict[str, torch.Tensor]:
    """Random images with so many regions each, as the collater pads them."""
    rng = np.random.default_rng(seed)
    longest = max(counts)
    features = np.zeros((len(counts), longest, width), dtype=np.float16)
    boxes = np.zeros((len(counts), longest, 4), dtype=np.float32)
    mask = np.ones((len(counts), longest), dtype=bool)
    for i, count in enumerate(counts):
        features[i, :count] = rng.normal(size=(count, width))
        corners = np.sort(rng.random((count, 2, 2)), axis=1)
        boxes[i, :count] = corners.reshape(count, 4)
        mask[i, :count] = False
    return {
        "features": torch.from_numpy(features),
        "boxes": torch.from_numpy(boxes).to(dtype),
        "padding_mask": torch.from_numpy(mask),
    }


def teacher_forcing(captions: list[torch.Tensor], *, pad: int, eos: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded targets, and the same shifted right behind the end of sentence."""
    target = torch.nn.utils.rnn.pad_sequence(captions, batch_first=True, padding_value=pad)
    shifted = [torch.cat([torch.tensor([eos]), tokens[:-1]]) for tokens in captions]
    return target, torch.nn.utils.rnn.pad_sequence(shifted, batch_first=True, padding_value=pad)


def one(batch: dict[str, torch.Tensor], image: int) -> dict[str, torch.Tensor]:
    """Image *image* of a batch alone and without padding."""
    count = int((~batch["padding_mask"][image]).sum())
    return {name: tensor[image : image + 1, :count] for name, tensor in batch.items()}


VARIANTS = [
    {},
    {"normalize_before": True},
    {"refine_layers": 0},
    {"refine_layers": 3},
    {"no_segment_embedding": True},
    {"sharing": "enc-dec"},
    {"sharing": "enc-dec", "normalize_before": True},
    {"sharing": "enc"},
    {"sharing": "enc", "normalize_before": True},
]
