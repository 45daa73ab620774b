"""Compilation of a stage's loss, applied from outside: worth its minute where training takes many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from nbridge.common.process_state import ignored_warnings
from nbridge.errors import NBridgeError


class CompiledLoss:
    """A loss that torch compiles when it is first called; on CUDA its kernels are launched as one graph.

    Results equal those of the loss up to rounding. The order of random draws inside may differ, so that a compiled run is another sample
    of the same training.

    Arguments:
        loss: Any function of tensors, batches and mappings of tensors.
        name: What it is called in an error.
        device: Where the tensors lie.

    Attributes:
        seconds: How long the first call took, nearly all of it compilation; None before it.
    """

    def __init__(self, loss: Callable[..., dict[str, torch.Tensor]], name: str, device: torch.device) -> None:
        self.name = name
        self.seconds: float | None = None
        # A stage before this one has left code for the same functions, which would count against the limit of recompilations.
        torch.compiler.reset()
        self._loss = torch.compile(loss, mode="reduce-overhead" if device.type == "cuda" else "default", dynamic=False)

    def __call__(self, *args: Any) -> dict[str, torch.Tensor]:
        if self.seconds is not None:
            return self._loss(*args)
        started = time.monotonic()
        try:
            # What torch says to itself while it traces.
            with ignored_warnings():
                terms = self._loss(*args)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise NBridgeError(
                f"{self.name} could not be compiled ({reason}). A C++ compiler such as g++ is needed; or set training.compile to false."
            ) from error
        self.seconds = time.monotonic() - started
        return terms
