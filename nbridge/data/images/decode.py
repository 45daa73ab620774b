"""Photographs, decoded in colour."""

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
"""What reading a damaged file or archive raises."""


def read_colours(read: Callable[[], bytes], what: str, formats: tuple[str, ...] = ("JPEG",)) -> Image.Image:
    """A photograph in red, green and blue.

    Arguments:
        read: Fetches the bytes of its file.
        what: The file, for messages.
        formats: The formats that it may have.

    Raises:
        DataError: when it is damaged, or of another format.
    """
    from PIL import Image

    try:
        content = read()
    except DAMAGED as error:
        raise DataError(f"{what} cannot be read ({error}); fetch it again") from error
    try:
        with Image.open(io.BytesIO(content), formats=formats) as photograph:
            return photograph.convert("RGB")
    # Pillow says with SyntaxError and ValueError, too, that a file is none.
    except (*DAMAGED, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = f"not a {' or '.join(formats)} image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{what} cannot be read ({reason}); fetch it again") from error
