"""Checks that values are in the support of their likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.distributions import constraints

from nbridge.data.arrays import require_whole
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.nn.likelihoods import Likelihood


class SupportError(DataError):
    """Values outside the support of their likelihood.

    Arguments:
        cell: Modality, row and element of the first such value.
        problem: What is wrong with the value.
        rows: The number of such rows, if known.
        place: The position of the cell in words; modality and row by default.
    """

    def __init__(self, cell: tuple[str, int, int], problem: str, rows: int | None, place: str = "") -> None:
        self.cell, self.problem, self.rows = cell, problem, rows
        counted = "" if rows is None else f" ({rows} such row{'s' if rows > 1 else ''})"
        where = place or f"modality {cell[0]!r}, row {cell[1]}"
        super().__init__(f"{where}: {problem}{counted}. Rescale the values or choose another likelihood.")

    def at(self, place: Callable[[str, int, int], str] | None) -> SupportError:
        """The same error with its position in a file, as ``place(modality, row, element)`` gives it."""
        return self if place is None else SupportError(self.cell, self.problem, self.rows, place(*self.cell))


def check_support(likelihoods: Mapping[str, Likelihood], batch: Batch, first: int = 0, *, counted: bool = True) -> None:
    """Checks every observed value. If these are all rows (``counted``), the message states how many are invalid.

    Raises:
        DataError: naming the modality, the first offending row, its value and the support.
    """
    for name, likelihood in likelihoods.items():
        if name in batch.values:
            _check_shape(name, likelihood, batch.values[name])
            if not likelihood.elementwise:
                require_whole(batch, [name], first)
                if likelihood.blank(0).ndim == 1:
                    _check_classes(name, likelihood, batch, first)
            _check_modality(name, likelihood, batch, first, counted)


def _check_shape(name: str, likelihood: Likelihood, x: Tensor) -> None:
    blank = likelihood.canonical(x[:0])
    expected = likelihood.blank(0).shape[1:]
    if blank.shape[1:] != expected:
        raise DataError(f"modality {name!r}: values of shape {tuple(x.shape)}, expected (rows, {', '.join(map(str, likelihood.shape))})")


def _check_modality(name: str, likelihood: Likelihood, batch: Batch, first: int, counted: bool) -> None:
    x, wrong = _outside(name, likelihood, batch)
    if wrong.any():
        row = int(wrong.any(1).nonzero()[0])
        raise _error(name, likelihood, x, wrong, int(wrong[row].nonzero()[0]), first, counted=counted)


def support_errors(name: str, likelihood: Likelihood, batch: Batch) -> Iterator[SupportError]:
    """The first value outside the support: of the modality, or of each column of a mixed one."""
    x, wrong = _outside(name, likelihood, batch)
    elements = wrong.any(0).nonzero()[:, 0].tolist()
    if likelihood.partly:
        yield from (_error(name, likelihood, x, wrong[:, [one]], one, 0, counted=True) for one in elements)
    elif elements:
        row = int(wrong.any(1).nonzero()[0])
        yield _error(name, likelihood, x, wrong, int(wrong[row].nonzero()[0]), 0, counted=True)


def _outside(name: str, likelihood: Likelihood, batch: Batch) -> tuple[Tensor, Tensor]:
    """Values in canonical form, and which elements are outside the support, (B, n)."""
    given, present = batch.values[name], batch.present[name]
    x = likelihood.canonical(torch.where(present.reshape(-1, *(1 for _ in given.shape[1:])), given, 0))
    # Torch's real constraint admits infinities.
    inside = likelihood.support.check(x) & x.isfinite()
    if name in batch.cells:
        inside = inside | ~batch.cells[name]
    return x, ~inside.reshape(len(x), math.prod(inside.shape[1:])) & present[:, None]


def _error(name: str, likelihood: Likelihood, x: Tensor, wrong: Tensor, element: int, first: int, *, counted: bool) -> SupportError:
    """The error about the first row with a wrong value."""
    row = int(wrong.any(1).nonzero()[0])
    family, support = likelihood.support_of(element)
    text = f"value {x[row].reshape(-1)[element].item():g} is outside the support of {family}, {describe_support(support)}"
    return SupportError((name, first + row, element), text, int(wrong.any(1).sum()) if counted else None)


def _check_classes(name: str, likelihood: Likelihood, batch: Batch, first: int) -> None:
    if batch.values[name].ndim == 2 and batch.values[name].shape[1:] != likelihood.shape:
        raise DataError(f"modality {name!r}: one-hot rows of {batch.values[name].shape[1]} classes, expected {likelihood.shape[0]}")
    given = batch.values[name]
    right = given == given.floor() if given.ndim == 1 else ((given == 0) | (given == 1)).all(1) & (given.sum(1) == 1)
    wrong = batch.present[name] & ~right
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise DataError(f"modality {name!r}, row {first + row}: expected a class index or a one-hot row, with a single 1 among 0s")


def describe_support(support: constraints.Constraint) -> str:
    """A constraint in words."""
    kind = "whole numbers" if support.is_discrete else "numbers"
    if support is constraints.positive:
        return f"{kind} above 0"
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None and high is not None:
        return f"{kind} from {low:g} to {high:g}"
    return f"{kind} from {low:g}" if low is not None else f"finite {kind}"
