"""Device and precision, applied from outside: models never mention them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from nbridge.errors import NBridgeError

Precision = Literal["float32", "bf16"]
_MATMUL: dict[Precision, str] = {"float32": "highest", "bf16": "medium"}


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Runs float32 matrix products as they are, or rounded to bfloat16 where the processor has such products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_MATMUL[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` takes the accelerator that torch finds, else the CPU.

    Raises:
        NBridgeError: when there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise NBridgeError(f"--device {name}: torch has no such device here. Use auto, cpu or cuda.") from error
