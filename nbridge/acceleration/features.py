"""Frozen features of all rows, computed once: in memory, or in a file that is mapped into it where they would crowd it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from nbridge.common.memory import free_bytes
from nbridge.errors import NBridgeError

SHARE = 0.25
"""The share of the memory which is free that features may take; larger ones go to a file."""


def cached(parts: Iterable[Mapping[str, Tensor]], rows: int, limit: float | None = None) -> dict[str, Tensor]:
    """Puts features together that come a few rows at a time, and holds no second copy of them.

    Arguments:
        parts: Features by name, of consecutive rows, shape (b, F).
        rows: The number of rows in all.
        limit: Bytes that may lie in memory. When left out: a quarter of what is free, and on an accelerator a quarter of its own.

    Returns:
        Features by name, shape (rows, F), equal to a concatenation of the parts. Those beyond the limit lie in a temporary file (in the
        folder that TMPDIR names) which vanishes with the last of them.

    Raises:
        NBridgeError: when the file cannot be written.
    """
    whole: dict[str, Tensor] = {}
    start = 0
    for part in parts:
        if not whole:
            room = free_memory(next(iter(part.values())).device) * SHARE if limit is None else limit
            spilled = sum(tensor[0].numel() * tensor.element_size() for tensor in part.values()) * rows > room
            whole = {
                name: _on_disk(tensor, rows) if spilled else tensor.new_empty(rows, *tensor.shape[1:]) for name, tensor in part.items()
            }
        stop = start + len(next(iter(part.values())))
        for name, tensor in part.items():
            whole[name][start:stop] = tensor
        start = stop
    return whole


def _size(like: Tensor, rows: int) -> int:
    """Bytes of so many rows."""
    return rows * math.prod(like.shape[1:]) * like.element_size()


def _in_memory(like: Tensor, rows: int) -> Tensor:
    return like.new_empty(rows, *like.shape[1:])


def _on_disk(like: Tensor, rows: int) -> Tensor:
    """An empty tensor of so many rows that lies in a file without a name: the system reclaims it whatever ends the process."""
    shape = (rows, *like.shape[1:])
    try:
        with tempfile.NamedTemporaryFile(prefix="nbridge-features-") as file:
            # Reserved, so that a full disk is an error here and not a signal in the middle of writing.
            os.posix_fallocate(file.fileno(), 0, _size(like, rows))
            return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=like.dtype).view(shape)
    except (OSError, RuntimeError, AttributeError) as error:
        raise NBridgeError(
            f"{tempfile.gettempdir()}: features of {rows:,} rows cannot be written ({error}). "
            "Set TMPDIR to a folder with more room, or training.cache_features to false."
        ) from error


def free_memory(device: torch.device) -> float:
    """Bytes that are free: of the accelerator, or of the machine and the container of this process; infinite where nothing says."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return free_bytes()
