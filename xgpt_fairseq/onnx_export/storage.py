"""The weights of several graphs in one file, each once, in few bytes. All graphs compute in float32.

    float32   as the model has them
    float16   matrices and convolutions in half precision
    mixed     convolutions in half precision, matrices in 8 bits with a scale per row

A graph begins with the operators that turn its stored weights into float32; runtimes do that once, when they load it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import DataError

Array = npt.NDArray[Any]

WEIGHTS: Final = "weights.bin"
STORAGES: Final = ("float32", "float16", "mixed")

_ALIGNMENT: Final = 64  # bytes, at which each tensor begins
_INSIDE: Final = 1024  # bytes up to which a constant stays in its graph
_LEVELS: Final = 127  # of 8 bits, in each direction


def write_graphs(graphs: Mapping[str, Any], folder: Path, *, storage: str) -> None:
    """Write *graphs* (`onnx.ModelProto`) to the files of these names in *folder*, and their weights to `WEIGHTS`.

    Raises:
        DataError: a weight is too large for half precision.
    """
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
            tensor.CopyFrom(numpy_helper.from_array(_half(array, name), f"{name}.half"))
            restoring.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
            continue
        levels, scale = _quantised(array)
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
    if array.dtype != np.float32 or array.ndim < 2 or array.nbytes <= _INSIDE:
        return "float32"
    if storage == "mixed":
        return "int8" if array.ndim == 2 else "float16"
    return storage


def _half(array: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise DataError(f"parameter {name} has values beyond 65 504, float16's range: use --storage float32")
    return half


def _quantised(matrix: Array) -> tuple[Array, Array]:
    """(N, K) float32 → int8 levels (N, K), and the value of a level per row, (N, 1) float32."""
    scale = (np.abs(matrix).max(axis=1, keepdims=True) / _LEVELS).astype(np.float32)
    scale[scale == 0] = 1  # a row of zeros
    return np.rint(matrix / scale).astype(np.int8), scale
