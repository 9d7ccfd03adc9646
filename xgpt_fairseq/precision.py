"""bfloat16 on CPUs: `--cpu-bf16`."""

from __future__ import annotations

import contextlib
import platform

import torch

from xgpt_fairseq.errors import DataError


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions (AVX512-BF16, AMX; on ARM, BF16); without them bfloat16 is slower."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_cpu_bfloat16() -> None:
    """Raise DataError if `--cpu-bf16` would not help."""
    if not cpu_has_bfloat16():
        raise DataError(
            "--cpu-bf16: this CPU has no bfloat16 arithmetic (AVX512-BF16 or AMX on x86, BF16 on ARM), and would be "
            "slower with it; leave the option out"
        )


def autocast(cpu_bf16: bool) -> contextlib.AbstractContextManager[object]:
    """Matrix products in bfloat16; weights, residuals, LayerNorm, softmax and loss stay float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if cpu_bf16 else contextlib.nullcontext()
