"""Converts named arrays, read from a file or passed from Python, to a batch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.common.messages import did_you_mean, listing
from nbridge.data.batch import Batch
from nbridge.data.column import PRESENT, read_column
from nbridge.errors import DataError

Key = TypeVar("Key")


def to_batch(
    arrays: Mapping[str, ArrayLike | Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    allow_missing: bool = False,
    ignore_extra: bool = False,
    first: int = 0,
    wide: Collection[str] | None = None,
) -> Batch:
    """Builds a batch from arrays, tensors or lists, by modality name.

    A row of a modality is absent when it is all NaN, or when the optional array ``NAME__present`` is false, regardless of its values.
    A row with some NaN is present, with a mask of its observed cells. Values of absent rows and cells are 0 in the batch; the input arrays
    are not modified.

    Arguments:
        arrays: Rows by modality, :math:`(N, *shape_i)`, flattened or without a channel axis of size 1; class indices :math:`(N,)` are
            accepted for a shape of one axis. ``NAME__present``: booleans, :math:`(N,)`.
        shapes: The shape of a row of each modality, by name.
        allow_missing: Whether a modality may have no array (the batch then omits it) or be absent from every row.
        ignore_extra: Whether arrays with other names are ignored.
        first: The index of the first row, for messages.
        wide: The modalities to keep in float64; found by their values by default (`nbridge.data.column.read_column`).

    Raises:
        DataError: on the first mismatch, with the modality, the row, the value and what was expected.

    Example:
        >>> batch = to_batch({"x": [[1.0, float("nan")], [float("nan")] * 2], "y": [0, 2]}, {"x": (2,), "y": (3,)})
        >>> batch.present["x"].tolist(), batch.cells["x"].tolist(), batch.values["x"].tolist()
        ([True, False], [[True, False], [False, False]], [[1.0, 0.0], [0.0, 0.0]])
    """
    if not ignore_extra:
        _no_extra(arrays, shapes)
    _no_lone_mask(arrays, shapes)
    if not allow_missing:
        _none_missing(arrays, shapes)
    columns = {
        name: read_column(name, arrays[name], shape, arrays.get(name + PRESENT), first=first, wide=None if wide is None else name in wide)
        for name, shape in shapes.items()
        if name in arrays
    }
    if not columns:
        raise DataError(f"no array for any modality ({listing(shapes)}). Found: {listing(arrays)}")
    present = {name: column.present for name, column in columns.items()}
    check_same_rows({name: len(mask) for name, mask in present.items()})
    if not allow_missing:
        check_some_present(present)
    return Batch(
        {name: column.values for name, column in columns.items()},
        present,
        {name: column.cells for name, column in columns.items() if column.cells is not None},
    )


def keys_of(names: Iterable[str], keys: Mapping[str, Key], option: str = "keys") -> dict[str, Key | str]:
    """The name of each modality in a file.

    Arguments:
        names: The modalities.
        keys: Names in the file, for modalities whose name there differs.
        option: The option that sets them, for messages.

    Raises:
        DataError: when a key is not a modality.
    """
    names = tuple(names)
    for name in keys:
        if name not in names:
            raise DataError(f"{option}: {name!r} is not a modality.{did_you_mean(name, names)} Modalities: {listing(names)}")
    return {name: keys.get(name, name) for name in names}


def require_whole(batch: Batch, names: Iterable[str], first: int = 0) -> None:
    """Checks that no row of these modalities is partially observed: one-hot class rows are complete or absent.

    Arguments:
        batch: The rows.
        names: The modalities.
        first: The index of the first row, for messages.

    Raises:
        DataError: for the first partially observed row.
    """
    for name in names:
        if name in batch.cells:
            partial = batch.present[name] & ~batch.cells[name].flatten(1).all(dim=1)
            if partial.any():
                row = int(torch.nonzero(partial)[0])
                raise DataError(
                    f"modality {name!r}: row {first + row} is NaN in part, expected a whole row of class values, or NaN throughout"
                )


def _no_extra(arrays: Mapping[str, ArrayLike | Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    known = {*shapes, *(name + PRESENT for name in shapes)}
    for key in arrays:
        if key not in known:
            raise DataError(f"array {key!r}: no such modality.{did_you_mean(key, known)} Modalities: {listing(shapes)}")


def _no_lone_mask(arrays: Mapping[str, ArrayLike | Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in shapes:
        if name + PRESENT in arrays and name not in arrays:
            raise DataError(f"modality {name!r}: {name}{PRESENT} is given without an array {name!r}")


def _none_missing(arrays: Mapping[str, ArrayLike | Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    spare = [key for key in arrays if key not in shapes]
    for name in shapes:
        if name not in arrays:
            raise DataError(f"modality {name!r}: no array of this name.{did_you_mean(name, spare)} Found: {listing(arrays)}")


def check_same_rows(counts: Mapping[str, int]) -> None:
    """Checks that all modalities have the same number of rows as the first.

    Arguments:
        counts: Rows by modality.

    Raises:
        DataError: for the first that differs.
    """
    (first, leader), *others = counts.items()
    for name, count in others:
        if count != leader:
            raise DataError(
                f"modality {name!r}: {count} rows, but {first!r} has {leader}; expected one row for each, NaN where it is absent"
            )


def check_some_present(present: Mapping[str, Tensor]) -> None:
    """Checks that each modality is present in at least one row.

    Arguments:
        present: Boolean masks by modality, :math:`(N,)`.

    Raises:
        DataError: for the first that is not.
    """
    for name, mask in present.items():
        if not mask.any():
            raise DataError(f"modality {name!r}: present in none of the {len(mask)} rows, expected at least one")
