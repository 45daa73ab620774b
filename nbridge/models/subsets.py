"""Subsets of modalities, and parts of what rows have.

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
"""Modalities up to which something for each subset, a thousand of them, can be had at all."""


def random_part(present: Tensor, least: int = 1) -> Tensor:
    """Of what each row has, a part of random size, not all of it: boolean, shape (M, B), as presence is.

    Sizes are drawn evenly from ``least`` up to one less than all; a row that has no such part gives something else, at most all it has.
    """
    order = torch.where(present, randomness.rand(*present.shape, device=present.device), 2.0).argsort(0).argsort(0)
    size = least + randomness.rand(present.shape[1], device=present.device) * (present.sum(0) - least)
    return present & (order < size.floor())


def part_of_size(present: Tensor, size: Tensor) -> Tensor:
    """Of what each row has, a random part of a given size, boolean, shape (M, B), as presence is; all of it where it has no more.

    Arguments:
        present: Presence, boolean, shape (M, B).
        size: The sizes, integers, shape (B,).
    """
    order = torch.where(present, randomness.rand(*present.shape, device=present.device), 2.0).argsort(0).argsort(0)
    return present & (order < size)


def proper_subsets(names: Iterable[str], what: str = "an inference network") -> tuple[Subset, ...]:
    """The nonempty proper subsets, the small ones first.

    Arguments:
        names: The modalities.
        what: What each subset takes, for the message.

    Raises:
        ValueError: when there are too many to have that for each.
    """
    names = tuple(names)
    if len(names) > MOST:
        raise ValueError(f"{len(names)} modalities take {what} for each of {2 ** len(names) - 1:,} subsets; at most {MOST} are served")
    return tuple(subset for size in range(1, len(names)) for subset in combinations(names, size))
