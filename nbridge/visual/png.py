"""Images as PNG inside a page: a picture, or a strip of tiles side by side, in few bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from torch import Tensor

GAP = 1
"""Clear pixels between tiles."""
ADDRESS = "data:image/png;base64,"
"""How the address of a picture begins that holds the picture itself."""


def scaled(image: Tensor, low: float, high: float) -> np.ndarray:
    """An image of shape (C, H, W) as bytes, (H, W, C), dark at ``low`` and bright at ``high``."""
    share = ((image.double().cpu() - low) / max(high - low, 1e-12)).clamp(0, 1)
    return (share * 255).round().byte().permute(1, 2, 0).numpy()


def strip(tiles: Sequence[np.ndarray | None], side: int) -> str:
    """Tiles side by side, as the address of a picture that holds the picture itself.

    Arguments:
        tiles: Bytes of shape (H, W, C), all of one shape; None leaves its place clear.
        side: Pixels of a tile's longer side, at most; larger ones are made smaller.
    """
    images = [None if tile is None else _opaque(shrunk(tile, side)) for tile in tiles]
    height, width, channels = next(image.shape for image in images if image is not None)
    whole = np.zeros((height, len(images) * (width + GAP) - GAP, channels), np.uint8)
    for place, image in enumerate(images):
        if image is not None:
            whole[:, place * (width + GAP) :][:, :width] = image
    return address(whole, small=True)


def address(pixels: np.ndarray, *, small: bool = False) -> str:
    """A picture as an address that holds it.

    Arguments:
        pixels: Bytes of shape (H, W, C), of one to four channels.
        small: Whether to look for the fewest bytes, for pages that are kept, or to be done sooner.
    """
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, format="PNG", **({"optimize": True} if small else {"compress_level": 1}))
    return ADDRESS + base64.b64encode(buffer.getvalue()).decode("ascii")


def shrunk(tile: np.ndarray, side: int) -> np.ndarray:
    """A tile, bytes of shape (H, W, 1 or 3), whose longer side is so many pixels at most."""
    from PIL import Image

    zoom = side / max(tile.shape[:2])
    if zoom >= 1:
        return tile
    size = (max(1, round(tile.shape[1] * zoom)), max(1, round(tile.shape[0] * zoom)))
    small = np.asarray(Image.fromarray(tile if tile.shape[2] == 3 else tile[:, :, 0]).resize(size, Image.Resampling.BOX))
    return small.reshape(size[1], size[0], -1)


def _opaque(tile: np.ndarray) -> np.ndarray:
    """A tile with a channel behind its colours that says that it can be seen, (H, W, 2 or 4)."""
    return np.concatenate([tile, np.full((*tile.shape[:2], 1), 255, np.uint8)], axis=2)
