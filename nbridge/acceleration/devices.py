"""Selection of the torch device."""

from __future__ import annotations

import torch

from nbridge.errors import NBridgeError


def pick_device(name: str = "auto") -> torch.device:
    """The device with the given name; ``auto`` is CUDA if available, else the CPU.

    Raises:
        NBridgeError: if the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name != "meta":
            return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        pass
    raise NBridgeError(f"device {name!r} is not available, expected auto, cpu or cuda")
