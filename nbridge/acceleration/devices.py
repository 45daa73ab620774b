"""Where a model runs."""

from __future__ import annotations

import torch

from nbridge.errors import NBridgeError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes the accelerator that torch finds, else the CPU.

    Raises:
        NBridgeError: when there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if name != "meta":
            return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        pass
    raise NBridgeError(f"device {name!r}: torch has no such device here. Use auto, cpu or cuda.")
