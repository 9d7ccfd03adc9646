"""Weights in one file: each once, and as exact as its form allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from xgpt_fairseq.onnx_export.storage import WEIGHTS, write_graphs

RANDOM = np.random.default_rng(0)
MATRIX = (RANDOM.normal(size=(48, 64)) * np.geomspace(1e-3, 10, 48)[:, None]).astype(np.float32)
FILTER = RANDOM.normal(size=(40, 8, 3, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=512).astype(np.float32)


def graph(**weights: np.ndarray) -> Any:
    """A graph that returns its weights."""
    helper = onnx.helper
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in weights]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, value.shape)
        for name, value in weights.items()
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "weights", [], outputs, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def read(file: Path) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file))
    names = [output.name for output in session.get_outputs()]
    return {name.removesuffix("_out"): value for name, value in zip(names, session.run(None, {}), strict=True)}


def test_float32_is_exact_and_what_is_shared_is_there_once(tmp_path: Path) -> None:
    write_graphs(
        {"a.onnx": graph(m=MATRIX, f=FILTER), "b.onnx": graph(other=MATRIX, b=BIAS)}, tmp_path, storage="float32"
    )
    first, second = read(tmp_path / "a.onnx"), read(tmp_path / "b.onnx")
    assert np.array_equal(first["m"], MATRIX) and np.array_equal(first["f"], FILTER)
    assert np.array_equal(second["other"], MATRIX) and np.array_equal(second["b"], BIAS)
    size = (tmp_path / WEIGHTS).stat().st_size
    assert MATRIX.nbytes + FILTER.nbytes + BIAS.nbytes <= size < MATRIX.nbytes + FILTER.nbytes + BIAS.nbytes + 3 * 64


def within_half_a_level(found: np.ndarray, weight: np.ndarray, levels: int) -> bool:
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    return bool((np.abs(found - weight) <= 0.501 * largest / levels).all())


def test_16_bits_are_half_as_large_and_exact_where_float16_is(tmp_path: Path) -> None:
    exact = MATRIX.astype(np.float16).astype(np.float32)
    large = MATRIX.copy()
    large[1, 2] = 70_000  # beyond float16
    graphs = {"a.onnx": graph(exact=exact, m=large, f=FILTER, b=BIAS)}
    write_graphs(graphs, tmp_path, storage="16-bit")
    found = read(tmp_path / "a.onnx")
    assert np.array_equal(found["exact"], exact) and np.array_equal(found["b"], BIAS)
    assert within_half_a_level(found["m"], large, 32767) and within_half_a_level(found["f"], FILTER, 32767)
    half = FILTER.astype(np.float16).astype(np.float32)
    assert np.linalg.norm(found["f"] - FILTER) < np.linalg.norm(half - FILTER) / 2
    assert (tmp_path / WEIGHTS).stat().st_size < (2 * MATRIX.nbytes + FILTER.nbytes) / 2 + BIAS.nbytes + 5 * 64


def test_mixed_has_matrices_in_8_bits(tmp_path: Path) -> None:
    zero = MATRIX.copy()
    zero[5] = 0
    write_graphs({"a.onnx": graph(m=zero, f=FILTER, b=BIAS)}, tmp_path, storage="mixed")
    found = read(tmp_path / "a.onnx")
    assert within_half_a_level(found["m"], zero, 127) and not found["m"][5].any()
    assert within_half_a_level(found["f"], FILTER, 32767) and np.array_equal(found["b"], BIAS)
    assert (tmp_path / WEIGHTS).stat().st_size < MATRIX.nbytes / 4 + FILTER.nbytes / 2 + BIAS.nbytes + 5 * 64
