"""What the backbones have in common: pixels in, one feature map out, and everything that decides a feature."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from xgpt_fairseq.errors import DataError
from xgpt_fairseq.vision.packing import Packed
from xgpt_fairseq.vision.photos import PhotoForm

# More tokens than this before those of the patches are no class and register tokens: the patches were counted wrong.
MOST_PREFIX_TOKENS: Final = 16
# Where patches don't divide the photo, which makes more numbers of patches possible: a class and four registers.
MOST_BESIDE_A_REMAINDER: Final = 5


@dataclass(frozen=True)
class BackboneOptions:
    """What a user chooses of a backbone, besides its name.

    Attributes:
        weights: a file (for transformers, a folder) of weights; None: the published ones.
        layer: the layer that makes the features; None: the last.
        offline: never use the network.
        revision: of weights on a hub, rather than one in the name; None: that one, or the newest.
    """

    weights: Path | None = None
    layer: str | None = None
    offline: bool = False
    revision: str | None = None


@dataclass(frozen=True)
class Preprocessing:
    """What the pixels of a photo become, as the network was trained.

    Attributes:
        mean, std: of the values 0 to 255, for red, green and blue.
        image_size: longer side of a photo in pixels, where the user names none.
        interpolation: how photos are resampled (`photos.INTERPOLATIONS`).
        fixed_size: whether the network takes squares of image_size × image_size alone, so that photos are squeezed.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    interpolation: str = "bilinear"
    fixed_size: bool = False


@dataclass(frozen=True)
class Layout:
    """How a network's output lies in memory.

    Attributes:
        kind: "map" (B, D, H, W), "channels last" (B, H, W, D) or "tokens" (B, prefix + H · W, D).
        stride: pixels of the photo per cell, in both directions.
        feature_dim: D.
        prefix_tokens: tokens before those of the patches, such as a class token and registers.
    """

    kind: str
    stride: int
    feature_dim: int
    prefix_tokens: int = 0

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of the output for one photo of *height* × *width* pixels, multiples of the stride."""
        rows, columns = height // self.stride, width // self.stride
        return {
            "map": (1, self.feature_dim, rows, columns),
            "channels last": (1, rows, columns, self.feature_dim),
            "tokens": (1, self.prefix_tokens + rows * columns, self.feature_dim),
        }[self.kind]


@dataclass(frozen=True)
class Origin:
    """Where a backbone's weights are from.

    Attributes:
        weights_sha256: of the file, or of all tensors (`tensors_sha256`).
        revision: of the hub that they are from.
        license: of the weights, where it is known.
        license_text: the licence itself, which must go with the weights, where their package has it.
        versions: of the packages that the features depend on.
    """

    weights_sha256: str
    revision: str | None = None
    license: str | None = None
    license_text: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


class Backbone(nn.Module):
    """A network whose feature map represents a photo.

    Args:
        name: as the user names it, `timm:resnet50` for instance.
        network: normalised pixels (B, 3, H, W) → its output, see *layout*.
        preprocessing: of the photos.
        layout: of the output; None: it is found by a run on a photo of the network's size, and checked by small ones. A
            network that can't take other sizes then gets squares (`Preprocessing.fixed_size`).
        origin: of the weights.
        layer: the layer that makes the features; None: the last.
        packed: makes what a file of its weights has to hold; None: they come with a package.

    Attributes:
        any_shape: whether the network is known to take photos of all shapes; where not, `why_not` tells.

    Raises:
        DataError: the output is no feature map: it is no tensor, has another shape, doesn't grow with the photo, or is
            random.
    """

    mean: Tensor  # (1, 3, 1, 1), as std
    std: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        *,
        preprocessing: Preprocessing,
        origin: Origin,
        layout: Layout | None = None,
        layer: str | None = None,
        packed: Callable[[], Packed] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.packed = packed
        self.network = network
        self.preprocessing = preprocessing
        self.origin = origin
        self.layer = layer
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()
        self.any_shape = layout is not None
        self.layout = layout or self._find_layout()

    @property
    def feature_dim(self) -> int:
        """D, the width of the features."""
        return self.layout.feature_dim

    @property
    def stride(self) -> int:
        """Pixels of the photo per cell of the map, in both directions."""
        return self.layout.stride

    def form(self, image_size: int | None, square: bool = False) -> PhotoForm:
        """The form of its photos, with a longer side of *image_size* pixels, or its own; *square*: squeezed to squares.

        Raises:
            DataError: the backbone can't take that size.
        """
        own = self.preprocessing
        if own.fixed_size and image_size not in (None, own.image_size):
            raise DataError(f"{self.name} takes photos of {own.image_size} pixels alone, not of {image_size}")
        if image_size is None:  # of 384 pixels, patches of 14 see 378
            image_size = own.image_size if own.fixed_size else own.image_size // self.stride * self.stride
        return PhotoForm(
            image_size,
            stride=self.stride,
            square=own.fixed_size or square,
            interpolation=own.interpolation,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything of it that decides a feature, as JSON."""
        own, layout = self.preprocessing, self.layout
        return {
            "backbone": self.name,
            "weights_sha256": self.origin.weights_sha256,
            "layer": self.layer,
            "prefix_tokens": layout.prefix_tokens,
            "stride": layout.stride,
            "mean": list(own.mean),
            "std": list(own.std),
            "interpolation": own.interpolation,
            "square": own.fixed_size,
            "dtype": "float32",
        }

    def forward(self, pixels: Tensor) -> Tensor:
        """The feature map.

        Args:
            pixels: (B, H, W, 3) uint8 RGB; H and W are multiples of `stride`.

        Returns:
            (B, D, H / stride, W / stride) float32
        """
        height, width = pixels.shape[1] // self.stride, pixels.shape[2] // self.stride
        return as_map(self._run(pixels, self.network), self.layout, height, width)

    @torch.inference_mode()
    def why_not(self, height: int, width: int, *, square: int) -> str:
        """Why the network takes no photos of *height* × *width* pixels; empty where it does.

        It is tried on noise, so that the network itself never sees a shape that would change it (`_trial`).

        Args:
            height, width: multiples of `stride`.
            square: side of a square that it takes. What fails for that, too, has another cause than the shape.

        Raises:
            Exception: of the network, for that square, too: no memory, for instance, or no such kernel.
        """
        try:
            self._trial(height, width)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if not self._takes(square):
                raise
            return reason_of(error)
        return ""

    def _takes(self, square: int) -> bool:
        try:
            self._trial(square, square)
        except Exception:  # whatever it is, the shape is not to blame
            return False
        return True

    def _run(self, pixels: Tensor, network: nn.Module) -> Tensor:
        """pixels (B, H, W, 3) uint8 → the output of *network*, in one of `Layout`'s kinds."""
        # Convolutions are fastest on channels-last pixels viewed as (B, 3, H, W).
        x = pixels.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)  # (B, 3, H, W)
        output: Tensor = network(x)
        return output

    def _find_layout(self) -> Layout:
        own, called = self.preprocessing, f"{self.name}{f', layer {self.layer}' if self.layer else ''}"
        height = width = own.image_size
        with torch.inference_mode():
            seen = self._run(_noise(height, width), self.network)
            if not isinstance(seen, Tensor):
                found = "nothing" if seen is None else f"a {type(seen).__name__}"
                raise DataError(f"{called}: its output is {found}, not a feature map; choose another network or layer")
            try:
                layout = find_layout(tuple(seen.shape), own.image_size)
            except DataError as error:
                raise DataError(f"{called}: {error}") from None
            wrong = ""
            others: Iterable[tuple[int, int]] = () if own.fixed_size else _other_sizes(own.image_size, layout.stride)
            for height, width in others:
                try:
                    seen = self._trial(height, width)
                except Exception:  # each library says in its own way that a size is not the network's
                    continue
                if tuple(seen.shape) == layout.shape(height, width):
                    break
                wrong = f"{' x '.join(map(str, seen.shape))} for a photo of {height} x {width} pixels"
            else:
                if wrong:
                    raise DataError(
                        f"{called}: an output of shape {wrong} doesn't follow from the photo's size: it is neither a "
                        "feature map nor a token a patch; choose another network or layer"
                    )
                self.preprocessing = replace(own, fixed_size=True)
                height = width = own.image_size
            again = self._trial(height, width)
        if not torch.allclose(seen, again, rtol=1e-2, atol=1e-2 * float(seen.abs().max()), equal_nan=True):
            raise DataError(
                f"{called}: its output for one photo differs from run to run: the network is random, as a masked "
                "autoencoder is, which hides most of a photo's patches. It makes no features; choose another"
            )
        return layout

    def _trial(self, height: int, width: int) -> Tensor:
        """The output for noise, of a copy of the network with the same weights.

        A copy, since a size that is not the network's may change it for good: transformers' Swin makes its windows
        smaller for a photo that has less patches.
        """
        weights: dict[int, Any] = {id(each): each for each in self.network.parameters()}
        network = copy.deepcopy(self.network, weights).eval()  # a copy of torchvision's graphs trains
        return self._run(_noise(height, width).to(self.mean.device), network)


def _noise(height: int, width: int) -> Tensor:
    """The same photo each time, (1, *height*, *width*, 3) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (1, height, width, 3), dtype=torch.uint8, generator=generator)


def _other_sizes(size: int, stride: int) -> Iterator[tuple[int, int]]:
    """Heights and widths that are no squares, the cheapest first: windows and poolings need more than a few cells."""
    cells = max(size // stride, 1)
    yield 2 * stride, 3 * stride
    yield -(-cells // 2) * stride, max(cells, 2) * stride
    yield cells * stride, 2 * cells * stride


def as_map(output: Tensor, layout: Layout, height: int, width: int) -> Tensor:
    """A network's *output* as a map (B, D, *height*, *width*)."""
    if layout.kind == "channels last":
        return output.permute(0, 3, 1, 2)
    if layout.kind == "tokens":
        cells = output[:, layout.prefix_tokens :]  # (B, H · W, D)
        return cells.transpose(1, 2).unflatten(2, (height, width))  # (B, D, H, W)
    return output


def find_layout(shape: Sequence[int], size: int) -> Layout:
    """The layout of an output of this *shape* for one square photo of *size* pixels.

    Raises:
        DataError: it is neither a map nor tokens.
    """
    if len(shape) == 4:
        _, first, second, third = shape
        side, width, kind = (second, first, "map") if second == third else (first, third, "channels last")
        if (kind == "map" or first == second) and side and size % side == 0:
            return Layout(kind, size // side, width)
    if len(shape) == 3:
        _, tokens, width = shape
        for most, divides in ((MOST_PREFIX_TOKENS, True), (MOST_BESIDE_A_REMAINDER, False)):
            for side in range(math.isqrt(tokens), 0, -1):
                prefix, stride = tokens - side * side, max(size // side, 1)
                fits = size // stride == side and (size % side == 0 or not divides)
                if fits and prefix <= min(most, side * side):
                    return Layout("tokens", stride, width, prefix)
    raise DataError(
        f"an output of shape {' x '.join(map(str, shape))} for a photo of {size} x {size} pixels is neither a feature "
        "map nor a token a patch; choose another layer"
    )


def per_channel(values: Sequence[float] | float) -> tuple[float, float, float]:
    """Means or deviations of values 0 to 1, for 0 to 255."""
    red, green, blue = [values] * 3 if isinstance(values, int | float) else values
    return (255 * red, 255 * green, 255 * blue)


def layer_number(name: str, layer: str | None) -> int | None:
    """A layer that is given by its number. Raises DataError if it is none."""
    try:
        return None if layer is None else int(layer)
    except ValueError:
        raise DataError(f"{name}: --layer is {layer!r}; a number is needed, from 0, or -1 for the last") from None


def reason_of(error: Exception) -> str:
    """Why another library failed, in a line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def needs_package(name: str, extra: str, error: Exception) -> DataError:
    """The error for a backbone whose package can't be imported."""
    return DataError(f'{name} needs the package {extra} ({error}): pip install "xgpt-fairseq[{extra}]"')
