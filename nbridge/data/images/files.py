"""Files of images: which of a folder are images, what they are before they are decoded, and what they are as pixels."""

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
"""No others that Pillow knows: some of them are programs to run."""
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
_EXIF = ("JPEG", "TIFF", "WEBP", "MPO")
"""Formats whose orientation is known before anything is decoded."""
_GREY, _COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of eight bits a channel, as Pillow calls them."""


class Found(NamedTuple):
    """What a folder holds: its images in the order of their names, and all else that is not hidden."""

    images: tuple[Path, ...]
    others: tuple[Path, ...]


class Size(NamedTuple):
    """What a file says of its image before it is decoded: pixels as it is shown, and channels, 1 or 3."""

    width: int
    height: int
    channels: int


@dataclass(frozen=True)
class Frame:
    """What an image is decoded to.

    Arguments:
        name: The modality, for messages.
        shape: Its shape, (C, H, W): one channel is grey, three are red, green and blue.
        resize: How an image of another size becomes one of this size; None refuses it.

    Raises:
        DataError: when it is no shape of images.
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
        """The image of a file as bytes, shape (C, H, W).

        It is turned as its EXIF data say, and what is transparent lies on white.

        Raises:
            DataError: when it can't be read, or is of another size.
        """
        from PIL import Image, ImageOps

        with _told(path), Image.open(path, formats=_FORMATS) as image:
            _check(path, image)
            # Turned or not, this is a copy that is decoded.
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
    """The images of a folder, by the endings of their names; not those of folders in it.

    Raises:
        DataError: when it can't be read, or two images have one stem, so that either could be the one of a row.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in _OF_SYSTEMS)
        images = tuple(path for path in entries if is_image(path.name) and path.is_file())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    stems, known = dict[str, Path](), set(images)
    for path in images:
        if (other := stems.setdefault(identifier_of(path.stem), path)) is not path:
            raise DataError(
                f"{folder}: {other.name} and {path.name} have one stem, so that either could be the image of one row; remove one"
            )
    return Found(images, tuple(path for path in entries if path not in known))


def file_at(root: Path, text: str) -> Path | None:
    """The file that a text names, whether accents are composed in its name or not; None where there is none.

    Arguments:
        root: The folder that paths are relative to.
        text: The path.
    """
    spelt = dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)))
    # Path's own way raises for a text that no file can be called.
    return next((root / one for one in spelt if os.path.isfile(root / one)), None)  # noqa: PTH113


def is_image(name: str) -> bool:
    """Whether a file is an image, by the ending of its name.

    Example:
        >>> is_image("scan 1.PNG"), is_image("notes.txt")
        (True, False)
    """
    return has_ending(name, *ENDINGS)


def size_of(path: Path) -> Size:
    """What a file says of its image; hardly more than its first bytes are read.

    Raises:
        DataError: when it is no image, or of a kind that `Frame.decode` refuses.
    """
    from PIL import Image

    with _told(path), Image.open(path, formats=_FORMATS) as image:
        _check(path, image)
        turned = image.format in _EXIF and image.getexif().get(_ORIENTATION) in _TURNED
        width, height = image.size[::-1] if turned else image.size
        return Size(width, height, 1 if image.mode in _GREY else 3)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes an image, as a file that must not be there yet.

    Arguments:
        path: The file.
        pixels: Values from 0 to 1, shape (C, H, W) with 1 or 3 channels; what lies outside is dark or bright.
    """
    from PIL import Image

    levels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    with path.open("xb") as file:
        Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, "PNG")


def by(width: int, height: int) -> str:
    """A size in words."""
    return f"{width} x {height}"


def _check(path: Path, image: Image.Image) -> None:
    """Refuses what would lose something without a word."""
    if (frames := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
        raise DataError(f"{path}: holds {frames} images, expected one; write them to a file each")
    if image.mode not in (*_GREY, *_COLOUR):
        raise DataError(f"{path}: more than 8 bits a channel (mode {image.mode}), expected 8; scale it and save it again")


def _opaque(image: Image.Image) -> Image.Image:
    """An image on white, where some of it is transparent."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tells what Pillow raises as one line."""
    from PIL import Image

    try:
        # Pillow warns of oddities in a file that it reads all the same, and refuses what is twice as large as it warns of.
        with ignored_warnings():
            yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    # Pillow says with SyntaxError and ValueError, too, that a file is none.
    except (*DAMAGED, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        unknown = f"no image of a kind known here: {listing(ending.removeprefix('.') for ending in ENDINGS)}"
        reason = unknown if isinstance(error, Image.UnidentifiedImageError) else clip(str(error).splitlines()[0] if str(error) else "", 100)
        raise DataError(f"{path}: cannot be read ({reason})") from error
