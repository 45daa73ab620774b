"""Masked means over rows, with a divisor that several processes can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_DIVISOR: ContextVar[Callable[[Tensor], Tensor]] = ContextVar("_DIVISOR", default=lambda number: number.clamp(min=1))


def divisor(rows: Tensor) -> Tensor:
    r"""The divisor of a mean over the given rows, boolean, shape (\*, B): their number, shape (\*), at least 1."""
    return _DIVISOR.get()(rows.sum(-1))


@contextmanager
def divided_by(divisor: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replaces the function that maps numbers of rows, of any shape, to divisors within the block."""
    token = _DIVISOR.set(divisor)
    try:
        yield
    finally:
        _DIVISOR.reset(token)


def masked_mean(loss: Tensor, rows: Tensor, number: Tensor | None = None) -> Tensor:
    r"""The mean over the given rows, summed over leading axes; 0 where there are none.

    Loss and mask have the shape (\*, B); ``number`` is the `divisor`, shape (\*), if already known.
    """
    return (torch.where(rows, loss, 0.0).sum(-1) / (divisor(rows) if number is None else number)).sum()
