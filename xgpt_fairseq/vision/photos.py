"""Photos from files, tars and tables, read upright and in the size that the backbone takes."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from xgpt_fairseq.errors import ChangedError, DataError
from xgpt_fairseq.io.tar_members import DamagedTarError, TarMember, read_member
from xgpt_fairseq.vision.choices import IMAGE_SIZE
from xgpt_fairseq.vision.photo_formats import HEAD_BYTES, known_formats, missing_reader
from xgpt_fairseq.vision.table_photos import TableCell, read_cell

if TYPE_CHECKING:
    from PIL import Image

    from xgpt_fairseq.vision.views import View

# Pixels per cell of the default backbone's map.
STRIDE: Final = 32
# Least side of a photo for a detector, whose convolutions need some pixels of the narrowest strip.
LEAST_SIDE: Final = 16
# How photos are resampled, by the names of Pillow's filters.
INTERPOLATIONS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

# A JPEG of more than twice the size that is asked for is decoded at 1/2, 1/4 or 1/8, for a fraction of memory and time.
DRAFT: Final = 2
# An image of more than three times the size is averaged over whole pixels before it is resampled.
REDUCING_GAP: Final = 3.0

WHITE: Final = (255, 255, 255, 255)

# The most bytes of a file, which some formats' readers take into memory: more than the largest photo needs in 16 bits.
LARGEST_FILE: Final = 1 << 30
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


class VanishedError(DataError):
    """A photo, or its tar or table, was there when photos were looked for, and is gone or cut: others may be, too."""


class NoPhotoError(PhotoError):
    """A file does not begin like a photo of a format that is read here."""


class LargePhotoError(PhotoError):
    """A photo has more pixels than are allowed."""


class UnfitPhotoError(PhotoError):
    """The network that sees photos takes none of this one's shape."""


@dataclass(frozen=True)
class PhotoFile:
    """A file that was found (`photo_files.find_photos`) and may be a photo: itself, or in a tar or table; or its bytes.

    Attributes:
        path: of the file; in a tar, the tar's and the member's; in a table, as `place_in_table` says.
        name: its name without folders or, where photos share that, its path below the folder that was given (below
            what the folders have in common, if several were given), with `/`.
        image_id: its id as `canonical_image_id` makes it of the name.
        folder: the folders of its path, whether its name has them or not, as `canonical_image_id` has them.
        tar, member: where it is in a tar.
        cell: where it is in a table.
        reason: why it cannot be read, where that is known already.
        data: its bytes, where it is on no disk.
    """

    path: Path
    name: str = ""
    image_id: str = ""
    folder: str = ""
    tar: Path | None = None
    member: TarMember | None = None
    cell: TableCell | None = None
    reason: str = ""
    data: bytes | None = field(default=None, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a file by itself."""
        return self.tar is None and self.cell is None

    def content(self) -> Path | io.BytesIO:
        """What Pillow opens.

        Raises:
            PhotoError: it is no file, or cannot be read from its tar or table.
            VanishedError: its tar or table has been cut, or is gone, since the photo was found in it.
        """
        if self.reason:
            raise PhotoError(self.path, self.reason)
        if self.data is not None:
            return io.BytesIO(self.data)
        if self.tar is not None and self.member is not None:
            self._check_size(self.member.size)
            try:
                return io.BytesIO(read_member(self.tar, self.member))
            except (DamagedTarError, FileNotFoundError):
                raise VanishedError(f"{self.tar} was cut, or vanished, while it was read: {self.member.name}") from None
        if self.cell is not None:
            try:
                return io.BytesIO(read_cell(self.cell))
            except ChangedError as error:
                raise VanishedError(str(error)) from None
            except DataError as error:
                raise PhotoError(self.path, str(error)) from None
        if not self.path.is_file():
            # A pipe would be waited for, a folder is one that could not be listed.
            raise PhotoError(self.path, "not a file" if self.path.exists() else "no such file")
        self._check_size(self.path.stat().st_size)
        return self.path

    def _check_size(self, size: int) -> None:
        if size > LARGEST_FILE:
            raise PhotoError(self.path, f"the file has {size:,} bytes; of a photo at most {LARGEST_FILE:,} are read")


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
    """The form in which a backbone or a detector takes photos.

    Attributes:
        image_size: longer side of a photo in pixels, a multiple of *stride*; with *shorter_side*, the longest.
        stride: pixels per cell of the backbone's map, which both sides are multiples of (of squares, a part of a cell
            may remain).
        square: whether photos are squeezed to squares.
        interpolation: one of `INTERPOLATIONS`.
        shorter_side: the shorter side in pixels, where the longer one then is at most *image_size*.

    Raises:
        DataError: *image_size* is no positive multiple of *stride*, or there is no such interpolation.
    """

    image_size: int = IMAGE_SIZE
    stride: int = STRIDE
    square: bool = False
    interpolation: str = "bilinear"
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        if self.image_size < self.stride or (self.image_size % self.stride and not self.square):
            raise DataError(f"the image size is {self.image_size}; a positive multiple of {self.stride} is needed")
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"interpolation {self.interpolation!r}; {', '.join(INTERPOLATIONS)} are known")

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height for the network: the longer side is *image_size*, the other nearly in proportion.

        The shorter side is rounded by at most half a stride, but is never below one stride. With `shorter_side`, that
        is the shorter side, unless the longer one would be above *image_size*; strips are stretched to `LEAST_SIDE`.
        """
        if self.square:
            return self.image_size, self.image_size
        scale = self.image_size / max(width, height)
        if self.shorter_side is not None:
            scale = min(scale, self.shorter_side / min(width, height))
        least = 1 if self.shorter_side is None else -(-LEAST_SIDE // self.stride)
        columns, rows = (max(round(side * scale / self.stride), least) * self.stride for side in (width, height))
        return columns, rows


@dataclass(frozen=True)
class _Enlarged(PhotoForm):
    """A form of photos of which a part, *side* of the width and of the height, has the size that the whole would."""

    side: float = 1.0

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        columns, rows = super().size_of(width, height)
        return round(columns / self.side), round(rows / self.side)


def load_photo(
    photo: Path | PhotoFile | Image.Image,
    form: PhotoForm | None = None,
    *,
    max_pixels: int | None = None,
    view: View | None = None,
) -> Photo:
    """Read a photo.

    It is rotated by its EXIF orientation. Of an animation the first frame is read. Transparency is composited on white.
    16-bit values are scaled to 8 bits; colour profiles are ignored.

    Args:
        photo: the file, or an image of Pillow.
        form: of the result; None: the default backbone's.
        max_pixels: refuse a photo of more pixels by its header, before it is decoded; None: Pillow's limit alone,
            178 956 970.
        view: what of the photo is seen; None: all of it.

    Raises:
        NoPhotoError: the file does not begin like a photo.
        LargePhotoError: the photo has more than *max_pixels*.
        PhotoError: there is no such file, or it cannot be read or decoded.
        VanishedError: its tar or table has been cut, or is gone, since the photo was found in it.
        DataError: Pillow is not installed, or *photo* is neither.
    """
    form = form or PhotoForm()
    if view is not None:
        whole = load_photo(photo, _Enlarged(**vars(form), side=view.side), max_pixels=max_pixels)
        return Photo(view.of(whole.pixels, form.size_of(*whole.size)), whole.size)
    formats = known_formats()
    from PIL import Image, UnidentifiedImageError

    if isinstance(photo, Image.Image):
        try:
            return _read(photo.copy(), form)
        except Exception as error:  # as below
            raise PhotoError(Path(getattr(photo, "filename", "") or "image"), _reason(error)) from error
    if not isinstance(photo, Path | PhotoFile):
        raise DataError(f"a photo is a path, or an image of Pillow, not {type(photo).__name__}: {photo!r:.100}")
    photo = PhotoFile(photo) if isinstance(photo, Path) else photo
    content = None
    try:
        content = photo.content()
        # Pillow warns about metadata that it then ignores, and about sizes below its limit.
        with warnings.catch_warnings(action="ignore"), Image.open(content, formats=formats) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise LargePhotoError(photo.path, _too_large(max_pixels, image.size))
            return _read(image, form)
    except (PhotoError, VanishedError):
        raise
    except UnidentifiedImageError as error:
        raise NoPhotoError(photo.path, _unknown(content)) from error
    except Exception as error:  # bytes that are damaged fail anywhere in Pillow
        if max_pixels is not None and isinstance(error, Image.DecompressionBombError):
            raise LargePhotoError(photo.path, _too_large(max_pixels)) from error
        raise PhotoError(photo.path, _reason(error)) from error


def is_photo(photo: Path | PhotoFile) -> bool:
    """Whether *photo* begins like a photo. What comes behind its header is not looked at."""
    formats = known_formats()
    from PIL import Image

    photo = PhotoFile(photo) if isinstance(photo, Path) else photo
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(photo.content(), formats=formats):
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


def _unknown(content: Path | io.BytesIO | None) -> str:
    """Why Pillow does not know what *content* is."""
    head = first_bytes(content)
    if not head:
        return "the file is empty"
    read = f"not a photo, or damaged at its beginning; {', '.join(known_formats())} are read"
    return missing_reader(head) or read


def _too_large(max_pixels: int, size: tuple[int, int] | None = None) -> str:
    most = f"{max_pixels / 1e6:g} megapixels"
    if size is None:
        return f"the photo has more than {most}"
    width, height = size
    return f"the photo has {width} x {height} pixels; at most {most} are read"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def first_bytes(content: Path | io.BytesIO | None) -> bytes:
    """The beginning of what Pillow opens, by which formats are told."""
    if isinstance(content, Path):
        with open(content, "rb") as file:
            return file.read(HEAD_BYTES)
    return b"" if content is None else content.getvalue()[:HEAD_BYTES]
