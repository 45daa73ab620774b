"""Reads rows of any format into a batch, by the data binding of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.covariates import same_rows
from nbridge.data.marks import as_marks, rows_marked
from nbridge.data.source import open_data
from nbridge.inference.plan import match_keys, read_block, with_sizes
from nbridge.inference.served import Served


class Read(NamedTuple):
    """Rows, their identifiers if they have any, and the number of rows, by modality, with values that were imputed before."""

    batch: Batch
    ids: np.ndarray | None = None
    imputed: Mapping[str, int] = {}


def read_batch(model: Served, rows: Any, fixed: Mapping[str, Tensor] | None = None) -> Read:
    """Reads rows into a batch, with their covariates, or fixed ones in place of those that rows lack.

    Raises:
        DataError: if the rows cannot be read or do not match the model.
    """
    if isinstance(rows, Batch):
        return Read(rows)
    source = open_data(rows, model.binding.own)
    with TemporaryDirectory() as scratch, source.blocks(model.binding, Path(scratch)) as reader:
        taken, _ = match_keys(reader.keys, reader.names, reader.noun)
        total = max(reader.layout(key).shape[0] for key in taken.values())
        marks = {name: key for name, key in reader.marks.items() if name in taken}
        (block,) = reader.blocks([*taken.values(), *marks.values()], 0, total, max(1, total))
        imputed = {name: rows_marked(as_marks(key, block.with_nan(key))) for name, key in marks.items()}
        batch = read_block(block, taken, model.likelihoods)
        found = model.covariates_in(source, fixed)
        same_rows(found, len(batch))
        batch = with_sizes(model.likelihoods, batch.with_covariates({**(fixed or {}), **found}) if found or fixed else batch)
        return Read(batch, reader.ids, imputed)
