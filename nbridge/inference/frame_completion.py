"""Imputation of rows in memory, whatever holds them: a data frame comes back as one of the same kind, with its holes filled.

The work is that of `nbridge.inference.file_completion` on a table; a frame is only another way in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, overload

import numpy as np

from nbridge.data.batch import Batch
from nbridge.data.omics.container import copied, is_omics
from nbridge.data.omics.rows import object_rows
from nbridge.data.tables.frame_source import FrameTable
from nbridge.data.tables.frames import FrameLike, is_frame, open_frame
from nbridge.data.tables.rows import CellRows
from nbridge.errors import DataError, naming
from nbridge.inference import impute as imputation
from nbridge.inference.array_completion import impute_arrays
from nbridge.inference.file_completion import Wishes, complete
from nbridge.inference.impute import Completed
from nbridge.inference.intervals import DRAWS
from nbridge.models.base import MultimodalVAE


@overload
def impute(
    model: MultimodalVAE,
    rows: Batch,
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    first: int = 0,
) -> Completed: ...
@overload
def impute(
    model: MultimodalVAE,
    rows: FrameLike,
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    intervals: Sequence[float] = (),
    draws: int = DRAWS,
    mask: bool = False,
) -> Any: ...
def impute(
    model: MultimodalVAE,
    rows: Batch | FrameLike,
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    first: int = 0,
    intervals: Sequence[float] = (),
    draws: int = DRAWS,
    mask: bool = False,
) -> Any:
    """Fills in what is absent from a data frame, and gives one of the same kind: class, columns, order, names, types and index are kept.

    Observed cells stay as they are. Columns count by their names, in any order, and others pass through; a modality all of whose columns
    are missing is filled in as new columns at the end. Rows are told by their place, so that an index or identifiers may repeat. K draws
    are K rows, one below the other, told apart by a column ``draw``.

    Arguments:
        model: A model that was trained from a data frame or from a table (``data: {source: table}``).
        rows: A data frame of pandas, polars or pyarrow (of other libraries through ``__arrow_c_stream__``, which come back as a pyarrow
            table), a ``datasets.Dataset``, or a dict of arrays. Of a model that learned from such data a MuData or AnnData object, of
            which a copy comes back, as `nbridge.data.omics.update` describes it. For any model also a `Batch`, see
            `nbridge.inference.impute.impute`, and for one that was trained from arrays a dict of arrays by modality, see
            `nbridge.inference.array_completion.impute_arrays`.
        samples: The number K of draws, or None for the one best estimate.
        noise: Whether draws include the spread of the likelihood.
        seed: Seed of the draws.
        first: The number that the first row of a batch has among all rows.
        intervals: Probabilities of central intervals to add as columns ``COLUMN__mean``, ``COLUMN__sd``, ``COLUMN__lower`` and
            ``COLUMN__upper``, or ``COLUMN__probability`` for classes.
        draws: The number of draws that intervals are taken from.
        mask: Whether to give a second frame as well, true where a cell was filled in.

    Returns:
        The completed frame, or with ``mask`` a pair of frames; of a batch a `Completed`.

    Raises:
        DataError: when the rows don't fit the model.

    Example:
        >>> import nbridge
        >>> rows = {"dose": np.arange(40) / 7 % 1, "arm": np.array(["a", "b", "c", "d"] * 10)}
        >>> rows["arm"][:3] = ""
        >>> model = nbridge.build_model(nbridge.init(rows).spec)  # nbridge.train(...).model is one that has learned
        >>> done, filled = nbridge.impute(model, rows, mask=True)
        >>> bool((done["arm"] == "").any()), int(filled["arm"].sum()), bool((done["dose"] == rows["dose"]).all())
        (False, 3, True)
    """
    if isinstance(rows, Batch):
        if intervals or mask:
            raise DataError("intervals and mask are for data frames; nbridge.inference.intervals.summarise describes a batch")
        return imputation.impute(model, rows, samples=samples, noise=noise, seed=seed, first=first)
    wishes = Wishes(samples, noise, seed, intervals, draws)
    if is_omics(rows):
        return _impute_object(model, rows, wishes, mask)
    if model.table is None:
        if isinstance(rows, Mapping) and not is_frame(rows):
            return impute_arrays(model, rows, samples=samples, noise=noise, seed=seed, intervals=intervals, draws=draws)
        raise DataError(
            "this model knows no columns: it was trained from arrays; pass a dict of arrays by modality, or train one from a frame"
        )
    wishes.check()
    frame = open_frame(rows)
    with naming(frame.noun):
        table = CellRows(FrameTable(frame), model.table, levels=intervals)
        out = table.in_memory()
        complete(model, table, lambda _: nullcontext(out), wishes, keys={name: name for name in model.names})
    renewed, added = out.renewed, out.added
    done = frame.completed(out.rows, renewed, added)
    if not mask:
        return done
    values = {column for columns in model.table.columns.values() for column in columns}
    flags = {name: renewed[name].fill if name in renewed else np.zeros(len(out.rows), dtype=bool) for name in frame.names}
    flags |= {name: np.full(len(out.rows), name in values) for name in added}
    return done, frame.flags(out.rows, flags)


def _impute_object(model: MultimodalVAE, data: Any, wishes: Wishes, mask: bool) -> Any:
    """A copy of a MuData or AnnData object with nothing absent."""
    if model.omics is None:
        raise DataError(
            "this model does not know where modalities lie in such an object: train one from it, or from an .h5mu or .h5ad file "
            "(data: {source: h5mu})"
        )
    if mask:
        raise DataError("mask is for data frames; obs of the copy has NAME__imputed")
    wishes.check()
    data = copied(data) if data.is_view else data
    rows = object_rows(data, model.omics.of(model.names), wishes.intervals)
    with naming(rows.origin):
        complete(model, rows, rows.collecting, wishes, keys={name: name for name in model.names})
    return rows.completed(data)
