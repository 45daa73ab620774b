"""Reads rows of any format into a batch, by the data binding of a model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nbridge.data.batch import Batch
from nbridge.data.source import open_data
from nbridge.inference.plan import match_keys, read_block
from nbridge.inference.served import Served


def read_batch(model: Served, rows: Any) -> tuple[Batch, np.ndarray | None]:
    """Reads rows into a batch; also returns their identifiers, if any.

    Raises:
        DataError: if the rows cannot be read or do not match the model.
    """
    if isinstance(rows, Batch):
        return rows, None
    source = open_data(rows, model.binding.own)
    with TemporaryDirectory() as scratch, source.blocks(model.binding, Path(scratch)) as reader:
        taken, _ = match_keys(reader.keys, reader.names, reader.noun)
        total = max(reader.layout(key).shape[0] for key in taken.values())
        (block,) = reader.blocks(taken.values(), 0, total, max(1, total))
        return read_block(block, taken, model.likelihoods), reader.ids
