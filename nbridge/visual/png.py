"""Images as compact PNG data URIs: a single image, or a strip of tiles."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from torch import Tensor

TILE_GAP = 1
"""Transparent pixels between tiles."""
DATA_URI_PREFIX = "data:image/png;base64,"
"""The prefix of a PNG data URI."""


def to_uint8(image: Tensor, low: float, high: float) -> np.ndarray:
    """Converts an image of shape (C, H, W) to uint8, shape (H, W, C), with ``low`` mapped to 0 and ``high`` to 255."""
    share = ((image.double().cpu() - low) / max(high - low, 1e-12)).clamp(0, 1)
    return (share * 255).round().byte().permute(1, 2, 0).numpy()


def image_strip(tiles: Sequence[np.ndarray | None], side: int) -> str:
    """Tiles side by side, as a data URI.

    Arguments:
        tiles: uint8 arrays of shape (H, W, C), all of one shape; None leaves a transparent gap.
        side: Largest number of pixels of a tile's longer side; larger tiles are shrunk.
    """
    return data_uri(_beside(tiles, side), small=True)


def png_of_lines(lines: Sequence[Sequence[np.ndarray | None]], side: int) -> bytes:
    """Lines of tiles below each other, as a PNG file; arguments as of `image_strip`, one of ``tiles`` for each line."""
    from PIL import Image

    strips = [np.pad(_beside(tiles, side), ((0, TILE_GAP), (0, 0), (0, 0))) for tiles in lines]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(strips)).save(buffer, format="PNG")
    return buffer.getvalue()


def _beside(tiles: Sequence[np.ndarray | None], side: int) -> np.ndarray:
    images = [None if tile is None else _with_alpha(downscale(tile, side)) for tile in tiles]
    height, width, channels = next(image.shape for image in images if image is not None)
    whole = np.zeros((height, len(images) * (width + TILE_GAP) - TILE_GAP, channels), np.uint8)
    for index, image in enumerate(images):
        if image is not None:
            whole[:, index * (width + TILE_GAP) :][:, :width] = image
    return whole


def data_uri(pixels: np.ndarray, *, small: bool = False) -> str:
    """Encodes an image as a PNG data URI.

    Arguments:
        pixels: uint8 array of shape (H, W, C) with one to four channels.
        small: Whether to optimise for size, for pages that are kept, instead of speed.
    """
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, format="PNG", **({"optimize": True} if small else {"compress_level": 1}))
    return DATA_URI_PREFIX + base64.b64encode(buffer.getvalue()).decode("ascii")


def downscale(tile: np.ndarray, side: int) -> np.ndarray:
    """Shrinks a tile, uint8 of shape (H, W, 1 or 3), to at most ``side`` pixels on its longer side."""
    from PIL import Image

    zoom = side / max(tile.shape[:2])
    if zoom >= 1:
        return tile
    size = (max(1, round(tile.shape[1] * zoom)), max(1, round(tile.shape[0] * zoom)))
    small = np.asarray(Image.fromarray(tile if tile.shape[2] == 3 else tile[:, :, 0]).resize(size, Image.Resampling.BOX))
    return small.reshape(size[1], size[0], -1)


def _with_alpha(tile: np.ndarray) -> np.ndarray:
    """Adds an opaque alpha channel to a tile, shape (H, W, 2 or 4)."""
    return np.concatenate([tile, np.full((*tile.shape[:2], 1), 255, np.uint8)], axis=2)
