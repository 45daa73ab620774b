"""PNG grids of generated images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from nbridge.common.atomic_files import write_atomically
from nbridge.errors import DataError
from nbridge.models.base import MultimodalVAE
from nbridge.visual.modality_kinds import is_image, value_range

TILE = 96
"""Approximate size of a tile in pixels."""


def write_grid(path: Path, model: MultimodalVAE, values: Mapping[str, Tensor]) -> None:
    """Writes a PNG with a tile for each row; the image modalities of a row are stacked vertically.

    Raises:
        DataError: when no modality is an image (one or three channels, two spatial axes).
    """
    images = [name for name in model.names if is_image(model, name)]
    if not images:
        shapes = ", ".join(f"{name} {list(likelihood.shape)}" for name, likelihood in model.likelihoods.items())
        raise DataError(f"--out {path}: no modality is an image of shape [1 or 3, height, width] ({shapes}); write to an npz file instead")
    tiles = [_stack([_pixels(model, name, values[name][row]) for name in images]) for row in range(len(values[images[0]]))]
    columns, zoom = math.ceil(math.sqrt(len(tiles))), max(1, round(TILE / max(tiles[0].shape[:2])))
    tiles += [np.ones_like(tiles[0])] * (-len(tiles) % columns)
    framed = [np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=1.0) for tile in tiles]
    lines = [np.concatenate(framed[start : start + columns], axis=1) for start in range(0, len(framed), columns)]
    picture = np.concatenate(lines).repeat(zoom, axis=0).repeat(zoom, axis=1)

    from matplotlib.image import imsave

    write_atomically(path, lambda temporary: imsave(temporary, picture, format="png"))


def _pixels(model: MultimodalVAE, name: str, image: Tensor) -> np.ndarray:
    """Colours in [0, 1], shape (H, W, 3), scaled by the bounds of the support, or by the image's range if it has none."""
    low, high = value_range(model.likelihoods[name], image)
    scaled = ((image - low) / max(high - low, 1e-12)).clamp(0, 1)
    return scaled.expand(3, -1, -1).permute(1, 2, 0).double().numpy()


def _stack(images: list[np.ndarray]) -> np.ndarray:
    width = max(image.shape[1] for image in images)
    return np.concatenate([np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=1.0) for image in images])
