"""Published weights of the Visual Genome detector, read from any of the files that people converted them to.

All are conversions of the Caffe model of Anderson et al. 2018 (github.com/peteanderson80/bottom-up-attention) to
detectron2's names:

- `.pth` of github.com/MILVLG/bottom-up-attention.pytorch (`bua-caffe-frcn-r101…`): Caffe's order, background first,
  and at each cell anchors by ratio, then by size;
- `.pkl` of github.com/airsplay/py-bottom-up-attention (`faster_rcnn_from_caffe_attr…`): detectron2's order, background
  last, one value an anchor for "this is an object", and anchors by size, then by ratio;
- `pytorch_model.bin` of `unc-nlp/frcnn-vg-finetuned` on Hugging Face's hub: the same order.

Names and orders are those of the code that reads these files; we could not try the files themselves.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from xgpt_fairseq.archives import safe_pickle
from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.packing import load_tensors

RPN: Final = "proposal_generator.rpn_head"
RES5: Final = "roi_heads.res5"
HEAD: Final = "roi_heads.box_predictor"

# Names of the `.pth` → ours, which are those of the two others.
RENAMED: Final = {
    f"{HEAD}.cls_embed.weight": f"{HEAD}.cls_embedding.weight",
    f"{HEAD}.attr_linear1.weight": f"{HEAD}.fc_attr.weight",
    f"{HEAD}.attr_linear1.bias": f"{HEAD}.fc_attr.bias",
    f"{HEAD}.attr_linear2.weight": f"{HEAD}.attr_score.weight",
    f"{HEAD}.attr_linear2.bias": f"{HEAD}.attr_score.bias",
}
# The anchors of a cell, in files of detectron2's order that have them.
CELL_ANCHORS: Final = "proposal_generator.anchor_generator.cell_anchors.0"
# Entries that decide no feature: features are those of proposals, whose boxes the field's archives keep unrefined; and
# anchors, but for their order, and means are constants.
UNUSED: Final = re.compile(
    rf"{re.escape(HEAD)}\.bbox_pred\.(weight|bias)|proposal_generator\.anchor_generator\..*|pixel_(mean|std)"
    r"|.*\.num_batches_tracked"
)
# Rows by class or attribute; in the files with background last, it is moved to the first place.
BY_CLASS: Final = ("cls_score.weight", "cls_score.bias", "cls_embedding.weight", "attr_score.weight", "attr_score.bias")


def read_weights(name: str, path: Path, anchors: Tensor) -> dict[str, Tensor]:
    """The entries of a published file, in Caffe's order: background first, then the objects or attributes.

    Args:
        name: of the detector, for messages.
        path: `.pth`, `.bin`, `.pkl` or `.safetensors`.
        anchors: boxes that are proposed at each cell, in Caffe's order, (A, 4) x1 y1 x2 y2.

    Raises:
        DataError: the file is not there, damaged, holds code, or isn't of this detector, or has other anchors.
    """
    loaded = _load(name, path)
    entries = loaded.get("model", loaded)
    if not isinstance(entries, dict):
        raise DataError(f"{name}: {path} has no weights by their names under 'model'")
    state: dict[str, Tensor] = {}
    for key, value in entries.items():
        if not UNUSED.fullmatch(str(key)):
            state[RENAMED.get(str(key), str(key))] = _tensor(name, path, key, value)
    objectness = f"{RPN}.objectness_logits"
    for needed in (f"{objectness}.weight", f"{objectness}.bias", f"{HEAD}.cls_score.weight"):
        if needed not in state:
            raise DataError(
                f"{name}: {path} has no entry {needed!r}; the first of its {len(state)} are "
                f"{', '.join(list(map(str, state))[:3])}"
            )
    rows = len(state[f"{objectness}.weight"])
    if rows not in (len(anchors), 2 * len(anchors)):
        raise DataError(
            f"{name}: {path}, {objectness}.weight: {rows} rows; {len(anchors)} or {2 * len(anchors)} are expected"
        )
    if rows == len(anchors):
        given = entries.get(CELL_ANCHORS)
        order = _order(name, path, anchors, None if given is None else _tensor(name, path, CELL_ANCHORS, given))
        for key, width in ((objectness, 1), (f"{RPN}.anchor_deltas", 4)):
            _sort(state, key, order, width)
        _background_first(state, objectness)
    classes, embedding = len(state[f"{HEAD}.cls_score.weight"]), f"{HEAD}.cls_embedding.weight"
    if embedding in state:
        state[embedding] = state[embedding][:classes]  # some files have a row more, which no class has
    return state


def _order(name: str, path: Path, anchors: Tensor, given: Tensor | None) -> list[int]:
    """Which of *anchors* each of the file's is: by the sides of *given*, (A, 4), or as detectron2 generates them.

    That is by size, and then by ratio (`DefaultAnchorGenerator`, which airsplay's program has as it is).
    """
    sides = (anchors[:, 2:] - anchors[:, :2] + 1).log2()  # (A, 2) of width and height; Caffe counts both ends
    if given is None:
        by_size = [(round(float(side.mean())), float(side[1] - side[0]), place) for place, side in enumerate(sides)]
        return [place for *_, place in sorted(by_size)]
    found = (given[:, 2:] - given[:, :2]).clamp(min=1).log2() if given.shape == anchors.shape else given.new_zeros(0, 2)
    distances = torch.cdist(found, sides, p=math.inf)  # in powers of two; Caffe's sides are rounded
    order: list[int] = distances.argmin(dim=1).tolist()
    if sorted(order) != list(range(len(anchors))) or float(distances.amin(dim=1).max()) > 0.25:
        raise DataError(
            f"{name}: {path}, entry {CELL_ANCHORS!r}: boxes {given.round(decimals=1).tolist()}; this detector proposes "
            f"{anchors.tolist()}"
        )
    return order


def _sort(state: dict[str, Tensor], name: str, order: list[int], width: int) -> None:
    """Put *width* rows for each anchor, in the file's order, in that of Caffe."""
    places = torch.tensor([width * anchor + part for anchor in order for part in range(width)])
    for kind in ("weight", "bias"):
        value = state.get(f"{name}.{kind}")
        if value is not None and len(value) == len(places):  # what is missing, or of another size, is named later
            state[f"{name}.{kind}"] = torch.empty_like(value).index_copy(0, places, value)


def _background_first(state: dict[str, Tensor], objectness: str) -> None:
    """Make the order of *state* that of Caffe: nothing, then objects."""
    for kind in ("weight", "bias"):
        value = state[f"{objectness}.{kind}"]
        state[f"{objectness}.{kind}"] = torch.cat([torch.zeros_like(value), value])  # σ(x) is the softmax of 0 and x
    for each in BY_CLASS:
        if (value_or_none := state.get(f"{HEAD}.{each}")) is not None:
            state[f"{HEAD}.{each}"] = value_or_none.roll(1, dims=0)


def _load(name: str, path: Path) -> dict[Any, Any]:
    if path.suffix != ".pkl":
        return load_tensors(name, path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: {path} can't be loaded: {error.strerror}") from None
    loaded = safe_pickle.loads(data, str(path))
    if not isinstance(loaded, dict):
        raise DataError(f"{name}: {path} holds a {type(loaded).__name__}, not weights by their names")
    return loaded


def _tensor(name: str, path: Path, key: Any, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.from_numpy(value.astype(np.float32))
    if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
        raise DataError(f"{name}: {path}, entry {key!r}: a {type(value).__name__}, not numbers")
    return value.float()
