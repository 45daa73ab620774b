"""Marks of values imputed before in an AnnData or MuData object, as `nbridge.data.omics.update` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.blocks import Layout
from nbridge.data.marks import IMPUTED, as_marks, either
from nbridge.data.omics.container import Omics, Part
from nbridge.data.omics.values import Columns, Matrix, Values
from nbridge.errors import DataError


@dataclass(frozen=True, eq=False)
class Marks:
    """The observations of a modality that are marked, (N,), and its cells as values true or false, if they are marked one by one."""

    rows: np.ndarray
    cells: Values | None

    @property
    def layout(self) -> Layout:
        """The dtype and the shape of all marks."""
        return Layout(np.dtype(bool), self.rows.shape if self.cells is None else self.cells.layout.shape)

    def block(self, start: int, stop: int) -> np.ndarray:
        """Marks of some observations, (n,), or of their cells, (n, C)."""
        rows = self.rows[start:stop]
        if self.cells is None:
            return rows
        array, missing = self.cells.block(start, stop)
        cells = array.astype(bool) & ~missing
        return either(cells, rows & ~cells.any(1))


def marks_in(omics: Omics, values: Values) -> Marks | None:
    """The marks of a modality; None if it has none.

    Raises:
        DataError: when they are neither true nor false, or of another shape than its values.
    """
    column, taken = values.name + IMPUTED, {one.name for one in values.addresses}
    flagged = column in omics.whole.obs.columns and column not in taken
    cells = _matrix(values) if isinstance(values, Matrix) else _columns(values)
    if not flagged and cells is None:
        return None
    rows = _flags(omics.whole, [column])[:, 0] if flagged else np.zeros(len(values.rows), dtype=bool)
    return Marks(rows, cells)


def _matrix(values: Matrix) -> Matrix | None:
    path = f"{'obsm' if values.addresses[0].slot == 'obsm' else 'layers'}/{values.name}{IMPUTED}"
    if path not in values.part.elements:
        return None
    marks = values.part.read(path)
    marks = marks.to_numpy() if hasattr(marks, "columns") else marks
    if getattr(marks, "shape", ()) != values.value.shape:
        raise DataError(
            f"{values.part.where}: {path}: of shape {getattr(marks, 'shape', ())}, expected {values.value.shape}: it marks values imputed "
            "before; rename it if it is something else"
        )
    as_marks(f"{values.part.where}: {path}", marks.data if hasattr(marks, "tocsr") else np.asarray(marks))
    return replace(values, value=marks, by_rows=marks.tocsr() if hasattr(marks, "tocsr") else marks)


def _columns(values: Values) -> Columns | None:
    names = [address.name + IMPUTED for address in values.addresses]
    if not isinstance(values, Columns) or len(names) < 2 or not {*names} <= {*values.part.obs.columns}:
        return None
    marks = _flags(values.part, names)
    return replace(values, numbers=marks, missing=np.zeros(marks.shape, dtype=bool))


def _flags(part: Part, columns: Sequence[str]) -> np.ndarray:
    """Boolean columns of obs, (n, C); missing values are false."""
    for column in columns:
        if not (part.obs[column].isna() | part.obs[column].isin([True, False])).all():
            raise DataError(
                f"{part.where}: obs/{clip(column)} marks values that were imputed before, expected true or false; rename it if it is "
                "something else"
            )
    return np.stack([part.obs[column].isin([True]).to_numpy() for column in columns], axis=1)
