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

from nbridge.common.messages import clip, listing
from nbridge.common.process_state import ignored_warnings
from nbridge.data.endings import IMAGES as ENDINGS
from nbridge.data.endings import has_ending
from nbridge.data.ids import identifier_of
from nbridge.data.images.decode import DAMAGED
from nbridge.errors import DataError
from nbridge.spec.option_types import Resize

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open; some of its other ones run external programs."""
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_EXIF = ("JPEG", "TIFF", "WEBP", "MPO")
"""Formats whose orientation is known without decoding."""
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
class Frame:
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
        from PIL import Image, ImageOps

        with _told(path), Image.open(path, formats=_FORMATS) as image:
            _check(path, image)
            # Already a copy, rotated or not.
            upright = ImageOps.exif_transpose(image)
        plain = _opaque(upright).convert("L" if self.shape[0] == 1 else "RGB")
        pixels = np.asarray(self._sized(path, plain))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

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
        DataError: when it is not an image, or of a kind that `Frame.decode` rejects.
    """
    from PIL import Image

    with _told(path), Image.open(path, formats=_FORMATS) as image:
        _check(path, image)
        turned = image.format in _EXIF and image.getexif().get(_ORIENTATION) in _TURNED
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


def _check(path: Path, image: Image.Image) -> None:
    """Rejects images that would silently lose information."""
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
        raise DataError(f"{path}: holds {frames} images, expected one; save each to its own file")
    if image.mode not in (*_GREY, *_COLOUR):
        raise DataError(f"{path}: more than 8 bits per channel (mode {image.mode}), expected 8; scale it and save it again")


def _opaque(image: Image.Image) -> Image.Image:
    """Composites an image on white, if it has transparency."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Reports Pillow's exceptions as one-line errors."""
    from PIL import Image

    try:
        # Pillow warns about oddities in readable files, and rejects images twice as large as its warning threshold.
        with ignored_warnings():
            yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    # Pillow also raises SyntaxError and ValueError for invalid images.
    except (*DAMAGED, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        unknown = f"not a supported image format: {listing(ending.removeprefix('.') for ending in ENDINGS)}"
        reason = unknown if isinstance(error, Image.UnidentifiedImageError) else clip(str(error).splitlines()[0] if str(error) else "", 100)
        raise DataError(f"{path}: cannot be read ({reason})") from error
