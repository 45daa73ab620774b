"""Image files: lists those of a folder, reads their headers, decodes and writes them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nbridge.common.messages import listing
from nbridge.data.endings import IMAGES as ENDINGS
from nbridge.data.endings import has_ending
from nbridge.data.ids import identifier_of
from nbridge.data.images.decode import UnknownFormatError, UnreadableImageError, converted, opened, to_array
from nbridge.errors import DataError
from nbridge.spec.option_types import Resize

if TYPE_CHECKING:
    from PIL import Image

_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_GREY, _COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes with eight bits per channel."""


class Found(NamedTuple):
    """The contents of a folder: its images sorted by name, and all other non-hidden entries."""

    images: tuple[Path, ...]
    others: tuple[Path, ...]


class Size(NamedTuple):
    """The header of an image file: its size in pixels as displayed, and its channels, 1 or 3."""

    width: int
    height: int
    channels: int


@dataclass(frozen=True)
class ImageTarget:
    """The target that images are decoded to.

    Arguments:
        name: The modality, for messages.
        shape: Its shape, (C, H, W): one channel for grey, three for RGB.
        resize: How to convert images of another size; None rejects them.

    Raises:
        DataError: when it is not an image shape.
    """

    name: str
    shape: tuple[int, ...]
    resize: Resize | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise DataError(
                f"modality {self.name!r}: shape {list(self.shape)}, expected that of images, [1, height, width] for grey ones or "
                "[3, height, width] for colour"
            )

    def decode(self, path: Path) -> np.ndarray:
        """Decodes a file to bytes, shape (C, H, W).

        The EXIF orientation is applied, and transparent pixels are composited on white.

        Raises:
            DataError: when it can't be read, or has another size.
        """
        from PIL import ImageOps

        with _checked(path) as image:
            upright = ImageOps.exif_transpose(image)
        return to_array(self._sized(path, converted(upright, self.shape[0])))

    def _sized(self, path: Path, image: Image.Image) -> Image.Image:
        from PIL import Image, ImageOps

        size = (self.shape[2], self.shape[1])
        if image.size == size:
            return image
        if self.resize is None:
            raise DataError(
                f"{path}: {by(*image.size)} pixels, expected {by(*size)} (width x height), the shape {list(self.shape)} of modality "
                f"{self.name!r}; set data.resize to crop, pad or stretch"
            )
        if self.resize == "stretch":
            return image.resize(size, Image.Resampling.BICUBIC)
        return (ImageOps.fit if self.resize == "crop" else ImageOps.pad)(image, size, Image.Resampling.BICUBIC)


def images_in(folder: Path) -> Found:
    """Lists the images of a folder, by file ending, without subfolders.

    Raises:
        DataError: when it can't be read, or two images have the same stem, so that either could belong to a row.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in _OF_SYSTEMS)
        images = tuple(path for path in entries if is_image(path.name) and path.is_file())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    stems, known = dict[str, Path](), set(images)
    for path in images:
        if (other := stems.setdefault(identifier_of(path.stem), path)) is not path:
            raise DataError(f"{folder}: {other.name} and {path.name} have the same stem, so the row's image is ambiguous; remove one")
    return Found(images, tuple(path for path in entries if path not in known))


def file_at(root: Path, text: str) -> Path | None:
    """The file at a path, whether its name on disk has composed or decomposed accents; None if there is none.

    Arguments:
        root: The folder that paths are relative to.
        text: The path.
    """
    spelt = dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)))
    # Path.exists raises for text that can't be a file name.
    return next((root / one for one in spelt if os.path.isfile(root / one)), None)  # noqa: PTH113


def is_image(name: str) -> bool:
    """Whether a file is an image, by its ending.

    Example:
        >>> is_image("scan 1.PNG"), is_image("notes.txt")
        (True, False)
    """
    return has_ending(name, *ENDINGS)


def size_of(path: Path) -> Size:
    """Reads an image's header; hardly more than its first bytes are read.

    Raises:
        DataError: when it is not an image, or of a kind that `ImageTarget.decode` rejects.
    """
    from PIL import Image

    with _checked(path) as image:
        # Pillow itself turns the size of TIFF images, and its method for PNG decodes the pixels, because EXIF data may follow them.
        turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION) in _TURNED
        width, height = image.size[::-1] if turned else image.size
        return Size(width, height, 1 if image.mode in _GREY else 3)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes an image to a file that must not exist yet.

    Arguments:
        path: The file.
        pixels: Values from 0 to 1, shape (C, H, W) with 1 or 3 channels; values outside are clipped.
    """
    from PIL import Image

    levels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    with path.open("xb") as file:
        Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, "PNG")


def by(width: int, height: int) -> str:
    """Formats a size."""
    return f"{width} x {height}"


@contextmanager
def _checked(path: Path) -> Iterator[Image.Image]:
    """Opens an image file, and rejects images that would silently lose information."""
    try:
        with opened(path) as image:
            if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
                raise DataError(f"{path}: holds {frames} images, expected one; save each to its own file")
            if image.mode not in (*_GREY, *_COLOUR):
                raise DataError(f"{path}: more than 8 bits per channel (mode {image.mode}), expected 8; scale it and save it again")
            yield image
    except UnreadableImageError as error:
        unknown = f"not a supported image format: {listing(ending.removeprefix('.') for ending in ENDINGS)}"
        reason = unknown if isinstance(error, UnknownFormatError) else error.detail
        raise DataError(f"{path}: cannot be read ({reason})") from error
