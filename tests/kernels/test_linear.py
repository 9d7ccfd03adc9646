"""Linear maps with packed weights against plain float64 products, and when their weights are packed again."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from xgpt_fairseq.kernels import linear
from xgpt_fairseq.kernels.linear import PackedLinear, PackedWeights, can_pack
from xgpt_fairseq.precision import cpu_has_bfloat16

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")


def reference(x: Tensor, layer: PackedLinear, first: int, last: int | None, gelu: bool) -> np.ndarray:
    """The outputs in float64."""
    weight = layer.weight.detach().double().numpy()[first:last]
    bias = layer.bias.detach().double().numpy()[first:last]
    y = x.double().numpy() @ weight.T + bias
    return 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2))) if gelu else y


@pytest.fixture(autouse=True)
def small_matrices_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 0)


def is_packed(layer: PackedLinear) -> bool:
    return bool(layer.packed._packed)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 70), st.integers(2, 70)),
    part=st.tuples(st.floats(0, 0.9), st.booleans()),
    gelu=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_a_plain_product(
    shape: list[int], sizes: tuple[int, int], part: tuple[float, bool], gelu: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = PackedLinear(*sizes, gelu=gelu).eval()
    first = int(part[0] * sizes[1])
    last = first + 1 if part[1] else None
    x = torch.randn(*shape, sizes[0])
    with torch.no_grad():
        for _ in range(2):  # packing, and packed
            whole = first == 0 and last is None
            found = layer(x) if whole else layer.forward_slice(x, first, sizes[1] if last is None else last)
            expected = reference(x, layer, first, last, gelu)
            assert found.dtype == torch.float32
            assert found.shape == expected.shape
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert is_packed(layer)


@pytest.mark.parametrize("training", [True, False])
def test_parts_for_several_inputs(training: bool) -> None:
    torch.manual_seed(1)
    layer, twin = PackedLinear(6, 5).double().train(training), PackedLinear(6, 5).double()
    twin.load_state_dict(layer.state_dict())
    inputs, sizes = [torch.randn(rows, 6, dtype=torch.float64) for rows in (2, 3, 4)], (1, 3, 1)
    expected = [twin(x)[:, place] for x, place in zip(inputs, (slice(0, 1), slice(1, 4), slice(4, 5)), strict=True)]
    with torch.set_grad_enabled(training):
        found = layer.forward_split(*inputs, sizes=sizes)
    for part, whole in zip(found, expected, strict=True):
        torch.testing.assert_close(part, whole)
    if training:
        for outputs in (found, expected):
            sum((y * torch.arange(1, y.numel() + 1).view_as(y)).sum() for y in outputs).backward()
        for parameter, other in zip(layer.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="the CPU has no bfloat16 arithmetic")
def test_bfloat16_under_autocast_and_float32_beside_it() -> None:
    torch.manual_seed(1)
    layer = PackedLinear(64, 48, gelu=True).eval()
    x = torch.randn(5, 64)
    expected = torch.from_numpy(reference(x, layer, 0, None, True))
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = layer(x)
        full = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(full.double(), expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_packed_where_a_gradient_is_asked_for_or_onednn_is_off() -> None:
    torch.manual_seed(1)
    layer = PackedLinear(6, 4)
    x = torch.randn(3, 6)
    for mode in (layer.train(), layer.eval()):
        mode(x).sum().backward()
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(layer.eval()(x), F.linear(x, layer.weight, layer.bias))
    with torch.no_grad():
        layer.double()(x.double())
        layer.float().train()(x)
    assert not is_packed(layer)
    assert layer.weight.grad is not None


def test_no_rows() -> None:
    with torch.no_grad():
        assert PackedLinear(6, 4).eval()(torch.empty(0, 6)).shape == (0, 4)


def test_training_changes_weights_unseen() -> None:
    """fairseq's optimizers write to `.data`, which the version of a parameter does not show."""
    torch.manual_seed(1)
    layer = PackedLinear(6, 4).eval()
    x = torch.randn(3, 6)
    with torch.no_grad():
        layer(x)
        assert is_packed(layer)
        layer.train()
        assert not is_packed(layer)
        layer.weight.data.add_(1)
        layer.eval()
        np.testing.assert_allclose(layer(x).numpy(), reference(x, layer, 0, None, False), rtol=1e-5, atol=1e-5)


def test_weights_that_are_loaded_are_packed_again() -> None:
    torch.manual_seed(1)
    layer, other = PackedLinear(6, 4).eval(), PackedLinear(6, 4).eval()
    x = torch.randn(3, 6)
    with torch.no_grad():
        layer(x)
        layer.forward_slice(x, 1, 3)
        layer.load_state_dict(other.state_dict())
        np.testing.assert_allclose(layer(x).numpy(), reference(x, other, 0, None, False), rtol=1e-5, atol=1e-5)
        part = layer.forward_slice(x, 1, 3)
        np.testing.assert_allclose(part.numpy(), reference(x, other, 1, 3, False), rtol=1e-5, atol=1e-5)


def test_state_copies_and_pickles_hold_the_plain_weights_alone() -> None:
    torch.manual_seed(1)
    layer = PackedLinear(6, 4).eval()
    x = torch.randn(3, 6)
    with torch.no_grad():
        expected = layer(x)
        assert list(layer.state_dict()) == ["weight", "bias"]
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert not is_packed(twin)
            assert torch.equal(twin(x), expected)


def test_weights_made_without_autograd() -> None:
    """Such tensors have no version."""
    with torch.inference_mode():
        layer = PackedLinear(6, 4).eval()
        x = torch.randn(3, 6)
        np.testing.assert_allclose(layer(x).numpy(), reference(x, layer, 0, None, False), rtol=1e-5, atol=1e-5)


def test_one_module_serves_several_weights() -> None:
    packed = PackedWeights().eval()
    x, bias = torch.ones(1, 2), torch.zeros(3)
    with torch.no_grad():
        for value in (1.0, 2.0):
            weight = torch.full((3, 2), value)
            assert packed(x, weight, bias, name=str(value)).tolist() == [[2 * value] * 3]
            assert packed(x, weight, bias).tolist() == [[2 * value] * 3]  # without a name, packed again
            del weight  # the next one may lie in the same place


def test_the_operators_are_those_that_were_written_for() -> None:
    """They are torch's own and undocumented: where this fails, see whether they still mean the same."""
    for name, arguments in {
        "_linear_pointwise": "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y",
        "_reorder_linear_weight": "(Tensor self, int? batch_size=None) -> Tensor Y",
    }.items():
        assert str(getattr(torch.ops.mkldnn, name).default._schema) == f"mkldnn::{name}{arguments}"


def test_small_matrices_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for width, packed in ((511, False), (512, True)):
        layer = PackedLinear(1024, width).eval()
        with torch.no_grad():
            found = layer(torch.ones(2, 1024))
        np.testing.assert_allclose(found, reference(torch.ones(2, 1024), layer, 0, None, False), rtol=1e-4, atol=1e-4)
        assert is_packed(layer) == packed
