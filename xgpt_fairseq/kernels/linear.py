"""Linear layers with weights packed for the CPU's matrix kernels while no gradient is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.switch import fast

# Of a matrix, from which on packing is worth it: calling the operator takes 35 µs, torch's plain product 5.
LEAST_WEIGHTS = 1 << 19


@dataclass(frozen=True)
class _Packed:
    """Packed weights, with references to the originals.

    The references keep their addresses from being reused, which would defeat the version check.
    """

    weight: Tensor
    bias: Tensor
    version: tuple[tuple[int, int], tuple[int, int]]
    made_of: tuple[Tensor, Tensor]


def _version(weight: Tensor) -> tuple[int, int]:
    """A key that changes when the tensor is replaced or modified in place (not through `.data`)."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


class PackedWeights(nn.Module):
    """x W^T + b, optionally with GELU, where W is packed once instead of in every product.

    A matrix product rearranges its operands into blocks for the CPU. With few rows, as in a decoding step, this takes
    longer than the product itself. Without gradient, on a CPU, this module keeps the packed weights (as much memory
    again, half as much in bfloat16) from the first call on, until the model is trained again or the weights change. In
    training, on GPUs, in other precisions, of small matrices (`LEAST_WEIGHTS`), and under
    `torch.backends.mkldnn.flags(enabled=False)`, the product is torch's plain one.

    Weights are passed in, so that slices of one matrix, or a tied embedding, can be packed.

    Works around: torch packs weights for inference only in compiled models, with the two undocumented operators used
    here (`mkldnn::_reorder_linear_weight`, `mkldnn::_linear_pointwise`). If they are missing, products are plain.
    tests/kernels/test_linear.py fails when they change, and `make bench NAMES=generation` shows when eager torch is
    fast enough without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: dict[tuple[str, torch.dtype], _Packed] = {}  # by name of the weight and precision

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, *, name: str = "", gelu: bool = False) -> Tensor:
        """(…, K) → (…, N), for weight (N, K) and bias (N,).

        Args:
            name: identifies this weight among those that the module is called with.
            gelu: apply GELU (the erf form) to the result.
        """
        small = weight.numel() < LEAST_WEIGHTS
        precision = None if small or self.training else self._precision(x, weight)
        if precision is None:
            plain = F.linear(x, weight, bias)
            return F.gelu(plain) if gelu else plain
        packed, bias = self._pack(weight, bias, name, precision)
        activation = "gelu" if gelu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(precision), packed, bias, activation, [], "none")
        return y

    def train(self, mode: bool = True) -> PackedWeights:
        """Discard packed weights when training begins, since optimizers change weights unnoticed (through `.data`)."""
        if mode:
            self._packed.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out packed weights: copies and unpickled modules pack their own."""
        return {**self.__dict__, "_packed": {}}

    def _pack(self, weight: Tensor, bias: Tensor, name: str, precision: torch.dtype) -> tuple[Tensor, Tensor]:
        kept = self._packed.get((name, precision))
        version = _version(weight), _version(bias)
        if kept is None or kept.version != version:
            plain = weight.detach(), bias.detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(plain[0].to(precision).contiguous())
            kept = _Packed(packed, plain[1].to(precision, copy=True), version, plain)
            self._packed[name, precision] = kept
        return kept.weight, kept.bias

    @staticmethod
    def _precision(x: Tensor, weight: Tensor) -> torch.dtype | None:
        """The precision of the packed product, or None for the plain product."""
        if torch.is_grad_enabled() or weight.device.type != "cpu" or not x.numel() or not can_pack():
            return None
        if torch.is_autocast_enabled("cpu"):
            precision = torch.get_autocast_dtype("cpu")
        elif x.dtype == weight.dtype:
            precision = weight.dtype
        else:
            return None  # the plain product raises the error
        if precision == torch.bfloat16:
            return precision if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
        return precision if precision == torch.float32 else None


def can_pack() -> bool:
    """Whether this torch has the operators, and they are not switched off."""
    return fast() and bool(torch.backends.mkldnn.enabled) and torch.backends.mkldnn.is_available() and _OPERATORS


_OPERATORS = all(
    hasattr(torch.ops.mkldnn, name)
    for name in ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
)


class PackedLinear(nn.Linear):
    """A linear layer with bias, and optionally GELU, whose weights are packed outside training (`PackedWeights`).

    Shape:
        x (…, in_features); output (…, out_features), or the requested slice.

    Args:
        gelu: apply GELU to the result; the CPU's kernels fuse it.
    """

    def __init__(self, in_features: int, out_features: int, *, gelu: bool = False) -> None:
        super().__init__(in_features, out_features)
        self.gelu = gelu
        self.packed = PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        return self.packed(x, self.weight, self.bias, gelu=self.gelu)

    def forward_slice(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Compute only the outputs from *start* to *stop*."""
        part = slice(start, stop)
        return self.packed(x, self.weight[part], self.bias[part], name=f"{start}:{stop}", gelu=self.gelu)

    def forward_split(self, *inputs: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The first sizes[0] outputs of the first input, the next sizes[1] of the second, and so on.

        Like one `forward_slice` per input, but the gradient of the weights is built once instead of being padded with
        zeros for each slice.
        """
        outputs, start = [], 0
        for x, weight, bias in zip(inputs, self.weight.split(sizes), self.bias.split(sizes), strict=True):
            stop = start + len(weight)
            outputs.append(self.packed(x, weight, bias, name=f"{start}:{stop}", gelu=self.gelu))
            start = stop
        return outputs
