"""Checks presence columns against the cells, which must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nbridge.data.column import PRESENT
from nbridge.data.tables.cells import Where
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.layout import TableLayout
from nbridge.errors import DataError, naming


def check_presence(name: str, mask: np.ndarray, array: np.ndarray, where: Where) -> None:
    """Checks that a presence column agrees with the cells.

    Arguments:
        name: The modality.
        mask: The value of the presence column in each row: 1 or 0.
        array: The modality.
        where: Formats the location of a row, for messages.

    Raises:
        DataError: for the first row in which they disagree.
    """
    some = ~np.isnan(array.reshape(len(array), -1)).all(1)
    wrong = np.flatnonzero((mask != some) | np.isnan(mask))
    if not wrong.size:
        return
    row, key = int(wrong[0]), f"{name}{PRESENT}"
    check_said(name, mask[wrong[:1]], lambda _: where(row))
    place = where(row)
    if mask[row]:
        raise DataError(f"column {key!r}: {place} says that {name} is present, but all its cells are empty")
    raise DataError(f"column {key!r}: {place} says that {name} is absent, but it has values; empty its cells, or set 1")


def check_said(name: str, mask: np.ndarray, where: Where) -> None:
    """Checks that a presence column holds only 1 and 0.

    Arguments:
        name: The modality.
        mask: The presence column, (N,).
        where: Formats the location of a row, for messages.

    Raises:
        DataError: for the first row with another value.
    """
    if (wrong := np.flatnonzero(~np.isin(mask, (0, 1)))).size:
        raise DataError(f"column {name + PRESENT!r}: {where(int(wrong[0]))} is neither 1 nor 0")


def check_joined(
    layout: TableLayout, files: Sequence[TableFile], numbers: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
) -> None:
    """Checks presence columns in other files than their modality, after rows are joined.

    Arguments:
        layout: The columns of each modality.
        files: The files.
        numbers: Their joined columns by name, including presence columns, NaN where their file lacks the row.
        rows: By file, the index of each row there.

    Raises:
        DataError: for the first row in which a presence column and the cells disagree.
    """
    for name in layout.columns:
        if (mask := numbers.get(name + PRESENT)) is None:
            continue
        file = next(file for file in files if name + PRESENT in file.columns)
        said = np.flatnonzero(~np.isnan(mask))
        own = rows[str(file.path)][said]
        with naming(file.path):
            check_presence(name, mask[said], layout.array(name, numbers)[said], lambda row, file=file, own=own: file.where(int(own[row])))
