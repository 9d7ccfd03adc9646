"""Attention on a GPU against a plain one in float64: values and gradients, at lengths that kernels round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.gpu.conftest import PRECISIONS, REHEARSAL
from xgpt_fairseq.kernels.attention import attention, grouped_attention, prefix_attention
from xgpt_fairseq.kernels.grouping import Groups

LENGTHS = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 130]
HEADS, WIDTH = 4, 64
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
PADDING = [None, "some", "all but one"]


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for (B, heads, T, d), in the precision of its input, merged to (B, T, heads · d)."""
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.size(-1) ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    attended = torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v)
    return torch.cat(list(attended.unbind(1)), dim=-1)


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def mask_of(kind: str | None, rows: int, length: int) -> Tensor | None:
    """(B, 1, 1, S): the last half, or all but the first, of the keys of every second row are padding."""
    if kind is None:
        return None
    mask = torch.ones(rows, 1, 1, length, dtype=torch.bool)
    mask[::2, ..., 1 if kind == "all but one" else max(1, length // 2) :] = False
    return mask


def agree(function, reference, inputs: list[Tensor], device: torch.device, dtype: torch.dtype) -> None:
    """*function* on the device in *dtype* gives the values and gradients of *reference* in float64."""
    rounded = [x.to(dtype) for x in inputs]
    exact = [x.double().requires_grad_() for x in rounded]
    given = [x.to(device).requires_grad_() for x in rounded]
    expected, found = reference(*exact), function(*given)
    weights = drawn(torch.Generator().manual_seed(1), *expected.shape)
    (expected * weights).sum().backward()
    (found * weights.to(device, dtype)).sum().backward()
    gradients = [("gradient", x.grad, y.grad) for x, y in zip(exact, given, strict=True)]
    for name, a, b in [("values", expected, found), *gradients]:
        a, b = a.detach(), b.detach().cpu().double()
        assert torch.isfinite(b).all(), name
        error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-6))
        assert error < TOLERANCE[dtype], (name, error)


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("padding", PADDING)
def test_attention_to_all(device, dtype, padding):
    for queries, keys in [*((n, n) for n in LENGTHS), (1, 100), (14, 100), (64, 130), (130, 64)]:
        random = torch.Generator().manual_seed(queries * 1000 + keys)
        inputs = [drawn(random, 3, HEADS, n, WIDTH) for n in (queries, keys, keys)]
        mask = mask_of(padding, 3, keys)
        here = None if mask is None else mask.to(device)
        agree(lambda q, k, v, m=here: attention(q, k, v, mask=m), lambda q, k, v, m=mask: plain(q, k, v, m), inputs,
              device, dtype)  # fmt: skip


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
def test_causal_attention(device, dtype):
    for length in LENGTHS:
        random = torch.Generator().manual_seed(length)
        inputs = [drawn(random, 3, HEADS, length, WIDTH) for _ in range(3)]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        agree(lambda q, k, v: attention(q, k, v, causal=True), lambda q, k, v, m=mask: plain(q, k, v, m), inputs,
              device, dtype)  # fmt: skip


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("padding", PADDING[1:])
def test_attention_of_groups_and_with_a_prefix(device, dtype, padding):
    """Five captions of three images, of which each has one copy of its keys."""
    image = torch.tensor([0, 0, 1, 2, 2])
    groups = Groups.of(image.to(device), 3)
    for text, regions in [(1, 1), (7, 9), (14, 100), (64, 64), (65, 130)]:
        random = torch.Generator().manual_seed(text * 1000 + regions)
        mask = mask_of(padding, 3, regions)
        causal = torch.ones(text, text, dtype=torch.bool).tril()
        whole = torch.cat([mask[image].expand(-1, -1, text, -1), causal.expand(5, 1, -1, -1)], dim=-1)
        q, k, v = (drawn(random, 5, HEADS, text, WIDTH) for _ in range(3))
        image_k, image_v = (drawn(random, 3, HEADS, regions, WIDTH) for _ in range(2))
        here, causal = mask.to(device), causal.to(device)
        agree(
            lambda q, k, v, m=here: grouped_attention(q, k, v, mask=m, groups=groups),
            lambda q, k, v, m=mask: plain(q, k[image], v[image], m[image]),
            [q, image_k, image_v], device, dtype,
        )  # fmt: skip
        agree(
            lambda q, a, b, k, v, m=here, c=causal: prefix_attention(
                q, a, b, k, v, prefix_mask=m, mask=c, groups=groups
            ),
            lambda q, a, b, k, v, m=whole: plain(q, torch.cat([a[image], k], 2), torch.cat([b[image], v], 2), m),
            [q, image_k, image_v, k, v], device, dtype,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("padding", PADDING)
def test_dropout_leaves_out_weights_of_the_softmax(device, dtype, padding):
    """With unit vectors for values, attention returns its weights: those that are left are scaled up."""
    p, length = 0.25, 16
    torch.manual_seed(1)
    q, k = (torch.randn(200, 1, length, length, device=device, dtype=dtype) for _ in range(2))
    v = torch.eye(length, device=device, dtype=dtype).expand(200, 1, -1, -1)
    mask = mask_of(padding, 200, length)
    mask = None if mask is None else mask.to(device)
    weights, dropped = attention(q, k, v, mask=mask).float(), attention(q, k, v, mask=mask, p=p).float()
    left = dropped != 0
    tolerance = 10 * TOLERANCE[dtype]
    torch.testing.assert_close(dropped[left], weights[left] / (1 - p), rtol=tolerance, atol=tolerance)
    assert 1 - float(left[weights > 0].float().mean()) == pytest.approx(p, abs=0.03)


@pytest.mark.skipif(REHEARSAL, reason="names of a GPU's kernels")
@pytest.mark.parametrize("padding", PADDING)
def test_which_kernels_run(device, padding):
    x = torch.randn(8, HEADS, 100, WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True)
    mask = mask_of(padding, 8, 100)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        attention(x, x, x, mask=None if mask is None else mask.to(device), p=0.1).sum().backward()
    on_gpu = torch.autograd.DeviceType.CUDA
    names = " ".join(event.key for event in profile.key_averages() if event.device_type == on_gpu).lower()
    if not names:
        pytest.skip("torch's profiler sees no kernels: in a container it needs the right to (CUPTI)")
    assert "cudnn" not in names
    assert ("flash" if padding is None else "fmha") in names
