"""Columns of a table that mark cells imputed before: ``MODALITY__imputed``, or ``COLUMN__imputed`` for each of its columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nbridge.common.messages import clip, quoted
from nbridge.data.marks import as_marks, either
from nbridge.data.output_names import IMPUTED
from nbridge.data.tables.arrow import distinct
from nbridge.data.tables.columns import Chunk
from nbridge.data.tables.layout import TableLayout
from nbridge.errors import DataError

_MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def mark_columns(layout: TableLayout, columns: Sequence[str], names: Iterable[str] | None = None) -> list[str]:
    """The columns with marks of some modalities, all by default, among those of a table."""
    own = {column for columns in layout.columns.values() for column in columns}
    stems = {stem for name in (layout.columns if names is None else names) for stem in (name, *layout.columns[name])}
    return [column for column in columns if column.endswith(IMPUTED) and column not in own and column.removesuffix(IMPUTED) in stems]


def read_column_marks(column: str, chunk: Chunk, layout: TableLayout) -> np.ndarray:
    """The marks of a column, (N,), or (N, n) for lists; empty cells are not marked.

    Raises:
        DataError: for the first cell that is no mark.
    """
    if column in chunk.vectors:
        return as_marks(f"column {clip(column)!r}", chunk.vectors[column].reshape(chunk.rows, -1))
    codes, texts = distinct(chunk.column(column))
    absent = {"", *chunk.absent, *layout.missing}
    marks = [False if text.strip() in absent else _MARKS.get(text.strip().lower()) for text in texts]
    if None in marks:
        row = int(np.flatnonzero(codes == marks.index(None))[0])
        raise DataError(
            f"column {clip(column)!r}: {chunk.where(row)} holds {quoted(texts[codes[row]])}, expected 1 or 0: it marks cells that were "
            "imputed before; rename it if it is something else"
        )
    return np.array(marks, dtype=bool)[codes]


def marks_of(layout: TableLayout, name: str, found: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The marks of a modality: of rows, (N,), or of its elements, (N, n); None if it has none.

    Arguments:
        layout: The columns of each modality.
        name: The modality.
        found: The marks of each column that has any.
    """
    whole, fields = found.get(name + IMPUTED), list(layout.fields(name))
    own = {field: found[field.column + IMPUTED] for field in fields if field.column + IMPUTED in found}
    if len(fields) == 1:
        whole, own = own.get(fields[0], whole) if whole is None else whole, {}
    if not own:
        return whole
    rows = len(next(iter(own.values())))
    cells = np.zeros((rows, fields[-1].stop), dtype=bool)
    for field, marks in own.items():
        cells[:, field.start : field.stop] = marks[:, None]
    return cells if whole is None else either(cells, whole)
