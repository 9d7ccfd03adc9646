"""Linear maps that keep their weights in the layout of the CPU's matrix kernels while no gradient is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xgpt_fairseq.kernels.switch import fast


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
    """x W^T + b, and GELU where it is asked for, W packed once instead of in every product.

    A matrix product brings its operands into blocks that suit the CPU. For a weight that meets few rows at a time, as
    in each step of a search, that takes longer than the product itself. Without gradient, on a CPU, this module keeps
    the packed weights (as much memory again, half as much in bfloat16) from the first call on, until the model is
    trained again or the weights change. In training, on GPUs, in other precisions, and under
    `torch.backends.mkldnn.flags(enabled=False)`, the product is the plain one.

    Weights are passed in, so that slices of one matrix, or a tied embedding, can be packed.

    Works around: torch packs weights for inference in compiled models alone, by the two operators used here
    (`mkldnn::_reorder_linear_weight`, `mkldnn::_linear_pointwise`), which are not documented. Where they are missing,
    products are plain. tests/kernels/test_linear.py says when they change, and
    `make bench NAMES=generation` when eager torch keeps up by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: dict[tuple[str, torch.dtype], _Packed] = {}  # by name of the weight and precision

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, *, name: str = "", gelu: bool = False) -> Tensor:
        """(…, K) → (…, N), for weight (N, K) and bias (N,).

        Args:
            name: tells this weight from the others that the module is called with.
            gelu: apply GELU (the erf form) to the result.
        """
        precision = None if self.training else self._precision(x, weight)
        if precision is None:
            plain = F.linear(x, weight, bias)
            return F.gelu(plain) if gelu else plain
        packed, bias = self._pack(weight, bias, name, precision)
        activation = "gelu" if gelu else "none"
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(precision), packed, bias, activation, [], "none")
        return y

    def train(self, mode: bool = True) -> PackedWeights:
        """Forget what is packed when training begins: optimizers change weights unseen (through `.data`)."""
        if mode:
            self._packed.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles pack their weights themselves."""
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
        """What to multiply in, or None where the plain product is to be taken."""
        if torch.is_grad_enabled() or weight.device.type != "cpu" or not x.numel() or not can_pack():
            return None
        if torch.is_autocast_enabled("cpu"):
            precision = torch.get_autocast_dtype("cpu")
        elif x.dtype == weight.dtype:
            precision = weight.dtype
        else:
            return None  # the plain product says what is wrong
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
    """A linear layer with bias, and perhaps GELU, whose weights are packed outside training (`PackedWeights`).

    Shape:
        x (…, in_features); output (…, out_features), or as many as are asked for.

    Args:
        gelu: apply GELU to the result; for the CPU's kernels that is one operation.
    """

    def __init__(self, in_features: int, out_features: int, *, gelu: bool = False) -> None:
        super().__init__(in_features, out_features)
        self.gelu = gelu
        self.packed = PackedWeights()

    def forward(self, x: Tensor) -> Tensor:
        return self.packed(x, self.weight, self.bias, gelu=self.gelu)

    def forward_slice(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Outputs *start* up to *stop* alone."""
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
