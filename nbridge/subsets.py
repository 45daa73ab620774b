"""Parts of what rows have: which modalities are given, and which are to be said.

Axes: V subsets, M modalities, B rows.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor


def random_part(present: Tensor, least: int = 1) -> Tensor:
    """Of what each row has, a part of random size, not all of it: boolean, shape (M, B), as presence is.

    Sizes are drawn evenly from ``least`` up to one less than all; a row that has no such part gives something else, at most all it has.
    """
    order = torch.where(present, torch.rand(present.shape, device=present.device), 2.0).argsort(0).argsort(0)
    size = least + torch.rand(present.shape[1], device=present.device) * (present.sum(0) - least)
    return present & (order < size.floor())


def all_parts(number: int, least: int, device: torch.device) -> Tensor:
    """Every part of so many modalities but all of them, of so many members at least: boolean, shape (V, M), the small ones first."""
    parts = [part for size in range(least, number) for part in combinations(range(number), size)]
    members = torch.zeros(len(parts), number, dtype=torch.bool)
    for row, part in enumerate(parts):
        members[row, list(part)] = True
    return members.to(device)
