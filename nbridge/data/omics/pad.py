"""Adds observations and imputed values to AnnData elements; existing values stay bit-identical, and sparse matrices sparse.

Unknown values of added observations are NaN, never zero: integers and booleans become floating point for that, or nullable in data frames,
and text becomes categorical. Pairwise matrices (obsp) get observations without edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbridge.data.omics.container import anndata_of, pandas_of


@dataclass(frozen=True)
class Cells:
    """Imputed values of a matrix. Rows are of shape (r,), columns (C,), and the mask of imputed cells (r, C)."""

    rows: np.ndarray
    columns: np.ndarray
    mask: np.ndarray


def is_sparse(value: Any) -> bool:
    """Whether an element is a sparse matrix."""
    return hasattr(value, "tocsr")


def grown(value: Any, gained: int) -> Any:
    """Appends NaN rows to an array or a sparse matrix; None if it is not numeric."""
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    if kind not in "buifc":
        return None
    if kind in "bui":
        value = value.astype(np.float64)
    return _stacked(value, np.full((gained, *value.shape[1:]), np.nan, value.dtype))


def paired(value: Any, gained: int) -> Any:
    """Pads a pairwise matrix with observations that have no edges."""
    size = value.shape[0] + gained
    if is_sparse(value):
        value = value.copy()
        value.resize((size, size))
        return value
    whole = np.full((size, size), np.nan, np.result_type(value.dtype, np.float32) if value.dtype.kind == "f" else np.float64)
    whole[: len(value), : len(value)] = value
    return whole


def widened(value: Any, added: np.ndarray) -> Any:
    """Adds variables to MuData's top-level variable data: zeros to the maps and masks of its modalities, as in `grown` otherwise."""
    if hasattr(value, "columns"):
        return grown_frame(value, added)
    if isinstance(value, np.ndarray) and value.dtype.kind in "bui":
        return np.concatenate([value, np.zeros((len(added), *value.shape[1:]), value.dtype)])
    return grown(value, len(added))


def grown_frame(frame: Any, added: np.ndarray) -> Any:
    """Appends rows of missing values to a data frame."""
    if not len(added):
        return frame.copy()
    frame = frame.copy()
    for column in frame.columns:
        dtype = frame[column].dtype
        if (kind := nullable(dtype)) is not None:
            frame[column] = frame[column].astype(kind)
    index = pandas_of().Index([*frame.index, *added.tolist()], name=frame.index.name)
    # By position, since variable names may repeat across modalities.
    return frame.reset_index(drop=True).reindex(range(len(index))).set_axis(index)


def nullable(dtype: Any) -> str | None:
    """A nullable dtype for the same values and NA; None if the column's dtype can already hold NA."""
    kind = dtype.kind if isinstance(dtype, np.dtype) else "O" if str(dtype).startswith("str") else ""
    if kind in "iu" and kind:
        return f"{'U' if kind == 'u' else ''}Int{8 * dtype.itemsize}"
    return {"b": "boolean", "O": "category"}.get(kind)


def with_own_types(frame: Any, before: Any) -> Any:
    """Restores the original dtypes of columns without missing values in a grown data frame."""
    for column in (one for one in before.columns if one in frame.columns):
        dtype = before[column].dtype
        if frame[column].dtype != dtype and isinstance(dtype, np.dtype) and not frame[column].isna().any():
            frame[column] = frame[column].astype(dtype)
    return frame


def placed(value: Any, gained: int, cells: Cells, values: np.ndarray) -> Any:
    """Appends rows to a matrix and writes values into its cells.

    The matrix is dense or sparse, (n, w), and values are (r, C); all ``gained`` rows must be covered by cells.
    """
    n, known = value.shape[0], cells.rows < value.shape[0]
    unknown = np.ones(value.shape[1], dtype=bool)
    unknown[cells.columns] = False
    if gained and unknown.any() and value.dtype.kind in "bui":
        value = value.astype(np.float64)
    old = value.copy()
    if known.any():
        row, place = np.nonzero(cells.mask[known])
        where = (cells.rows[known][row], cells.columns[place])
        old = _with(old, where, values[known][row, place].astype(value.dtype))
    if not gained:
        return old
    new = np.zeros((gained, value.shape[1]), value.dtype)
    new[:, unknown] = np.nan if unknown.any() else 0
    new[np.ix_(cells.rows[~known] - n, cells.columns)] = values[~known]
    return _stacked(old, new)


def with_type(value: Any, dtype: np.dtype, *, zeros: bool = False) -> Any:
    """Copies a matrix in a floating dtype, with zeros instead of its values if asked."""
    changed = value.astype(dtype)
    if not zeros:
        return changed
    if is_sparse(changed):
        changed.data[:] = 0
        return changed
    return np.zeros_like(changed)


def mask_of(shape: tuple[int, int], cells: Cells) -> Any:
    """A sparse boolean matrix, true in these cells."""
    from scipy import sparse

    row, place = np.nonzero(cells.mask)
    where = (cells.rows[row], cells.columns[place])
    return sparse.csr_matrix((np.ones(len(row), dtype=bool), where), shape=shape)


def _with(value: Any, where: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> Any:
    """Writes values into cells of a matrix, in place if possible; a sparse matrix stores NaN explicitly."""
    if not is_sparse(value):
        value[where] = values
        return value
    rows = value.tocsr()
    rows[where] = values
    return rows.asformat(value.format)


def _stacked(value: Any, new: np.ndarray) -> Any:
    if not is_sparse(value):
        return np.concatenate([value, new])
    anndata_of()
    from scipy import sparse

    return sparse.vstack([value, type(value)(new)], format=value.format)
