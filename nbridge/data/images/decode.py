"""Opens all images: only known formats, never more pixels than memory holds, upright, as grey or RGB arrays of bytes."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nbridge.common.messages import clip
from nbridge.common.process_state import ignored_warnings
from nbridge.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

DAMAGED = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Exceptions raised by reading a damaged file or archive."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Accepted formats. Others that Pillow knows can run programs."""


class UnreadableImageError(Exception):
    """The reason why an image cannot be decoded, for the caller's message.

    Arguments:
        reason: The reason.
        detail: What Pillow says of it, in one line; the reason itself when left out.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.detail = detail or reason
        super().__init__(reason)


class UnknownFormatError(UnreadableImageError):
    """The content is in none of the accepted formats."""


@contextmanager
def opened(source: Path | bytes, formats: tuple[str, ...] = FORMATS, most: int | None = None) -> Iterator[Image.Image]:
    """Opens an image and reads its header; its pixels are decoded where the caller asks for them.

    Arguments:
        source: A file, or its content.
        formats: The accepted formats.
        most: The largest number of pixels; that from which Pillow warns of decompression bombs when left out.

    Raises:
        UnreadableImageError: here or in the caller's block, when the image is damaged, too large or of another format.
    """
    from PIL import Image

    try:
        # Pillow warns of large images below its limit, and of oddities in readable ones.
        with ignored_warnings(), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            if image.width * image.height > (limit := most or Image.MAX_IMAGE_PIXELS or math.inf):
                raise UnreadableImageError(f"{image.width:,} × {image.height:,} pixels, at most {limit:,} are allowed")
            yield image
    # Raised by the caller's own checks.
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("too many pixels") from error
    except Image.UnidentifiedImageError as error:
        raise UnknownFormatError(f"not a {', '.join(formats)} file", f"not a {' or '.join(formats)} image") from error
    # Pillow's decoders raise many kinds of errors for damaged files; only those of the file system have a strerror.
    except (*DAMAGED, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error) as error:
        reason = getattr(error, "strerror", None)
        raise UnreadableImageError(reason or "damaged", reason or clip(str(error).partition("\n")[0], 100)) from error


def decoded(source: Path | bytes, formats: tuple[str, ...] = FORMATS, most: int | None = None) -> Image.Image:
    """Decodes an image and turns it as its EXIF data say; arguments and errors are those of `opened`."""
    from PIL import ImageOps

    with opened(source, formats, most) as image:
        return ImageOps.exif_transpose(image)


def read_colours(read: Callable[[], bytes], what: str, formats: tuple[str, ...] = ("JPEG",)) -> Image.Image:
    """Decodes a photograph to RGB.

    Arguments:
        read: Reads the bytes of its file.
        what: The file, for messages.
        formats: The accepted formats.

    Raises:
        DataError: when it is damaged, or in another format.
    """
    try:
        photograph = decoded(read(), formats)
    except (UnreadableImageError, *DAMAGED) as error:
        reason = error.detail if isinstance(error, UnreadableImageError) else error
        raise DataError(f"{what} cannot be read ({reason}); fetch it again") from error
    return converted(photograph, 3)


def converted(image: Image.Image, channels: int) -> Image.Image:
    """Converts an image to grey or RGB with eight bits per channel, on white where it is transparent.

    Arguments:
        image: The image; of 16 bits per channel the upper eight are kept.
        channels: 1 for grey, 3 for RGB.
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow would clip values above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return image.convert("L" if channels == 1 else "RGB")


def to_array(image: Image.Image) -> np.ndarray:
    """Bytes of shape (C, H, W) of an image with eight bits per channel."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
