"""Content hashes of tensors."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def hash_tensor(digest: hashlib._Hash, tensor: Tensor, name: str = "") -> None:
    """Updates a digest with a tensor's name, shape, dtype and bytes; the device does not matter.

    Example:
        >>> def hashed(tensor: Tensor) -> str:
        ...     digest = hashlib.sha256()
        ...     hash_tensor(digest, tensor)
        ...     return digest.hexdigest()
        >>> hashed(torch.zeros(2, 3)) == hashed(torch.zeros(2, 3)), hashed(torch.zeros(2, 3)) == hashed(torch.zeros(3, 2))
        (True, False)
    """
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".lstrip().encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
