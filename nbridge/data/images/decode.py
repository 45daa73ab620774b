"""Decodes images from anywhere: only known formats, upright, and never more pixels than memory holds."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nbridge.common.process_state import ignored_warnings
from nbridge.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

DAMAGED = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Exceptions raised by reading a damaged file or archive."""


FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Accepted formats. Others that Pillow knows can run programs."""


class UnreadableImageError(Exception):
    """The reason why an image cannot be decoded, for the caller's message."""


def decoded(source: Path | bytes, formats: tuple[str, ...] = FORMATS, most: int | None = None) -> Image.Image:
    """Decodes an image and turns it as its EXIF data say.

    Arguments:
        source: A file, or its content.
        formats: The accepted formats.
        most: The largest number of pixels; Pillow's own limit when left out.

    Raises:
        UnreadableImageError: when the image is damaged, too large or of another format.
    """
    from PIL import Image, ImageOps

    try:
        # Pillow warns of large images below its limit.
        with ignored_warnings(), Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            if most is not None and image.width * image.height > most:
                raise UnreadableImageError(f"{image.width:,} × {image.height:,} pixels, at most {most:,} are allowed")
            upright = ImageOps.exif_transpose(image)
            upright.load()
            return upright
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("too many pixels") from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a {', '.join(formats)} file") from error
    # Pillow's decoders raise many kinds of errors for damaged files.
    except (*DAMAGED, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error) as error:
        raise UnreadableImageError("damaged") from error


def read_colours(read: Callable[[], bytes], what: str, formats: tuple[str, ...] = ("JPEG",)) -> Image.Image:
    """Decodes a photograph to RGB.

    Arguments:
        read: Reads the bytes of its file.
        what: The file, for messages.
        formats: The accepted formats.

    Raises:
        DataError: when it is damaged, or in another format.
    """
    from PIL import Image

    try:
        content = read()
    except DAMAGED as error:
        raise DataError(f"{what} cannot be read ({error}); fetch it again") from error
    try:
        with Image.open(io.BytesIO(content), formats=formats) as photograph:
            return photograph.convert("RGB")
    # Pillow also raises SyntaxError and ValueError for invalid images.
    except (*DAMAGED, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = f"not a {' or '.join(formats)} image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{what} cannot be read ({reason}); fetch it again") from error
