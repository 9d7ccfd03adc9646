"""bfloat16 on CPUs: `--cpu-bf16`. Float32 on GPUs, where torch computes with fewer digits."""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Iterator

import torch

from xgpt_fairseq.errors import DataError


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions (AVX512-BF16, AMX; on ARM, BF16); without them bfloat16 is slower."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_cpu_bfloat16(device: str = "cpu", *, instead: str = "leave the option out, or choose --device cpu") -> None:
    """Refuse `--cpu-bf16` where it would not help.

    Args:
        device: the device that computes, as torch writes it.
        instead: what to do where that is no CPU.

    Raises:
        DataError: it is no CPU, whose precision the option leaves as it is; or this CPU has no bfloat16 arithmetic.
    """
    if device.partition(":")[0] != "cpu":
        raise DataError(f"--cpu-bf16 is for CPUs, and {device} would be used: {instead}")
    if not cpu_has_bfloat16():
        raise DataError(
            "--cpu-bf16: this CPU has no bfloat16 arithmetic (AVX512-BF16 or AMX on x86, BF16 on ARM), and would be "
            "slower with it; leave the option out"
        )


def autocast(cpu_bf16: bool) -> contextlib.AbstractContextManager[object]:
    """Matrix products in bfloat16; weights, residuals, LayerNorm, softmax and loss stay float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if cpu_bf16 else contextlib.nullcontext()


def forget_casts() -> None:
    """To call between a part without gradient and one with, in the same `autocast`.

    Works around: torch 2.6 and some later ones keep the copies of weights in bfloat16 that they have made under
    `torch.no_grad`, which have no gradient, and take them where one is wanted: those weights are not trained, without a
    word (https://github.com/pytorch/pytorch/pull/165068). tests/test_precision.py says when it is no longer needed.
    """
    if torch.is_autocast_enabled("cpu"):
        torch.clear_autocast_cache()


class _AllowTF32:
    """torch's switch, which the whole process has in common: off as long as any thread needs it off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._before = True

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if self._within == 0:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if self._within == 0:
                    torch.backends.cudnn.allow_tf32 = self._before


_allow_tf32 = _AllowTF32()


def exact_convolutions() -> contextlib.AbstractContextManager[None]:
    """Convolutions of float32 in float32 on every GPU.

    By default torch computes them in TF32 on GPUs that have it (Ampere and later): 10 bits of a number, not 23.
    """
    return _allow_tf32.off()
