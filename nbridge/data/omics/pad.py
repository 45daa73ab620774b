"""Elements of AnnData with more observations, and with values filled in; what was there stays bit for bit, as sparse as it was.

What nobody knows of an observation that a modality gets is NaN, never a zero: whole numbers and truth values become floating point for
that, in tables nullable, and text becomes categorical. Graphs of neighbours (obsp) get observations without edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nbridge.data.omics.container import anndata_of, pandas_of


@dataclass(frozen=True)
class Cells:
    """What was filled in of a matrix.

    Arguments:
        rows: The rows, (r,).
        columns: The columns, (C,).
        mask: Which of their cells, (r, C).
    """

    rows: np.ndarray
    columns: np.ndarray
    mask: np.ndarray


def is_sparse(value: Any) -> bool:
    """Whether an element is a sparse matrix."""
    return hasattr(value, "tocsr")


def grown(value: Any, gained: int) -> Any:
    """An array or a sparse matrix with so many rows more, NaN throughout; None where it holds no numbers."""
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    if kind not in "buifc":
        return None
    if kind in "bui":
        value = value.astype(np.float64)
    return _stacked(value, np.full((gained, *value.shape[1:]), np.nan, value.dtype))


def paired(value: Any, gained: int) -> Any:
    """A matrix of pairs of observations with so many more, which have none."""
    size = value.shape[0] + gained
    if is_sparse(value):
        value = value.copy()
        value.resize((size, size))
        return value
    whole = np.full((size, size), np.nan, np.result_type(value.dtype, np.float32) if value.dtype.kind == "f" else np.float64)
    whole[: len(value), : len(value)] = value
    return whole


def widened(value: Any, added: np.ndarray) -> Any:
    """What a MuData object keeps of its variables, with more of them: maps and masks of its modalities with zeros, all else as `grown`."""
    if hasattr(value, "columns"):
        return grown_frame(value, added)
    if isinstance(value, np.ndarray) and value.dtype.kind in "bui":
        return np.concatenate([value, np.zeros((len(added), *value.shape[1:]), value.dtype)])
    return grown(value, len(added))


def grown_frame(frame: Any, added: np.ndarray) -> Any:
    """A data frame with rows more, of which it knows nothing."""
    if not len(added):
        return frame.copy()
    frame = frame.copy()
    for column in frame.columns:
        dtype = frame[column].dtype
        if (kind := nullable(dtype)) is not None:
            frame[column] = frame[column].astype(kind)
    index = pandas_of().Index([*frame.index, *added.tolist()], name=frame.index.name)
    # By place, since names of variables of several modalities may repeat.
    return frame.reset_index(drop=True).reindex(range(len(index))).set_axis(index)


def nullable(dtype: Any) -> str | None:
    """The type of a column that holds the same and NA as well; None where it does already."""
    kind = dtype.kind if isinstance(dtype, np.dtype) else "O" if str(dtype).startswith("str") else ""
    if kind in "iu" and kind:
        return f"{'U' if kind == 'u' else ''}Int{8 * dtype.itemsize}"
    return {"b": "boolean", "O": "category"}.get(kind)


def with_own_types(frame: Any, before: Any) -> Any:
    """A grown data frame in which columns that lack nothing are of the types that they had."""
    for column in (one for one in before.columns if one in frame.columns):
        dtype = before[column].dtype
        if frame[column].dtype != dtype and isinstance(dtype, np.dtype) and not frame[column].isna().any():
            frame[column] = frame[column].astype(dtype)
    return frame


def placed(value: Any, gained: int, cells: Cells, values: np.ndarray) -> Any:
    """A matrix with so many rows more, and with values in its cells.

    Arguments:
        value: The matrix, dense or sparse, (n, w).
        gained: The rows that it gets; cells are to have all of them.
        cells: Where values go.
        values: The values, (r, C).
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
    """A copy of a matrix in a floating type, with zeros in the place of its values where they are asked for."""
    changed = value.astype(dtype)
    if not zeros:
        return changed
    if is_sparse(changed):
        changed.data[:] = 0
        return changed
    return np.zeros_like(changed)


def mask_of(shape: tuple[int, int], cells: Cells) -> Any:
    """A sparse matrix that is true in these cells."""
    from scipy import sparse

    row, place = np.nonzero(cells.mask)
    where = (cells.rows[row], cells.columns[place])
    return sparse.csr_matrix((np.ones(len(row), dtype=bool), where), shape=shape)


def _with(value: Any, where: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> Any:
    """A matrix, changed in place where that can be, with values in cells: NaN, which a sparse matrix stores."""
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
