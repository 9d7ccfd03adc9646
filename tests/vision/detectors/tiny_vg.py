"""Files of weights as people published them, with few layers, narrow, of random values."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RPN = "proposal_generator.rpn_head"
HEAD = "roi_heads.box_predictor"
OBJECTS, ATTRIBUTES, ANCHORS = 7, 5, 12
STEM, MIDDLE, WIDTH = 4, 4, 8
FEATURES, EMBEDDING, HIDDEN = 16, 6, 10


def _norm(state: dict[str, Tensor], name: str, width: int) -> None:
    state[f"{name}.norm.weight"] = 0.5 + torch.rand(width)
    state[f"{name}.norm.bias"] = 0.1 * torch.randn(width)
    state[f"{name}.norm.running_mean"] = 0.1 * torch.randn(width)
    state[f"{name}.norm.running_var"] = 0.5 + torch.rand(width)


def _conv(state: dict[str, Tensor], name: str, width: int, width_in: int, size: int) -> None:
    state[f"{name}.weight"] = torch.randn(width, width_in, size, size) / (width_in * size * size) ** 0.5
    _norm(state, name, width)


def _stage(state: dict[str, Tensor], name: str, width_in: int, width: int, blocks: int) -> None:
    for block in range(blocks):
        into = width_in if block == 0 else width
        if block == 0:
            _conv(state, f"{name}.0.shortcut", width, into, 1)
        _conv(state, f"{name}.{block}.conv1", MIDDLE, into, 1)
        _conv(state, f"{name}.{block}.conv2", MIDDLE, MIDDLE, 3)
        _conv(state, f"{name}.{block}.conv3", width, MIDDLE, 1)


def _linear(state: dict[str, Tensor], name: str, width: int, width_in: int, scale: float = 1.0) -> None:
    state[f"{name}.weight"] = scale * torch.randn(width, width_in) / width_in**0.5
    state[f"{name}.bias"] = 0.1 * torch.randn(width)


def caffe_state(seed: int = 0) -> dict[str, Tensor]:
    """In Caffe's order, under the names that py-bottom-up-attention gave."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = {}
    _conv(state, "backbone.stem.conv1", STEM, 3, 7)
    state["backbone.stem.conv1.weight"] /= 60  # of values up to 150
    _stage(state, "backbone.res2", STEM, WIDTH, 1)
    _stage(state, "backbone.res3", WIDTH, WIDTH, 2)
    _stage(state, "backbone.res4", WIDTH, WIDTH, 2)
    _stage(state, "roi_heads.res5", WIDTH, FEATURES, 2)
    for name, width, width_in, size in (
        ("conv", 8, WIDTH, 3),
        ("objectness_logits", 2 * ANCHORS, 8, 1),
        ("anchor_deltas", 4 * ANCHORS, 8, 1),
    ):
        state[f"{RPN}.{name}.weight"] = 0.3 * torch.randn(width, width_in, size, size)
        state[f"{RPN}.{name}.bias"] = 0.1 * torch.randn(width)
    _linear(state, f"{HEAD}.cls_score", 1 + OBJECTS, FEATURES, scale=3)
    _linear(state, f"{HEAD}.bbox_pred", 4 * (1 + OBJECTS), FEATURES)
    state[f"{HEAD}.cls_embedding.weight"] = torch.randn(1 + OBJECTS, EMBEDDING)
    _linear(state, f"{HEAD}.fc_attr", HIDDEN, FEATURES + EMBEDDING)
    _linear(state, f"{HEAD}.attr_score", 1 + ATTRIBUTES, HIDDEN, scale=3)
    return state


def milvlg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the `.pth`; one of its files has a row too many in the embedding."""
    renamed = {"cls_embedding": "cls_embed", "fc_attr": "attr_linear1", "attr_score": "attr_linear2"}
    found = {}
    for name, value in state.items():
        for old, new in renamed.items():
            name = name.replace(f"{HEAD}.{old}.", f"{HEAD}.{new}.")
        found[name] = value
    row = torch.full((1, EMBEDDING), 9.0)
    found[f"{HEAD}.cls_embed.weight"] = torch.cat([state[f"{HEAD}.cls_embedding.weight"], row])
    found["backbone.res4.0.conv1.norm.num_batches_tracked"] = torch.tensor(3)
    return found


def detectron2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The order of the two other files: background last, and one value an anchor for its being an object."""
    found = dict(state)
    for kind in ("weight", "bias"):
        both = state[f"{RPN}.objectness_logits.{kind}"]
        found[f"{RPN}.objectness_logits.{kind}"] = both[ANCHORS:] - both[:ANCHORS]
        for name in ("cls_score", "attr_score"):
            value = state[f"{HEAD}.{name}.{kind}"]
            found[f"{HEAD}.{name}.{kind}"] = torch.cat([value[1:], value[:1]])
        found[f"{HEAD}.bbox_pred.{kind}"] = state[f"{HEAD}.bbox_pred.{kind}"][4:]
        # anchors by size, then by ratio; Caffe's are by ratio, then by size
        by_ratio = found[f"{RPN}.objectness_logits.{kind}"]
        found[f"{RPN}.objectness_logits.{kind}"] = by_ratio.unflatten(0, (3, 4)).transpose(0, 1).flatten(0, 1)
        deltas = state[f"{RPN}.anchor_deltas.{kind}"]
        found[f"{RPN}.anchor_deltas.{kind}"] = deltas.unflatten(0, (3, 4, 4)).transpose(0, 1).flatten(0, 2)
    embedding = state[f"{HEAD}.cls_embedding.weight"]
    found[f"{HEAD}.cls_embedding.weight"] = torch.cat([embedding[1:], embedding[:1]])
    return found


def cell_anchors() -> Tensor:
    """Those of detectron2, which `pytorch_model.bin` has: (12, 4), around 0, their sides not rounded."""
    sides = [(size * ratio**-0.5, size * ratio**0.5) for size in (64, 128, 256, 512) for ratio in (0.5, 1.0, 2.0)]
    return torch.tensor([(-width / 2, -height / 2, width / 2, height / 2) for width, height in sides])


def save(folder: Path, kind: str, seed: int = 0) -> Path:
    """Save the same detector as `pth`, `pkl` or `bin`."""
    state = caffe_state(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny.{kind}"
    if kind == "pth":
        torch.save({"model": milvlg(state)}, path)
    elif kind == "bin":
        torch.save({**detectron2(state), "proposal_generator.anchor_generator.cell_anchors.0": cell_anchors()}, path)
    else:
        arrays: dict[str, np.ndarray] = {name: value.numpy() for name, value in detectron2(state).items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    return path
