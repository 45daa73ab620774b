"""Cache of frozen features of all rows: in memory, or in a memory-mapped file if they are too large."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nbridge.common.memory import free_bytes
from nbridge.errors import NBridgeError

MEMORY_SHARE = 0.25
"""The share of free memory that features may use; larger ones go to a file."""


def cache_features(parts: Iterable[Mapping[str, Tensor]], rows: int, limit: float | None = None) -> dict[str, Tensor]:
    """Concatenates chunks of features without a second copy.

    Chunks are of consecutive rows, shape (b, F). Features take up to ``limit`` bytes, by default a quarter of the free memory of their
    device.

    Returns:
        Features by name, shape (rows, F). Beyond the limit they are in a temporary file in the folder TMPDIR, which is removed with the
        last tensor.

    Raises:
        NBridgeError: if the file cannot be written.
    """
    whole: dict[str, Tensor] = {}
    start = 0
    for part in parts:
        if not whole:
            allowed = free_memory(next(iter(part.values())).device) * MEMORY_SHARE if limit is None else limit
            spilled = sum(tensor[0].numel() * tensor.element_size() for tensor in part.values()) * rows > allowed
            whole = {
                name: _on_disk(tensor, rows) if spilled else tensor.new_empty(rows, *tensor.shape[1:]) for name, tensor in part.items()
            }
        stop = start + len(next(iter(part.values())))
        for name, tensor in part.items():
            whole[name][start:stop] = tensor
        start = stop
    return whole


def _on_disk(like: Tensor, rows: int) -> Tensor:
    """An empty tensor backed by an unlinked file, which the system reclaims however the process ends."""
    shape = (rows, *like.shape[1:])
    try:
        with tempfile.NamedTemporaryFile(prefix="nbridge-features-") as file:
            # Allocated now, so that a full disk is an error here instead of a SIGBUS while writing.
            size = math.prod(shape)
            os.posix_fallocate(file.fileno(), 0, size * like.element_size())
            return torch.from_file(file.name, shared=True, size=size, dtype=like.dtype).view(shape)
    except (OSError, RuntimeError, AttributeError) as error:
        raise NBridgeError(
            f"{tempfile.gettempdir()}: features of {rows:,} rows cannot be written ({error}). "
            "Set TMPDIR to a folder with more space, or training.cache_features to false."
        ) from error


def free_memory(device: torch.device) -> float:
    """The free memory in bytes of a GPU, or of the machine and container of this process; infinity if unknown."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return free_bytes()
