"""Imputation of rows in memory, whatever holds them: a data frame comes back as one of the same kind, with its holes filled.

The work is that of `nbridge.inference.file_completion` on a table; a frame is only another way in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from nbridge.common.warnings import Finding
from nbridge.data.arrays import to_batch
from nbridge.data.omics.container import copied, is_omics
from nbridge.data.omics.rows import object_rows
from nbridge.data.patterns import count
from nbridge.data.tables.frame_source import FrameTable
from nbridge.data.tables.frames import FrameLike, is_frame, open_frame
from nbridge.data.tables.rows import CellRows
from nbridge.errors import DataError, naming
from nbridge.inference.array_completion import impute_arrays
from nbridge.inference.file_completion import ImputationOptions, complete
from nbridge.inference.served import Served


def impute_frame(
    model: Served,
    rows: FrameLike,
    options: ImputationOptions | None = None,
    *,
    mask: bool = False,
    warn: Callable[[Finding], None] = lambda _: None,
) -> Any:
    """Fills in what is absent from a data frame, and gives one of the same kind: class, columns, order, names, types and index are kept.

    Observed cells stay as they are. Columns count by their names, in any order, and others pass through; a modality all of whose columns
    are missing is filled in as new columns at the end. Rows are told by their place, so that an index or identifiers may repeat. K draws
    are K rows, one below the other, told apart by a column ``draw``.

    Arguments:
        model: A trained model.
        rows: A data frame of pandas, polars or pyarrow (of other libraries through ``__arrow_c_stream__``, which come back as a pyarrow
            table), a ``datasets.Dataset``, or a dict of arrays. For a model that learned from such data a MuData or AnnData object, of
            which a copy comes back (`nbridge.data.omics.update`). For a model that was trained from arrays a dict of arrays by modality
            (`nbridge.inference.array_completion.impute_arrays`).
        options: Imputation options; a point estimate when left out. Intervals are columns ``COLUMN__mean``, ``COLUMN__sd``,
            ``COLUMN__lower`` and ``COLUMN__upper``, or ``COLUMN__probability`` for classes.
        mask: Whether to give a second frame as well, true where a cell was filled in.
        warn: Callback for warnings, such as rows with patterns of presence that no training row had.

    Returns:
        The completed frame, or with ``mask`` a pair of frames.

    Raises:
        DataError: when the rows don't fit the model.

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
        raise DataError(
            "this model knows no columns: it was trained from arrays; pass a dict of arrays by modality, or train one from a frame"
        )
    options.check()
    frame = open_frame(rows)
    with naming(frame.noun):
        table = CellRows(FrameTable(frame), layout, levels=options.intervals)
        out = table.in_memory()
        found = complete(model, table, lambda _: nullcontext(out), options, keys={name: name for name in model.names})
    _warn_of(found.warnings, warn)
    renewed, added = out.renewed, out.added
    done = frame.completed(out.rows, renewed, added)
    if not mask:
        return done
    values = {column for columns in layout.columns.values() for column in columns}
    flags = {name: renewed[name].fill if name in renewed else np.zeros(len(out.rows), dtype=bool) for name in frame.names}
    flags |= {name: np.full(len(out.rows), name in values) for name in added}
    return done, frame.flags(out.rows, flags)


def _warn_of(findings: Iterable[Finding], warn: Callable[[Finding], None]) -> None:
    for finding in findings:
        warn(finding)


def _impute_arrays(
    model: Served, arrays: Mapping[str, Any], imputation: ImputationOptions, mask: bool, warn: Callable[[Finding], None]
) -> dict[str, np.ndarray]:
    """Arrays by modality with the gaps filled, and their masks beside them."""
    if mask:
        raise DataError("mask is for data frames; completed arrays have masks NAME__imputed beside them")
    options = {"samples": imputation.samples, "noise": imputation.noise, "seed": imputation.seed}
    done = impute_arrays(model.network, arrays, **options, intervals=imputation.intervals, draws=imputation.draws)
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    present = to_batch(arrays, shapes, allow_missing=True, ignore_extra=True).present
    _warn_of(model.unseen(count(model.names, present)), warn)
    return done


def _impute_object(model: Served, data: Any, options: ImputationOptions, mask: bool, warn: Callable[[Finding], None]) -> Any:
    """A copy of a MuData or AnnData object with nothing absent."""
    if (omics := model.binding.omics) is None:
        raise DataError(
            "this model does not know where modalities lie in such an object: train one from it, or from an .h5mu or .h5ad file "
            "(data: {source: h5mu})"
        )
    if mask:
        raise DataError("mask is for data frames; obs of the copy has NAME__imputed")
    options.check()
    data = copied(data) if data.is_view else data
    rows = object_rows(data, omics.of(model.names), options.intervals)
    with naming(rows.origin):
        found = complete(model, rows, rows.collecting, options, keys={name: name for name in model.names})
    _warn_of(found.warnings, warn)
    return rows.completed(data)
