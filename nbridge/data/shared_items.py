"""Finds identical items of a modality shared by several rows, such as one photograph paired with several recordings."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.data.split_labels import RowLabels

AT_ONCE = 4096
"""Number of rows read at a time."""
ELEMENTS = 4
"""Minimum number of elements for equal items to count as the same thing."""
FEWEST = 10
"""Minimum number of distinct items; fewer are classes, not groups that could be held out."""
BY_CHANCE = 0.01
"""Maximum number of pairs of rows expected to agree by chance for repeats to be reported."""


def item_labels(rows: Rows, name: str, *, plain: bool = True) -> RowLabels:
    """A label for each row, equal for rows with the same values and observed cells.

    Arguments:
        rows: The rows, in memory or on disk.
        name: The modality; rows that lack it get labels of their own.
        plain: Whether to also label items whose elements are all equal.
    """
    texts: list[str] = []
    alone = rows.select(name)
    for start in range(0, len(rows), AT_ONCE):
        batch = alone.slice(start, min(start + AT_ONCE, len(rows)))
        values, present = spelt(batch, name).cpu().numpy(), batch.present[name].cpu().numpy()
        texts += item_digests(values, present if plain else present & ~plain_items(values))
    return RowLabels(f"modality {name!r}", texts, alone=True)


def item_digests(values: np.ndarray, present: np.ndarray) -> list[str]:
    """A hash of each row; empty where absent.

    Arguments:
        values: The rows, :math:`(N, ...)`, NaN where a cell is absent.
        present: Which rows are present, :math:`(N,)`.
    """
    # Negative zero equals zero, and NaN has many bit patterns.
    plain = np.where(np.isnan(values), np.nan, values) + 0.0 if values.dtype.kind == "f" else values
    rows = np.ascontiguousarray(plain.reshape(len(plain), -1))
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() if there else "" for row, there in zip(rows, present, strict=True)]


def telling(values: np.ndarray) -> bool:
    r"""Whether rows equal in all elements are the same item rather than equal by chance.

    Assuming independent elements, two rows agree with probability :math:`\prod_j \sum_v p_j(v)^2`; the expected number of pairs must
    be below `BY_CHANCE`. Vectors of few elements, or of few distinct values, repeat by chance.

    Arguments:
        values: Rows that are present, :math:`(N, ...)`, NaN where a cell is absent.
    """
    rows = values.reshape(len(values), -1)
    if rows.shape[1] < ELEMENTS or len(rows) < 2:
        return False
    logs = np.log(len(rows)) + np.log(len(rows) - 1) - np.log(2)
    for element in rows.T:
        counts = np.unique(element, return_counts=True)[1]
        logs += np.log(((counts / len(element)) ** 2).sum())
        if logs < np.log(BY_CHANCE):
            return True
    return False


def plain_items(values: np.ndarray) -> np.ndarray:
    """Rows whose elements are all equal, :math:`(N,)` booleans: a blank image or all-zero counts identify nothing."""
    rows = values.reshape(len(values), -1)
    return np.asarray((np.isnan(rows) | (rows == rows[:, :1])).all(axis=1) if rows.dtype.kind == "f" else (rows == rows[:, :1]).all(axis=1))


def spelt(batch: Batch, name: str) -> Tensor:
    """Values with NaN in unobserved cells."""
    values = batch.values[name]
    return torch.where(batch.cells[name], values, torch.nan) if name in batch.cells else values
