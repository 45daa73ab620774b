"""Compiles the loss of a stage with torch; worth the compilation time of up to a minute for long training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from nbridge.common.process_state import ignored_warnings
from nbridge.errors import NBridgeError


class CompiledLoss:
    """A loss that torch compiles at the first call; on CUDA it runs as a CUDA graph.

    Results equal those of the loss, any function of tensors, batches and mappings of tensors, up to rounding. The order of random draws may
    differ, so a compiled run is a different sample of the same training.

    Attributes:
        seconds: Duration of the first call, nearly all of it compilation; None before that.
    """

    def __init__(self, loss: Callable[..., dict[str, torch.Tensor]], name: str, device: torch.device) -> None:
        self.name = name
        self.seconds: float | None = None
        # An earlier stage has compiled the same functions, which counts towards the recompilation limit.
        torch.compiler.reset()
        self._loss = torch.compile(loss, mode="reduce-overhead" if device.type == "cuda" else "default", dynamic=False)

    def __call__(self, *args: Any) -> dict[str, torch.Tensor]:
        if self.seconds is not None:
            return self._loss(*args)
        started = time.monotonic()
        try:
            # Tracing emits warnings about torch's own internals.
            with ignored_warnings():
                terms = self._loss(*args)
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise NBridgeError(
                f"{self.name} could not be compiled ({reason}). Install a C++ compiler such as g++, or set training.compile to false."
            ) from error
        self.seconds = time.monotonic() - started
        return terms
