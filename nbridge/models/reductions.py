"""Means over the rows that count, and how several processes come to share one divisor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


def _as_counted(number: Tensor) -> Tensor:
    return number.clamp(min=1)


_DIVISOR: ContextVar[Callable[[Tensor], Tensor]] = ContextVar("_DIVISOR", default=_as_counted)


def divisor(rows: Tensor) -> Tensor:
    r"""What a sum over the rows that count is divided by, shape (\*) for rows of shape (\*, B): their number, and 1 where none counts."""
    return _DIVISOR.get()(rows.sum(-1))


@contextmanager
def divided_by(divisor: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets something else than the number of rows that count here be what sums are divided by.

    Arguments:
        divisor: Gives the divisor for a number of rows, any shape.
    """
    token = _DIVISOR.set(divisor)
    try:
        yield
    finally:
        _DIVISOR.reset(token)


def masked_mean(loss: Tensor, rows: Tensor, number: Tensor | None = None) -> Tensor:
    r"""The means over the rows that count, added up over leading axes; zero where no row counts.

    Arguments:
        loss: A loss for each row, shape (\*, B).
        rows: Which of them count, boolean, of the same shape.
        number: Their `divisor`, shape (\*), where it is known already.
    """
    return (torch.where(rows, loss, 0.0).sum(-1) / (divisor(rows) if number is None else number)).sum()
