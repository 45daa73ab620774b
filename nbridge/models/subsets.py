"""Subsets of modalities, and random subsets of the observed modalities of rows.

Axes: M modalities, B rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import torch
from torch import Tensor

from nbridge.common import randomness

Subset = tuple[str, ...]
MAX_MODALITIES = 10
"""Largest number of modalities for which something per subset, about a thousand of them, is feasible."""


def random_subset(present: Tensor, least: int = 1) -> Tensor:
    """A random proper subset of the observed modalities of each row: boolean, shape (M, B), like ``present``.

    Sizes are uniform from ``least`` to one less than the number observed. The result for rows without such a subset is unspecified, but
    never more than is observed.
    """
    order = _random_order(present)
    size = least + randomness.rand(present.shape[1], device=present.device) * (present.sum(0) - least)
    return present & (order < size.floor())


def random_subset_of_size(present: Tensor, size: Tensor) -> Tensor:
    """A random subset of given size of the observed modalities of each row, boolean, shape (M, B); all if there are no more.

    Sizes have shape (B,).
    """
    return present & (_random_order(present) < size)


def _random_order(present: Tensor) -> Tensor:
    """A random rank of each modality within its row, shape (M, B), the observed ones first."""
    return torch.where(present, randomness.rand(*present.shape, device=present.device), 2.0).argsort(0).argsort(0)


def proper_subsets(names: Iterable[str], what: str = "an inference network") -> tuple[Subset, ...]:
    """The nonempty proper subsets, ordered by size.

    Raises:
        ValueError: if there are too many subsets.
    """
    names = tuple(names)
    if len(names) > MAX_MODALITIES:
        needed = f"{len(names)} modalities need {what} for each of {2 ** len(names) - 1:,} subsets"
        raise ValueError(f"{needed}; at most {MAX_MODALITIES} are supported")
    return tuple(subset for size in range(1, len(names)) for subset in combinations(names, size))
