"""What the kernels of attention drop out, and heads apart and together (values: tests/models/test_attention.py)."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xgpt_fairseq.kernels.attention import attention, kernels_of, merge_heads, split_heads


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1e-4, 1e-6), (torch.bfloat16, 0.1, 0.02)])
@pytest.mark.parametrize("causal", [False, True])
def test_dropout_leaves_out_weights_of_the_softmax(causal, dtype, rtol, atol):
    torch.manual_seed(1)
    p, length = 0.25, 5
    q, k = torch.randn(200, 2, length, length), torch.randn(200, 2, length, length)
    v = torch.eye(length).expand(200, 2, -1, -1)  # so that attention returns its weights
    # one head each, so that the output is theirs
    weights, dropped = (
        torch.stack([attention(*(x[:, h : h + 1].to(t) for x in (q, k, v)), causal=causal, p=r) for h in range(2)], 1)
        for t, r in ((torch.float32, 0.0), (dtype, p))
    )
    assert dropped.dtype == dtype
    dropped = dropped.float()
    left = dropped != 0
    torch.testing.assert_close(dropped[left], weights[left] / (1 - p), rtol=rtol, atol=atol)
    assert not dropped[weights == 0].any()
    assert 1 - float(left[weights != 0].float().mean()) == pytest.approx(p, abs=0.03)


def enabled() -> list[bool]:
    """torch's switches: cuDNN's kernel, and the three others."""
    kernels = torch.backends.cuda
    return [kernels.cudnn_sdp_enabled(), kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled(),
            kernels.math_sdp_enabled()]  # fmt: skip


@pytest.fixture(params=[True, False])
def before(request):
    """The switches, with cuDNN's kernel on, as by default, or off."""
    default = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield [request.param, True, True, True]
    torch.backends.cuda.enable_cudnn_sdp(default)


@pytest.mark.parametrize("compiling", [True, False])
def test_cudnn_s_attention_is_left_out_on_gpus_and_only_there(before, compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    assert enabled() == before
    with kernels_of("cuda"):
        assert enabled() == [False, True, True, True]
        with kernels_of("cuda"):
            assert enabled() == [False, True, True, True]
        assert enabled() == [False, True, True, True]
    with kernels_of("cpu"):
        assert enabled() == before
    assert enabled() == before


def test_an_error_within_attention_leaves_the_switches_as_they_were(before):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"), kernels_of("cuda"):
            raise RuntimeError("out of memory")
        assert enabled() == before


def test_cudnn_s_attention_is_out_as_long_as_any_thread_needs_it(before):
    """The first one's end must not switch it on for the second, nor the second one's leave it off."""
    first, second, seen = ExitStack(), ExitStack(), []
    for step in (
        lambda: first.enter_context(kernels_of("cuda")),
        lambda: second.enter_context(kernels_of("cuda")),
        first.close,
        second.close,
    ):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        seen.append(enabled()[0])
    assert seen == [False, False, False, before[0]]


@given(rows=st.integers(1, 4), heads=st.integers(1, 3), length=st.integers(1, 4))
def test_heads_come_apart_and_together(rows, heads, length):
    x = torch.arange(rows * length * heads * 2).view(rows, length, heads * 2)
    apart = split_heads(x, heads)
    assert torch.equal(merge_heads(apart), x)
    assert torch.equal(apart[-1, heads - 1, length - 1], x[-1, length - 1, -2:])
