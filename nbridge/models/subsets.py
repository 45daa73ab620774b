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
MOST = 10
"""Largest number of modalities for which something per subset, about a thousand of them, is feasible."""


def random_part(present: Tensor, least: int = 1) -> Tensor:
    """A random proper subset of the observed modalities of each row: boolean, shape (M, B), like ``present``.

    Sizes are uniform from ``least`` to one less than the number observed. The result for rows without such a subset is unspecified, but
    never more than is observed.
    """
    order = torch.where(present, randomness.rand(*present.shape, device=present.device), 2.0).argsort(0).argsort(0)
    size = least + randomness.rand(present.shape[1], device=present.device) * (present.sum(0) - least)
    return present & (order < size.floor())


def part_of_size(present: Tensor, size: Tensor) -> Tensor:
    """A random subset of given size of the observed modalities of each row, boolean, shape (M, B); all if there are no more.

    Arguments:
        present: Presence, boolean, shape (M, B).
        size: The sizes, integers, shape (B,).
    """
    order = torch.where(present, randomness.rand(*present.shape, device=present.device), 2.0).argsort(0).argsort(0)
    return present & (order < size)


def proper_subsets(names: Iterable[str], what: str = "an inference network") -> tuple[Subset, ...]:
    """The nonempty proper subsets, ordered by size.

    Arguments:
        names: The modalities.
        what: What each subset needs, for the error message.

    Raises:
        ValueError: if there are too many subsets.
    """
    names = tuple(names)
    if len(names) > MOST:
        raise ValueError(f"{len(names)} modalities need {what} for each of {2 ** len(names) - 1:,} subsets; at most {MOST} are supported")
    return tuple(subset for size in range(1, len(names)) for subset in combinations(names, size))
