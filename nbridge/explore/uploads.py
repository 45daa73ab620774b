"""Uploaded images: reads them with Pillow within limits, and scales them to the size of a modality."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbridge.data.images.decode import UnreadableImageError, decoded
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

    Arguments:
        session: The session.
        name: An image modality.
        content: The contents of the file.

    Raises:
        DataError: when the modality has no images, or the file is not an image, too large, too small or of another aspect ratio.
    """
    check_names(session.model, [name])
    if not is_image(session.model, name):
        raise DataError(f"{name}: not an image modality")
    shape = session.model.likelihoods[name].shape
    image = _opened(name, content, FORMATS)
    channels, height, width = shape
    if image.size == (width, height):
        return {"picture": data_uri(_pixels(image, channels)), "note": ""}
    if not _proportional(image.size, (width, height)):
        raise DataError(f"{name}: got an image of {_size(image)} pixels, expected {width} × {height}, or larger with the same aspect ratio")
    from PIL import Image

    large = _pixels(image, channels)
    small = Image.fromarray(large if channels == 3 else large[:, :, 0]).resize((width, height), Image.Resampling.BOX)
    return {"picture": data_uri(_pixels(small, channels)), "note": f"scaled down from {_size(image)} to {width} × {height} pixels"}


def read_pixels(name: str, text: str, shape: Sequence[int]) -> np.ndarray:
    """Decodes a PNG data URI to bytes of shape (C, H, W).

    Arguments:
        name: The modality, for messages.
        text: The data URI.
        shape: The required shape (C, H, W).

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
    image = _opened(name, content, ("PNG",))
    if image.size != (width, height):
        raise DataError(f"{name}: got an image of {_size(image)} pixels, expected {width} × {height}")
    return _pixels(image, channels).transpose(2, 0, 1)


def _opened(name: str, content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Decodes an image, applies its EXIF orientation and removes transparency."""
    try:
        image = decoded(content, formats, PIXELS)
    except UnreadableImageError as error:
        raise DataError(f"{name}: the image cannot be read ({error})") from error
    return _on_white(image) if image.has_transparency_data else image


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Bytes of shape (H, W, C)."""
    if image.mode.startswith("I;16"):
        # Pillow would clip values above 255.
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], channels, axis=2)
    return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)


def _proportional(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether an image is at least as large as wanted and has the same aspect ratio, within half a pixel after scaling."""
    zoom = max(size[0] / wanted[0], size[1] / wanted[1])
    return min(size[0] - wanted[0], size[1] - wanted[1]) >= 0 and all(
        abs(one / zoom - other) < 0.5 for one, other in zip(size, wanted, strict=True)
    )


def _size(image: Image.Image) -> str:
    return f"{image.width:,} × {image.height:,}"
