"""Pictures from outside: read by Pillow within bounds, and brought to the size of a modality."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbridge.common.process_state import ignored_warnings
from nbridge.errors import DataError
from nbridge.evaluation.rows import check_names
from nbridge.explore.session import Session
from nbridge.visual.modality_kinds import is_image
from nbridge.visual.png import ADDRESS, address

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Formats of files that are uploaded."""
PIXELS = 40_000_000
"""Pixels of a picture, at most: a small file may hold more than memory does."""


def upload(session: Session, name: str, content: bytes) -> dict[str, str]:
    """A picture of the size that a modality has, as an address, of a file of that size, or of a larger one of the same proportions.

    Arguments:
        session: The model that is explored.
        name: A modality of images.
        content: The file.

    Raises:
        DataError: when the model has no such images, or the file is none, too large, or of other proportions.
    """
    check_names(session.model, [name])
    if not is_image(session.model, name):
        raise DataError(f"{name}: not a modality of images, so no picture can be given")
    shape = session.model.likelihoods[name].shape
    image = _opened(name, content, FORMATS)
    channels, height, width = shape
    if image.size == (width, height):
        return {"picture": address(_pixels(image, channels)), "note": ""}
    if not _proportional(image.size, (width, height)):
        raise DataError(f"{name}: a picture of {_size(image)} pixels, expected {width} × {height}, or a larger one of the same proportions")
    from PIL import Image

    large = _pixels(image, channels)
    small = Image.fromarray(large if channels == 3 else large[:, :, 0]).resize((width, height), Image.Resampling.BOX)
    return {"picture": address(_pixels(small, channels)), "note": f"made smaller, from {_size(image)} to {width} × {height} pixels"}


def read_pixels(name: str, text: str, shape: Sequence[int]) -> np.ndarray:
    """Bytes of shape (C, H, W) of a PNG of exactly this size.

    Arguments:
        name: The modality, for messages.
        text: The address that holds the picture.
        shape: The shape (C, H, W) that it must have.

    Raises:
        DataError: when it is none, or of another size.
    """
    channels, height, width = shape
    if not text.startswith(ADDRESS):
        raise DataError(f"{name}: expected a picture that begins with {ADDRESS}")
    try:
        content = base64.b64decode(text.removeprefix(ADDRESS), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name}: the picture cannot be read (no base64)") from error
    image = _opened(name, content, ("PNG",))
    if image.size != (width, height):
        raise DataError(f"{name}: a picture of {_size(image)} pixels, expected {width} × {height}")
    return _pixels(image, channels).transpose(2, 0, 1)


def _opened(name: str, content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """A picture, decoded, upright, without transparency."""
    from PIL import Image, ImageOps

    try:
        # Of many pixels, which are refused below by our own bound.
        with ignored_warnings(Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(content), formats=formats)
        if image.width * image.height > PIXELS:
            raise DataError(f"{name}: a picture of {_size(image)} pixels, {PIXELS:,} at most")
        image = ImageOps.exif_transpose(image)
        image.load()
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: a picture of too many pixels, {PIXELS:,} at most") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{name}: the picture cannot be read (not a {', '.join(formats)} file)") from error
    except DataError:
        raise
    # Pillow says in many ways that a file is damaged.
    except Exception as error:
        raise DataError(f"{name}: the picture cannot be read (damaged)") from error
    return _on_white(image) if image.has_transparency_data else image


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Bytes of shape (H, W, C)."""
    if image.mode.startswith("I;16"):
        # Pillow would cut what is above 255.
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], channels, axis=2)
    return np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)


def _proportional(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether a picture is larger, and one factor brings it to the size wanted, but for less than half a pixel there."""
    zoom = max(size[0] / wanted[0], size[1] / wanted[1])
    return min(size[0] - wanted[0], size[1] - wanted[1]) >= 0 and all(
        abs(one / zoom - other) < 0.5 for one, other in zip(size, wanted, strict=True)
    )


def _size(image: Image.Image) -> str:
    return f"{image.width:,} × {image.height:,}"
