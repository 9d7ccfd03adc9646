"""Photos from files, upright and in the size that the network takes: as `xgpt_fairseq.vision.photos` reads them."""

from __future__ import annotations

import importlib
import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from xgpt_runtime.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# What is read as a photo, by Pillow's names. Pillow knows more formats; some of them start other programs (EPS).
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# The first bytes that tell what a file is.
HEAD_BYTES: Final = 256
# Brands of ISO's base media format (ISO/IEC 14496-12, 23008-12), in which both formats come.
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_HEIC_BRANDS: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

# A JPEG of more than twice the size that is asked for is decoded at 1/2, 1/4 or 1/8, for a fraction of memory and time.
DRAFT: Final = 2
# An image of more than three times the size is averaged over whole pixels before it is resampled.
REDUCING_GAP: Final = 3.0

WHITE: Final = (255, 255, 255, 255)
# Pixels of 16 bits that are made 8 bits at a time.
_STRIP: Final = 1 << 20


class PhotoError(DataError):
    """A file cannot be read as a photo.

    Attributes:
        reason: why, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Photo:
    """A photo, decoded.

    pixels (H, W, 3) uint8 RGB, upright, in the backbone's size; size: width and height of the upright original in
    pixels.
    """

    pixels: npt.NDArray[np.uint8]
    size: tuple[int, int]


@dataclass(frozen=True)
class PhotoForm:
    """The form in which a network takes photos.

    Attributes:
        image_size: longer side of a photo in pixels.
        stride: pixels per cell of the network's map, which both sides are multiples of.
        square: whether photos are squeezed to squares.
        interpolation: how photos are resampled, by the name of Pillow's filter.
    """

    image_size: int
    stride: int
    square: bool
    interpolation: str

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height for the network: the longer side is *image_size*, the other nearly in proportion.

        The shorter side is rounded by at most half a stride, but is never below one stride.
        """
        if self.square:
            return self.image_size, self.image_size
        scale = self.image_size / max(width, height)
        columns, rows = (max(round(side * scale / self.stride), 1) * self.stride for side in (width, height))
        return columns, rows


def load_photo(photo: Path | bytes | Image.Image, form: PhotoForm) -> Photo:
    """Read a photo.

    It is rotated by its EXIF orientation. Of an animation the first frame is read. Transparency is composited on white.
    16-bit values are scaled to 8 bits; colour profiles are ignored.

    Args:
        photo: the file, its bytes, or an image of Pillow.
        form: of the result.

    Raises:
        PhotoError: there is no such file, or it cannot be read or decoded.
        DataError: *photo* is none of these.
    """
    formats = known_formats()
    from PIL import Image, UnidentifiedImageError

    if isinstance(photo, Image.Image):
        try:
            return _read(photo.copy(), form)
        except Exception as error:  # as below
            raise PhotoError(Path(getattr(photo, "filename", "") or "image"), _reason(error)) from error
    if not isinstance(photo, Path | bytes):
        raise DataError(f"a photo is a path, bytes, or an image of Pillow, not {type(photo).__name__}: {photo!r:.100}")
    path = Path("photo") if isinstance(photo, bytes) else photo
    try:
        if not isinstance(photo, bytes) and not photo.is_file():  # raises where the system refuses the name
            # A pipe would be waited for, a folder is one that could not be listed.
            raise PhotoError(photo, "not a file" if photo.exists() else "no such file")
        # Pillow warns about metadata that it then ignores, and about sizes below its limit.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(_opened(photo), formats=formats) as image:
                return _read(image, form)
    except PhotoError:
        raise
    except UnidentifiedImageError as error:
        raise PhotoError(path, _unknown(photo)) from error
    except Exception as error:  # bytes that are damaged fail anywhere in Pillow
        raise PhotoError(path, _reason(error)) from error


def _opened(photo: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(photo) if isinstance(photo, bytes) else photo


def is_photo(photo: Path | bytes) -> bool:
    """Whether *photo* begins like a photo. What comes behind its header is not looked at."""
    formats = known_formats()
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(_opened(photo), formats=formats):
                return True
    except Exception:  # as in load_photo
        return False


def _read(image: Image.Image, form: PhotoForm) -> Photo:
    from PIL import ExifTags, Image

    width, height = image.size
    target = form.size_of(width, height)
    draft = image.draft(None, (DRAFT * target[0], DRAFT * target[1]))  # has no effect on other formats
    box = draft[1] if draft else None  # the last pixels of a draft may extend beyond the photo
    image.load()
    # After loading, since TIFF files are then already upright, and have lost the tag.
    turned = image.getexif().get(ExifTags.Base.Orientation)
    resized = _eight_bits(image).resize(
        target, Image.Resampling[form.interpolation.upper()], box=box, reducing_gap=REDUCING_GAP
    )
    if resized.mode in ("LA", "RGBA"):
        resized = resized.convert("RGBA")
        resized = Image.alpha_composite(Image.new("RGBA", resized.size, WHITE), resized)
    upright = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    if turned in upright:
        resized = resized.transpose(upright[turned])
    if turned in (5, 6, 7, 8):
        width, height = height, width
    return Photo(np.array(resized.convert("RGB")), (width, height))


def _eight_bits(image: Image.Image) -> Image.Image:
    """*image* in mode L, LA, RGB or RGBA."""
    from PIL import Image

    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        return Image.fromarray(_from_sixteen_bits(image))
    if mode == "F":
        raise ValueError("floating-point values without a defined white level")
    if image.has_transparency_data:
        return image if mode in ("LA", "RGBA") else image.convert("RGBA")
    if mode in ("L", "RGB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _from_sixteen_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The values (H, W) of an image of 16 bits, as 8 bits, in strips: as a whole they need tens of bytes a pixel."""
    width, height = image.size
    found = np.empty((height, width), np.uint8)
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        values = np.asarray(image.crop((0, top, width, min(top + rows, height)))).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"values from {values.min()} to {values.max()}; at most 16 bits are read")
        found[top : top + rows] = (values + 128) // 257  # 65535 / 255 = 257
    return found


def _unknown(photo: Path | bytes) -> str:
    """Why Pillow does not know what *photo* is."""
    if isinstance(photo, bytes):
        head = photo[:HEAD_BYTES]
    else:
        with open(photo, "rb") as file:
            head = file.read(HEAD_BYTES)
    if not head:
        return "the file is empty"
    read = f"not a photo, or damaged at its beginning; {', '.join(known_formats())} are read"
    return missing_reader(head) or read


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that are read here: HEIF if pillow-heif is installed, the others if Pillow has them."""
    from PIL import Image

    Image.init()
    heif = _pillow_heif()
    if heif is not None:
        heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def missing_reader(head: bytes) -> str:
    """Of a file that Pillow does not know by its first bytes: what it is, and what has to be installed.

    Returns:
        str: empty if nothing would help.
    """
    from PIL import features

    found = iso_format(head)
    if found == "HEIC" and "HEIF" not in known_formats():
        return 'HEIC, which needs the package pillow-heif: pip install "xgpt-runtime[heif]"'
    if found == "AVIF" and not ("AVIF" in known_formats() and features.check("avif")):
        return "AVIF, which needs Pillow 11.3 or later: pip install --upgrade pillow"
    return ""


def iso_format(head: bytes) -> str:
    """`HEIC` or `AVIF`, by the brands in the first bytes of a file, whatever its name; empty for all others."""
    if head[4:8] != b"ftyp":
        return ""
    length = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)) - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def _pillow_heif() -> Any:
    try:
        return importlib.import_module("pillow_heif")
    except ImportError:
        return None
