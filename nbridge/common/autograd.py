"""Gradients where they are needed, whatever mode the caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gradients() -> Iterator[None]:
    """Enables gradients and leaves inference mode, for this thread: parameters made here can be trained, and saved for a backward pass.

    Serves as a decorator too.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        yield
