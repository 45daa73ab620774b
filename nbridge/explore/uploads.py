"""Uploaded images: reads them with Pillow within limits, and scales them to the size of a modality."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbridge.data.images.decode import UnreadableImageError, converted, decoded, to_array
from nbridge.errors import DataError
from nbridge.evaluation.rows import check_names
from nbridge.explore.session import Session
from nbridge.visual.modality_kinds import is_image
from nbridge.visual.png import DATA_URI_PREFIX, data_uri

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Accepted file formats."""
PIXELS = 40_000_000
"""Maximum number of pixels, because a small file can decompress to more than fits in memory."""


def upload(session: Session, name: str, content: bytes) -> dict[str, str]:
    """Converts an image file to a data URI of a modality's image size. Larger images are scaled down if the aspect ratio matches.

    Raises:
        DataError: when the modality has no images, or the file is not an image, too large, too small or of another aspect ratio.
    """
    check_names(session.model, [name])
    if not is_image(session.model, name):
        raise DataError(f"{name}: not an image modality")
    channels, height, width = session.model.likelihoods[name].shape
    image = _decoded(name, content, FORMATS, channels)
    if image.size == (width, height):
        return {"picture": _picture(image), "note": ""}
    if not _proportional(image.size, (width, height)):
        raise DataError(f"{name}: got an image of {_size(image)} pixels, expected {width} × {height}, or larger with the same aspect ratio")
    from PIL import Image

    small = image.resize((width, height), Image.Resampling.BOX)
    return {"picture": _picture(small), "note": f"scaled down from {_size(image)} to {width} × {height} pixels"}


def read_pixels(name: str, text: str, shape: Sequence[int]) -> np.ndarray:
    """Decodes a PNG data URI to bytes of shape (C, H, W).

    Raises:
        DataError: when it is not a PNG image, or has another size.
    """
    channels, height, width = shape
    if not text.startswith(DATA_URI_PREFIX):
        raise DataError(f"{name}: expected a data URI that begins with {DATA_URI_PREFIX}")
    try:
        content = base64.b64decode(text.removeprefix(DATA_URI_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name}: the image cannot be read (invalid base64)") from error
    image = _decoded(name, content, ("PNG",), channels)
    if image.size != (width, height):
        raise DataError(f"{name}: got an image of {_size(image)} pixels, expected {width} × {height}")
    return to_array(image)


def _decoded(name: str, content: bytes, formats: tuple[str, ...], channels: int) -> Image.Image:
    """Decodes an image to grey or RGB."""
    try:
        return converted(decoded(content, formats, PIXELS), channels)
    except UnreadableImageError as error:
        raise DataError(f"{name}: the image cannot be read ({error})") from error


def _picture(image: Image.Image) -> str:
    return data_uri(to_array(image).transpose(1, 2, 0))


def _proportional(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether an image is at least as large as wanted and has the same aspect ratio, within half a pixel after scaling."""
    zoom = max(size[0] / wanted[0], size[1] / wanted[1])
    return min(size[0] - wanted[0], size[1] - wanted[1]) >= 0 and all(
        abs(one / zoom - other) < 0.5 for one, other in zip(size, wanted, strict=True)
    )


def _size(image: Image.Image) -> str:
    return f"{image.width:,} × {image.height:,}"
