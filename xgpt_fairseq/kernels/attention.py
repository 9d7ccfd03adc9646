"""softmax(q k^T / sqrt(d)) v with the fastest kernel for the device; also for groups, and with a prefix.

Shapes: q (B, heads, T, d); k, v (B, heads, S, d); outputs (B, T, heads · d). Masks are True where a query may attend,
at least at one key; or they are numbers that are added to scores, 0 there and minus infinity elsewhere. The latter cost
less where many layers have the same mask.
"""

from __future__ import annotations

import contextlib
import threading

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from xgpt_fairseq.kernels.dropout import dropout
from xgpt_fairseq.kernels.grouping import Groups
from xgpt_fairseq.kernels.switch import fast

# Of torch's kernels for GPUs, all (tests/gpu compares them with float64) but cuDNN's, preferred by torch on newer ones:
# with masks its backward pass reads foreign memory in float16, and gives NaN at some lengths (pytorch#196678, #191612).
# The others are on unless someone has switched them off.
GPU_KERNELS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
FEW_QUERIES = 8  # up to this many, as in a decoding step, plain products take two thirds of the fused kernel's time
FEW_PRODUCTS = 1 << 16  # up to this many, the number of operators decides, and the fused kernel is one


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H) → (B, heads, T, H / heads): a view."""
    batch, length, hidden = x.shape
    return x.view(batch, length, heads, hidden // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, T, d) → (B, T, heads · d)."""
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(T, T): True where a position may attend: to itself and before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, p: float = 0.0
) -> Tensor:
    """Attention with dropout *p* of its weights.

    On CPUs torch has no fused kernel with dropout and falls back to a slow one, in float32 even under bfloat16
    autocast; and the fused kernel is slow for few queries. In both cases, plain products are used.

    Args:
        mask: (B, 1, 1 or T, S). Either a mask or *causal*, not both.
    """
    assert mask is None or not causal, "a causal mask is the whole mask"
    if fast() and q.device.type == "cpu" and (p or (q.size(2) <= FEW_QUERIES and q.numel() * k.size(2) > FEW_PRODUCTS)):
        return eager_attention(q, k, v, mask=causal_mask(q.size(2), q.device) if causal else mask, p=p)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)  # under autocast, it has the precision of the weights
    with kernels_of(q.device.type):
        return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=p))


class _WithoutCuDNN(contextlib.AbstractContextManager[None]):
    """torch's switch of cuDNN's attention, which the whole process has in common: off as long as any thread is within.

    It takes a tenth of the time of torch's `sdpa_kernel`, which looks five switches up by their names, and sets them
    all, twice: 16 µs, and a decoding step calls attention 24 times.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if self._within == 0:
                self._before = torch.backends.cuda.cudnn_sdp_enabled()
                torch.backends.cuda.enable_cudnn_sdp(False)
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                torch.backends.cuda.enable_cudnn_sdp(self._before)


_without_cudnn = _WithoutCuDNN()


def kernels_of(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Torch's attention without cuDNN's kernel on GPUs; elsewhere with what torch has."""
    if device_type != "cuda":
        return contextlib.nullcontext()
    # torch.compile knows what sdpa_kernel does; a lock would break its graphs apart
    return sdpa_kernel(list(GPU_KERNELS)) if torch.compiler.is_compiling() else _without_cudnn


def eager_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, p: float = 0.0) -> Tensor:
    """`attention` as plain products."""
    shape = q.shape
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B · heads, T or S, d)
    unused = q.new_empty(1, 1, 1)  # baddbmm's addend
    scores = torch.baddbmm(unused, q, k.transpose(1, 2), beta=0, alpha=q.size(2) ** -0.5)
    scores = scores.view(*shape[:3], k.size(1))  # (B, heads, T, S)
    weights = dropout(_softmax(_masked(scores, mask)), p, training=True)
    return merge_heads(torch.bmm(weights.flatten(0, 1), v).view(shape))


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """*scores*, changed in place by a *mask* of either kind."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill_(~mask, float("-inf"))
    return scores.add_(mask)


def attention_weights(q: Tensor, k: Tensor, *, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)), (B, heads, T, S) in float32: what the others multiply by v, for looking at."""
    scores = (q @ k.transpose(2, 3)).float() * q.size(3) ** -0.5
    return torch.softmax(_masked(scores, mask), dim=-1)


def grouped_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, groups: Groups, p: float = 0.0
) -> Tensor:
    """Attention of captions (or beams) to their images' keys, with one copy of the keys per image.

    Args:
        q: (C, heads, T, d) of captions.
        k, v: (groups, heads, N, d), each for a group of captions.
        mask: (groups, 1, 1, N), or None.
        groups: the captions of each group.
    """
    if not fast():
        count = q.size(0) // k.size(0)
        k, v = (x.repeat_interleave(count, dim=0) for x in (k, v))
        return attention(q, k, v, mask=None if mask is None else mask.repeat_interleave(count, dim=0), p=p)
    attended = attention(groups.fold_captions(q, k.size(0)), k, v, mask=mask, p=p)  # (groups, G · T, H)
    return groups.rows(attended.view(-1, q.size(2), attended.size(-1)))


def prefix_attention(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    prefix_mask: Tensor | None,
    mask: Tensor | None,
    groups: Groups,
    p: float = 0.0,
) -> Tensor:
    """Attention to a prefix and a text in one softmax, with one copy of the prefix per group of texts.

    A fused kernel would need copies of the prefix's keys and values for each text.

    Args:
        q: (C, heads, T, d) of texts.
        prefix_k, prefix_v: (groups, heads, N, d), each for a group of texts.
        k, v: (C, heads, t, d) of the texts.
        prefix_mask: (groups, 1, 1, N), or None.
        mask: (T, t) or (C, 1, T, t), for the text; None: a query may attend everywhere.
        groups: the texts of each group.
    """
    length, width = q.size(2), q.size(3)
    if not fast():
        count = q.size(0) // prefix_k.size(0)
        prefix_k, prefix_v = (x.repeat_interleave(count, dim=0) for x in (prefix_k, prefix_v))
        if prefix_mask is not None:
            prefix_mask = prefix_mask.repeat_interleave(count, dim=0)
        if mask is None:
            mask = torch.ones(length, k.size(2), dtype=torch.bool, device=q.device)
        whole = joint_mask(prefix_mask, mask, captions=q.size(0), prefix=prefix_k.size(2))
        return attention(q, torch.cat([prefix_k, k], dim=2), torch.cat([prefix_v, v], dim=2), mask=whole, p=p)
    count, _, prefix, _ = prefix_k.shape
    q = q * width**-0.5
    to_prefix = groups.fold_captions(q, count) @ prefix_k.transpose(2, 3)  # (groups, heads, G · T, N)
    to_prefix = groups.unfold_captions(_masked(to_prefix, prefix_mask), length)  # (C, heads, T, N)
    to_text = _masked(q @ k.transpose(2, 3), mask)  # (C, heads, T, t)
    weights = dropout(_softmax(torch.cat([to_prefix, to_text], dim=-1)), p, training=True)
    to_prefix, to_text = weights.split([prefix, k.size(2)], dim=-1)
    attended = groups.unfold_captions(groups.fold_captions(to_prefix, count) @ prefix_v, length)
    return merge_heads(attended + to_text @ v)


def joint_mask(prefix_mask: Tensor | None, mask: Tensor, *, captions: int, prefix: int) -> Tensor:
    """One mask (C, 1, T, N + t) of a prefix (C, 1, 1, N), or all of its N positions, and of a text (T, t)."""
    length = mask.size(-2)
    if prefix_mask is None:
        prefix_mask = mask.new_ones(captions, 1, 1, prefix)
    text_mask = mask.expand(captions, 1, length, -1)
    return torch.cat([prefix_mask.expand(-1, -1, length, -1), text_mask], dim=-1)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension, computed at least in float32; the result has the precision of *scores*."""
    exact = torch.promote_types(scores.dtype, torch.float32)  # under half precision
    return torch.softmax(scores, dim=-1, dtype=exact).to(scores.dtype)
