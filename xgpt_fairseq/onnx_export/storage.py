"""The weights of several graphs in one file, each once, in few bytes. All graphs compute in float32.

    float32   as the model has them
    16-bit    float16 where that is exact, as in models that were stored so; else whole numbers of 16 bits with a scale
              per row or channel, whose error is a third of float16's
    mixed     convolutions as in 16-bit, matrices in whole numbers of 8 bits with a scale per row

A graph begins with the operators that turn its stored weights into float32; runtimes do that once, when they load it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WEIGHTS: Final = "weights.bin"
STORAGES: Final = ("16-bit", "float32", "mixed")

_ALIGNMENT: Final = 64  # bytes, at which each tensor begins
_INSIDE: Final = 1024  # bytes up to which a constant stays in its graph
_LEVELS: Final = {"int8": 127, "int16": 32767}  # in each direction


def write_graphs(graphs: Mapping[str, Any], folder: Path, *, storage: str) -> None:
    """Write *graphs* (`onnx.ModelProto`) to the files of these names in *folder*, and their weights to `WEIGHTS`."""
    import onnx

    for graph in graphs.values():
        _store_less(graph, storage)
    places: dict[bytes, int] = {}  # by the checksum of the bytes
    with open(folder / WEIGHTS, "wb") as file:
        for name, graph in graphs.items():
            for tensor in graph.graph.initializer:
                array = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))
                if array.nbytes <= _INSIDE:
                    continue
                content = array.tobytes()
                key = hashlib.sha256(content).digest()
                if key not in places:
                    file.write(bytes(-file.tell() % _ALIGNMENT))
                    places[key] = file.tell()
                    file.write(content)
                tensor.ClearField("raw_data")
                onnx.external_data_helper.set_external_data(
                    _emptied(tensor), location=WEIGHTS, offset=places[key], length=len(content)
                )
            (folder / name).write_bytes(graph.SerializeToString())
    for name in graphs:
        onnx.checker.check_model(str(folder / name))


def _emptied(tensor: Any) -> Any:
    """*tensor* with no bytes, as `set_external_data` wants it."""
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.raw_data = b""
    return tensor


def _store_less(model: Any, storage: str) -> None:
    """Put the weights of *model* into another form, and the operators that undo it in front of all others."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    restoring = []
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        kind = _kind(array, storage)
        if kind == "float32":
            continue
        name = tensor.name  # of the float32 values, for those that read them
        if kind == "float16":
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
            restoring.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
            continue
        levels, scale = _quantised(array, kind)
        tensor.CopyFrom(numpy_helper.from_array(levels, f"{name}.levels"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        restoring += [
            helper.make_node("Cast", [tensor.name], [f"{name}.wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]),
        ]
    nodes = [*restoring, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _kind(array: Array, storage: str) -> str:
    """How a weight is stored: biases and norms, of one dimension, and constants of a graph as they are."""
    if storage == "float32" or array.dtype != np.float32 or array.ndim < 2 or array.nbytes <= _INSIDE:
        return "float32"
    if storage == "mixed" and array.ndim == 2:
        return "int8"
    with np.errstate(over="ignore"):
        return "float16" if np.array_equal(array.astype(np.float16).astype(np.float32), array) else "int16"


def _quantised(weight: Array, kind: str) -> tuple[Array, Array]:
    """(N, …) float32 → levels (N, …), and the value of a level for each of N, (N, 1 …) float32."""
    rest = tuple(range(1, weight.ndim))
    scale = (np.abs(weight).max(axis=rest, keepdims=True) / _LEVELS[kind]).astype(np.float32)
    scale[scale == 0] = 1  # a row of zeros
    return np.rint(weight / scale).astype(kind), scale
