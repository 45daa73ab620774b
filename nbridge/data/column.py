"""Converts the array of one modality to values, presence and observed cells.

Absence is explicit, never guessed: a row is absent when all its cells are NaN or when its presence mask is false. Zeros are values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.errors import CellError, DataError

PRESENT = "__present"
"""The suffix that names a modality's presence mask."""

ROUNDING = 1e-4
"""The share of a standard deviation that rounding to float32 may cost."""


@dataclass(frozen=True)
class Column:
    """Values of one modality, :math:`(N, *shape)` or class indices, :math:`(N,)`, with presence and, for partially observed rows, cells."""

    values: Tensor
    present: Tensor
    cells: Tensor | None = None


def read_column(
    name: str,
    array: ArrayLike | Tensor,
    shape: tuple[int, ...],
    present: ArrayLike | Tensor | None = None,
    *,
    first: int = 0,
    wide: bool | None = None,
) -> Column:
    """Reads one modality into new tensors; the array is not modified.

    Arguments:
        name: The modality, for messages.
        array: Its rows: full shape, flattened, or without a channel axis of size 1; for a shape of one axis also indices, :math:`(N,)`.
        shape: The shape of a row.
        present: One boolean per row, :math:`(N,)`.
        first: The index of the first row, for messages, if the array is part of a longer one.
        wide: Whether to keep float64; by default where float32 would round off more than `ROUNDING` of an element's standard deviation, as
            of times in seconds since 1970.

    Raises:
        DataError: when the array is not numeric, has another shape, or holds infinities or invalid class indices; when it has no
            rows; when a row is declared present but is all NaN.
    """
    what = f"modality {name!r}"
    raw = _numbers(what, array)
    check_layout(name, raw.shape, raw.dtype, shape)
    indices = raw.ndim == 1 and len(shape) == 1 and shape[0] > 1
    rows = raw if indices else raw.reshape(len(raw), *shape)
    observed = ~np.isnan(rows) if rows.dtype.kind == "f" else np.ones(rows.shape, dtype=bool)
    some = np.array(observed.reshape(len(rows), -1).any(axis=1))
    mask = some if present is None else _read_mask(name, present, some, first)
    row_mask = mask.reshape(-1, *(1 for _ in rows.shape[1:]))
    counted = observed & row_mask
    values = np.where(counted, rows, np.zeros((), rows.dtype))
    if indices:
        return Column(torch.from_numpy(_class_indices(name, values, counted, shape[0], first)), torch.from_numpy(mask))
    cells = torch.from_numpy(counted) if (counted != row_mask).any() else None
    single = _float32(name, values, first)
    wide = loses_spread(values, single, counted) if wide is None else wide
    return Column(torch.from_numpy(values.astype(np.float64, order="C") if wide else single), torch.from_numpy(mask), cells)


def loses_spread(values: np.ndarray, single: np.ndarray, counted: np.ndarray) -> bool:
    """Whether float32 rounds off more than `ROUNDING` of the standard deviation of an element.

    Arguments:
        values: The values, shape (N, *shape).
        single: The same in float32.
        counted: Which of them are observed.
    """
    if np.can_cast(values.dtype, single.dtype) or not len(values):
        return False
    rounded = np.abs(values - single.astype(np.float64)).reshape(len(values), -1).max(0)
    suspects = np.flatnonzero(rounded)
    if not suspects.size:
        return False
    flat, some = values.reshape(len(values), -1)[:, suspects].astype(np.float64), counted.reshape(len(values), -1)[:, suspects]
    deviation = flat.std(0, where=some)
    # A constant element has nothing to lose. The deviation of numbers below 1e-162 is rounded to 0.
    varies = flat.min(0, where=some, initial=np.inf) < flat.max(0, where=some, initial=-np.inf)
    return bool((varies & (rounded[suspects] > ROUNDING * deviation)).any())


def _numbers(what: str, array: ArrayLike | Tensor) -> np.ndarray:
    raw = as_array(what, array)
    _check_numbers(what, raw.dtype)
    return raw


def as_array(what: str, array: ArrayLike | Tensor) -> np.ndarray:
    """Converts the input to an array, as `plain_array` does.

    Arguments:
        what: Its name, for messages.
        array: The input.

    Raises:
        DataError: when it is not an array.
    """
    try:
        return plain_array(array)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{what}: not an array of numbers with rows of one shape ({reason})") from error


def _check_numbers(what: str, dtype: np.dtype) -> None:
    if dtype.kind not in "buif":
        hint = "; use NaN, not None, for absent values" if dtype.kind == "O" else ""
        raise DataError(f"{what}: array of dtype {dtype}, expected real numbers{hint}")


def plain_array(array: ArrayLike | Tensor) -> np.ndarray:
    """Converts the input to an array: a tensor is detached, a masked array gets NaN under its mask."""
    if isinstance(array, Tensor):
        tensor = array.detach().cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    if np.ma.is_masked(array):
        # np.asarray would expose the values under the mask.
        return np.ma.filled(np.ma.asarray(array, dtype=np.float64), np.nan)
    return np.asarray(array)


def check_layout(name: str, given: tuple[int, ...], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Checks an array by its shape and dtype, before it is read.

    Arguments:
        name: The modality, for messages.
        given: The shape of the array.
        dtype: Its dtype.
        shape: The shape of a row of the modality.

    Raises:
        DataError: when it is not numeric, has no rows, or has rows of another shape.
    """
    what, size = f"modality {name!r}", prod(shape)
    _check_numbers(what, dtype)
    if given and not given[0]:
        raise DataError(f"{what}: no rows")
    # Class indices: rows without an axis.
    accepted = [shape, (size,)] + [shape[1:]] * (shape[0] == 1) + [()] * (len(shape) == 1 and size > 1)
    if given and given[1:] in accepted:
        return
    rows = [f"(rows, {', '.join(map(str, shape))})"]
    if len(shape) > 1:
        rows.append(f"(rows, {size})")
    elif size > 1:
        rows.append("class indices (rows,)")
    raise DataError(f"{what}: array of shape {given}, expected {' or '.join(rows)}")


def check_mask_layout(name: str, given: tuple[int, ...], dtype: np.dtype, rows: int) -> None:
    """Checks the shape and the dtype of a presence mask.

    Raises:
        DataError: when it is not numeric, or doesn't have one value per row.
    """
    key = f"{name}{PRESENT}"
    _check_numbers(key, dtype)
    if given != (rows,):
        raise DataError(f"{key}: array of shape {given}, expected {(rows,)}, one boolean per row of {name!r}")


def _read_mask(name: str, present: ArrayLike | Tensor, some: np.ndarray, first: int) -> np.ndarray:
    key = f"{name}{PRESENT}"
    mask = _numbers(key, present)
    check_mask_layout(name, mask.shape, mask.dtype, len(some))
    if (bad := np.flatnonzero((mask != 0) & (mask != 1))).size:
        raise DataError(f"{key}: row {first + bad[0]} holds {mask[bad[0]]}, expected true or false (1 or 0)")
    mask = mask.astype(bool)
    if (empty := np.flatnonzero(mask & ~some)).size:
        raise DataError(f"modality {name!r}: row {first + empty[0]} is all NaN, but {key} says that it is present")
    return mask


def _class_indices(name: str, values: np.ndarray, counted: np.ndarray, classes: int, first: int) -> np.ndarray:
    bad = np.flatnonzero((values < 0) | (values >= classes) | (values != np.floor(values)))
    if bad.size:
        row, held = bad[0], values[counted]
        hint = ""
        # Only for whole arrays: a block from the middle of a file says little about all of them.
        if not first and held.min() >= 1 and held.max() == classes:
            hint = "; these labels seem to start at 1: subtract 1"
        elif values[row] == -1:
            hint = f"; NaN or {name}{PRESENT} marks absent values"
        raise DataError(f"modality {name!r}: row {first + row} holds {values[row]}, expected a class index from 0 to {classes - 1}{hint}")
    return values.astype(np.int64)


def _float32(name: str, values: np.ndarray, first: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32, order="C")
    if not (finite := np.isfinite(single)).all():
        row, *cell = (int(axis[0]) for axis in np.nonzero(~finite))
        value = values[(row, *cell)]
        reason = "values must be finite (NaN marks absent values)" if np.isinf(value) else "too large for float32"
        element = int(np.ravel_multi_index(tuple(cell), values.shape[1:]))
        text = f"modality {name!r}: {value} in row {first + row}, cell {tuple(cell)}: {reason}"
        raise CellError(text, (name, first + row, element), f"{value:g}, {reason}")
    return single
