"""Imputes rows in memory: data frames, dicts of arrays, and MuData or AnnData objects. The result has the type of the input.

Imputation itself is shared with tables in files (`nbridge.inference.file_completion`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from nbridge.common.warnings import Finding
from nbridge.data.omics.container import copied, is_omics
from nbridge.data.omics.rows import object_rows
from nbridge.data.patterns import count
from nbridge.data.tables.frame_source import FrameTable
from nbridge.data.tables.frames import FrameLike, is_frame, open_frame
from nbridge.data.tables.rows import CellRows
from nbridge.errors import DataError, naming
from nbridge.inference.array_completion import fill_arrays, rows_of
from nbridge.inference.file_completion import ImputationOptions, complete
from nbridge.inference.served import Served

Warn = Callable[[Iterable[Finding]], None]
"""Callback for warnings."""


def impute_frame(
    model: Served,
    rows: FrameLike,
    options: ImputationOptions | None = None,
    *,
    mask: bool = False,
    warn: Warn = lambda _: None,
) -> Any:
    """Imputes missing values in a data frame; the result has the same class, columns, order, types and index.

    Observed cells are unchanged. Columns are matched by name, in any order, and other columns pass through; a modality without any of its
    columns is appended as new columns. Rows are identified by position, so an index or identifiers may repeat. K samples are K consecutive
    rows, numbered in a column ``draw``.

    Arguments:
        model: A trained model.
        rows: A data frame of pandas, polars or pyarrow (of other libraries through ``__arrow_c_stream__``, which come back as a pyarrow
            table), a ``datasets.Dataset``, or a dict of arrays. For a model trained from such data, a MuData or AnnData object, of which a
            completed copy is returned (`nbridge.data.omics.update`). For a model trained from arrays, a dict of arrays by modality
            (`nbridge.inference.array_completion.impute_arrays`).
        options: Imputation options; a point estimate by default. Intervals are columns ``COLUMN__mean``, ``COLUMN__sd``,
            ``COLUMN__lower`` and ``COLUMN__upper``, or ``COLUMN__probability`` for classes.
        mask: Whether to return a second frame, true where a cell was imputed.
        warn: Callback for warnings, such as rows with missingness patterns that no training row had.

    Returns:
        The completed frame, or with ``mask`` a pair of frames.

    Raises:
        DataError: if the rows do not match the model.

    Example:
        >>> import nbridge
        >>> rows = {"dose": np.arange(40) / 7 % 1, "arm": np.array(["a", "b", "c", "d"] * 10)}
        >>> rows["arm"][:3] = ""
        >>> model = nbridge.Model.from_spec(nbridge.init(rows).spec)  # nbridge.train(...).model is a trained one
        >>> done, filled = model.impute(rows, mask=True)
        >>> bool((done["arm"] == "").any()), int(filled["arm"].sum()), bool((done["dose"] == rows["dose"]).all())
        (False, 3, True)
    """
    options = options or ImputationOptions()
    if is_omics(rows):
        return _impute_object(model, rows, options, mask, warn)
    if (layout := model.binding.table) is None:
        if isinstance(rows, Mapping) and not is_frame(rows):
            return _impute_arrays(model, rows, options, mask, warn)
        raise DataError("this model was trained from arrays; pass a dict of arrays by modality, or train a model from a data frame")
    options.check()
    frame = open_frame(rows)
    with naming(frame.noun):
        table = CellRows(FrameTable(frame), layout, levels=options.intervals)
        out = table.in_memory()
        found = complete(model, table, lambda _: nullcontext(out), options, keys={name: name for name in model.names})
    warn(found.warnings)
    renewed, added = out.renewed, out.added
    done = frame.completed(out.rows, renewed, added)
    if not mask:
        return done
    values = {column for columns in layout.columns.values() for column in columns}
    flags = {name: renewed[name].fill if name in renewed else np.zeros(len(out.rows), dtype=bool) for name in frame.names}
    flags |= {name: np.full(len(out.rows), name in values) for name in added}
    return done, frame.flags(out.rows, flags)


def _impute_arrays(
    model: Served, arrays: Mapping[str, Any], imputation: ImputationOptions, mask: bool, warn: Warn
) -> dict[str, np.ndarray]:
    """Imputed arrays by modality, and their masks."""
    if mask:
        raise DataError("mask is for data frames; imputed arrays come with masks NAME__imputed")
    imputation.check()
    batch = rows_of(model.network, arrays)
    done = fill_arrays(model.network, arrays, batch, **vars(imputation))
    warn(model.unseen(count(model.names, batch.present)))
    return done


def _impute_object(model: Served, data: Any, options: ImputationOptions, mask: bool, warn: Warn) -> Any:
    """An imputed copy of a MuData or AnnData object."""
    if (omics := model.binding.omics) is None:
        raise DataError("this model was not trained from MuData or AnnData, in memory or in files (data: {source: h5mu})")
    if mask:
        raise DataError("mask is for data frames; obs of the copy has NAME__imputed")
    options.check()
    data = copied(data) if data.is_view else data
    rows = object_rows(data, omics.of(model.names), options.intervals)
    with naming(rows.origin):
        found = complete(model, rows, rows.collecting, options, keys={name: name for name in model.names})
    warn(found.warnings)
    return rows.completed(data)
