"""Decodes photographs to RGB."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from nbridge.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

DAMAGED = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Exceptions raised by reading a damaged file or archive."""


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
