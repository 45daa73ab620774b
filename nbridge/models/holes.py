"""Random holes in the observed columns of partly observed modalities, to measure how well single cells are imputed from the others.

Axes: B rows, W elements, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Likelihood

SHARE = 0.2
"""Share of the observed columns of a row that is hidden in validation, calibration and evaluation."""


def partly(model: MultimodalVAE) -> tuple[str, ...]:
    """The modalities whose cells are imputed from their other cells (`nbridge.Likelihood.partly`)."""
    return tuple(name for name, likelihood in model.likelihoods.items() if likelihood.partly)


def observed_elements(batch: Batch, name: str) -> Tensor:
    """The observed elements of a modality of one axis, boolean, shape (B, W)."""
    observed = batch.present[name][:, None].expand(batch.values[name].shape)
    return observed & batch.cells[name] if name in batch.cells else observed


def random_holes(likelihood: Likelihood, observed: Tensor, share: float = SHARE) -> Tensor:
    """The elements to hide, boolean, shape (B, W): a share of the observed columns of each row, at least one, but never all.

    Rows with fewer than two observed columns have none.

    Arguments:
        likelihood: A likelihood of columns.
        observed: The observed elements, boolean, shape (B, W).
        share: The share of columns to hide.
    """
    columns = columns_of(likelihood).to(observed.device)
    number = int(columns.max()) + 1
    seen = torch.zeros(len(observed), number, device=observed.device).index_add(1, columns, observed.float()) > 0
    drawn = torch.where(seen, randomness.rand(len(observed), number, device=observed.device), 2.0)
    rank, total = drawn.argsort(1).argsort(1), seen.sum(1, keepdim=True)
    wanted = (share * total + randomness.rand(len(observed), 1, device=observed.device)).floor()
    wanted = wanted.clamp(min=1).minimum(total - 1)
    return ((rank < wanted) & seen).index_select(1, columns) & observed


def with_holes(batch: Batch, holes: Mapping[str, Tensor]) -> Batch:
    """The rows with these elements of modalities marked absent."""
    cells = dict(batch.cells)
    for name, hidden in holes.items():
        cells[name] = observed_elements(batch, name) & ~hidden
    return replace(batch, cells=cells)


def columns_of(likelihood: Likelihood) -> Tensor:
    """The number of the column of each element, shape (W,); by default each element is a column."""
    column_of = getattr(likelihood, "column_of", None)
    return torch.arange(likelihood.shape[0]) if column_of is None else column_of
