"""Modules → graphs of ONNX, whose sizes stay open."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from xgpt_fairseq.kernels import switch
from xgpt_fairseq.models.xgpt import XGPTConfig, XGPTModel
from xgpt_fairseq.onnx_export.graphs import LookGraph, PhotoGraph, RegionsGraph, StepGraph
from xgpt_fairseq.vision.backbones.base import Backbone

# The version of ONNX's operators. 17 has LayerNormalization, 18 is read by every runtime of the last years.
OPSET: Final = 18
# The version of ONNX's files that came with these operators. torch writes a newer one, of which nothing is used here,
# and which onnxruntime 1.17 refuses.
IR_VERSION: Final = 8

# Sizes of the tensors that are traced. Each is at least 2, since torch takes 0 and 1 for constants; all differ, so that
# no two are taken for one. Sizes 0 and 1 work when the graph runs.
_IMAGES, _ROWS, _REGIONS, _TEXT, _COUNT = 3, 5, 7, 4, 11

# Constants of at most this many values are folded; larger ones are weights.
_FOLDED: Final = 16

# A tensor that is traced, and its open sizes by name, per dimension.
Traced = tuple[Tensor, Mapping[int, str]]


def photo_graph(backbone: Backbone, *, of_boxes: bool) -> Any:
    """The graph of `PhotoGraph` (`onnx.ModelProto`): inputs `pixels`, and `boxes` where they are needed; `features`."""
    cells = backbone.preprocessing.image_size // backbone.stride if backbone.preprocessing.fixed_size else 5
    height, width = (cells, cells) if backbone.preprocessing.fixed_size else (cells + 2, cells)
    sides = {} if backbone.preprocessing.fixed_size else {1: "height", 2: "width"}
    shape = (_IMAGES, height * backbone.stride, width * backbone.stride, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    inputs: dict[str, Any] = {"pixels": (pixels, {0: "photos", **sides})}
    if of_boxes:
        inputs["boxes"] = (_boxes(_REGIONS), {0: "photos", 1: "regions"})
    return _graph(PhotoGraph(backbone, of_boxes=of_boxes), inputs, ["features"])


def regions_graph(model: XGPTModel, config: XGPTConfig) -> Any:
    """The graph of `RegionsGraph`: inputs `features`, `boxes`, `real`; outputs `key_0` …, `value_0` …"""
    assert config.layers and config.feature_dim
    open_sizes = {0: "images", 1: "regions"}
    features = torch.randn(_IMAGES, _REGIONS, config.feature_dim).half()
    real = torch.ones(_IMAGES, _REGIONS, dtype=torch.bool)
    inputs = {"features": (features, open_sizes), "boxes": (_boxes(_REGIONS), open_sizes), "real": (real, open_sizes)}
    return _graph(RegionsGraph(model), inputs, [*_names("key", config.layers), *_names("value", config.layers)])


def step_graph(model: XGPTModel, config: XGPTConfig, *, never: Sequence[int], eos: int) -> Any:
    """The graph of `StepGraph`.

    Inputs `tokens`, `position`, `count`, `mask`, `real`, and by layer `memory_key_0` …, `memory_value_0` …,
    `past_key_0` …, `past_value_0` …; outputs `best`, `ids`, `end`, `key_0` …, `value_0` …
    """
    assert config.layers and config.hidden_size and config.attention_heads
    layers, heads, width = config.layers, config.attention_heads, config.hidden_size // config.attention_heads
    rows = {0: "images", 1: "rows"}

    def keys(length: int, name: str) -> list[Traced]:
        shape = (_IMAGES, heads, length, width)
        return [(torch.randn(shape), {0: "images", 2: name}) for _ in range(layers)]

    kept = _TEXT * _ROWS
    inputs = {
        "tokens": (torch.full((_IMAGES, _ROWS), eos), rows),
        "position": (torch.tensor([_TEXT]), {}),
        "mask": (
            torch.ones(_IMAGES, 1, _ROWS, kept + _ROWS, dtype=torch.bool),
            {0: "images", 2: "rows", 3: "kept_and_rows"},
        ),
        "real": (torch.ones(_IMAGES, _REGIONS, dtype=torch.bool), {0: "images", 1: "regions"}),
        "memory_key": keys(_REGIONS, "regions"),
        "memory_value": keys(_REGIONS, "regions"),
        "past_key": keys(kept, "kept"),
        "past_value": keys(kept, "kept"),
    }
    outputs = ["best", "ids", "end", *_names("key", layers), *_names("value", layers)]
    graph = _graph(StepGraph(model, never=never, eos=eos, count=_COUNT), inputs, outputs)
    _open_count(graph)
    return graph


def look_graph(model: XGPTModel, config: XGPTConfig, *, eos: int) -> Any:
    """The graph of `LookGraph`: inputs `tokens`, `mask`, `real`, `memory_key_0` …, `memory_value_0` …; `weights`."""
    assert config.layers and config.hidden_size and config.attention_heads
    shape = (_IMAGES, config.attention_heads, _REGIONS, config.hidden_size // config.attention_heads)

    def keys() -> list[Traced]:
        return [(torch.randn(shape), {0: "images", 2: "regions"}) for _ in range(config.layers or 0)]

    causal = torch.ones(_IMAGES, 1, _TEXT, _TEXT, dtype=torch.bool).tril()
    inputs = {
        "tokens": (torch.full((_IMAGES, _TEXT), eos), {0: "images", 1: "tokens"}),
        "mask": (causal, {0: "images", 2: "tokens", 3: "tokens"}),
        "real": (torch.ones(_IMAGES, _REGIONS, dtype=torch.bool), {0: "images", 1: "regions"}),
        "memory_key": keys(),
        "memory_value": keys(),
    }
    return _graph(LookGraph(model), inputs, ["weights"])


def _open_count(proto: Any) -> None:
    """Make an input of the number of the best tokens, (1,) int64, which is a constant where it is traced."""
    from onnx import TensorProto, helper

    [top] = [node for node in proto.graph.node if node.op_type == "TopK"]
    top.input[1] = "count"
    proto.graph.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, [1]))
    for output in proto.graph.output:
        if output.name in ("best", "ids"):
            output.type.tensor_type.shape.dim[2].dim_param = "count"


def _names(name: str, count: int) -> list[str]:
    return [f"{name}_{index}" for index in range(count)]


def _boxes(count: int) -> Tensor:
    """(I, *count*, 4), each the whole photo."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(_IMAGES, count, 4).contiguous()


def _graph(module: nn.Module, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Any:
    """Trace *module* with *inputs*, by name a `Traced` or a list of them."""
    arguments, shapes, names, flat = [], [], [], []
    for name, value in inputs.items():
        several = isinstance(value, list)
        parts: list[Traced] = value if several else [value]
        tensors = [tensor for tensor, _ in parts]
        dimensions = [dict.fromkeys(sizes, torch.export.Dim.DYNAMIC) for _, sizes in parts]
        arguments.append(tensors if several else tensors[0])
        shapes.append(dimensions if several else dimensions[0])
        names += _names(name, len(parts)) if several else [name]
        flat += parts
    # A copy, since a model that has captioned keeps packed weights; it must not be changed by what tracing does.
    module = copy.deepcopy(module).eval()
    with switch.plain(), torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            tuple(arguments),
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            dynamic_shapes=tuple(shapes),
            input_names=names,
            output_names=list(outputs),
            verbose=False,
        )
        assert program is not None
        model = program.model
        # Weights stay as the model has them, so that graphs that share them share their bytes: no folding of those.
        from onnxscript import ir, optimizer

        optimizer.inline(model)
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=_is_small)
        optimizer.remove_unused_nodes(model)
        proto = ir.to_proto(model)
    proto.ir_version = IR_VERSION
    _forget_sources(proto)
    _name_sizes(proto, {name: sizes for name, (_, sizes) in zip(names, flat, strict=True)})
    return proto


def _is_small(node: Any) -> bool | None:
    """Whether *node* may be folded: None where the optimizer's own rules decide."""
    constants = (value.const_value for value in node.inputs if value is not None and value.is_initializer())
    return False if any(each is None or each.size > _FOLDED for each in constants) else None


def _name_sizes(proto: Any, names: Mapping[str, Mapping[int, str]]) -> None:
    """Name the open sizes of a graph, which torch calls s0, s1 …"""
    known: dict[str, str] = {}
    for value in proto.graph.input:
        for place, name in names[value.name].items():
            known[value.type.tensor_type.shape.dim[place].dim_param] = name
    for value in [*proto.graph.input, *proto.graph.output]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"\w+", lambda found: known.get(found[0], found[0]), size.dim_param)
    del proto.graph.value_info[:]  # shapes in the middle, in torch's names


def _forget_sources(proto: Any) -> None:
    """Remove where in the code each operator is from, which is most of the graph's bytes."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for tensor in proto.graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what torch's exporter says of its work: fairseq turns on the messages of all libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
