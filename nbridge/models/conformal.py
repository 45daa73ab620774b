r"""Split-conformal intervals: scale factors that give central intervals their nominal coverage for any model.

In held-out calibration rows, each modality j is hidden and imputed from k of the other modalities. With the median m and the ends
:math:`m - \ell, m + u` of the central 68 % interval of `DRAWS` samples of each cell, its score is the distance of the true value from the
median in these half-widths,

.. math:: s = \begin{cases} (x - m) / u & x \geq m \\ (m - x) / \ell & x < m \end{cases}, \qquad
    \hat{\lambda} = \min \Big\{ \lambda : \sum_{i=1}^{n} \frac{1}{C_i} \sum_{c=1}^{C_i} 1[s_{ic} \leq \lambda] \geq (n + 1) \cdot
    \mathrm{level} \Big\}

with C cells in a row, and :math:`[m - \hat{\lambda} \ell, m + \hat{\lambda} u]` is the interval in a new row. If the new row and these n
rows are exchangeable, the expected share of its cells inside is at least the level, for any n and any model: this is conformal risk control
of the share of cells outside. For modalities of one cell it is split-conformal prediction with rank
:math:`\lceil (n + 1) \, \mathrm{level} \rceil`. Each pair of a modality and a number k has its own :math:`\hat{\lambda}`; if n is too small
for a level, the interval is the whole support.

References:
    | Conformalized Quantile Regression (Romano, Patterson & Candès, 2019), https://arxiv.org/abs/1905.03222
    | Conformal Risk Control (Angelopoulos, Bates, Fisch, Lei & Schuster, 2024), https://arxiv.org/abs/2208.02814

Axes: K samples, L levels, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nbridge.errors import DataError
from nbridge.nn.likelihoods import Bernoulli, Likelihood

DRAWS = 99
"""Number of samples per cell for the median and half-widths, both in fitting and in serving."""
RANKS = (16, 50, 84)
"""Ranks of the lower end, the median and the upper end among these samples."""
LEVEL_STEPS = 1000
"""Scales are stored for multiples of 1 / LEVELS; levels in between are rounded up."""
_EPSILON = 1e-30
"""Added to half-widths so that none is 0."""
_ROUNDING = 1e-9


class Conformal(nn.Module):
    """Scales of central intervals by modality, number of other modalities given, and level; infinite until fitted.

    Arguments:
        names: The modalities with intervals.
        numbers: The number of modalities of the model; 0 to ``numbers - 1`` others may be given.

    Example:
        >>> conformal = Conformal(["x"], 2)
        >>> conformal.fit("x", 1, torch.arange(1.0, 20.0)[:, None], torch.ones(19, 1, dtype=torch.bool))
        >>> conformal.scale("x", [0.5, 0.9, 0.99], torch.tensor([1, 0]))
        tensor([[10., inf],
                [18., inf],
                [inf, inf]])
    """

    def __init__(self, names: Iterable[str], numbers: int) -> None:
        super().__init__()
        self.names = tuple(names)
        for name in self.names:
            self.register_buffer(_buffer_name(name), torch.full((numbers, LEVEL_STEPS - 1), math.inf))

    def reset(self) -> None:
        """Resets all scales to infinity."""
        for name in self.names:
            self.get_buffer(_buffer_name(name)).fill_(math.inf)

    def fit(self, name: str, number: int, scores: Tensor, cells: Tensor) -> None:
        """Fits the scales of one modality for one number of other modalities given.

        Scores of the cells of held-out rows, and the mask of observed cells, both have the shape (B, C).
        """
        table = self.get_buffer(_buffer_name(name))
        weights = torch.where(cells, 1.0, 0.0).double()
        weights /= weights.sum(1, keepdim=True).clamp(min=1)
        ordered, order = scores[cells].sort()
        shares = weights[cells][order].cumsum(0)
        rows = int(cells.any(1).sum())
        levels = torch.arange(1, LEVEL_STEPS, device=shares.device, dtype=torch.float64) / LEVEL_STEPS
        # The appended infinity is for levels that no cumulative share reaches.
        first = torch.searchsorted(shares, (rows + 1) * levels - _ROUNDING)
        table[number] = torch.cat([ordered, ordered.new_full((1,), math.inf)])[first].to(table)

    def scale(self, name: str, levels: Sequence[float], given: Tensor) -> Tensor:
        """The scale of each row for each level, shape (L, B).

        ``given`` is the number of other modalities that each row is imputed from, shape (B,).
        """
        table = self.get_buffer(_buffer_name(name))
        scales = torch.cat([table, table.new_full((len(table), 1), math.inf)], 1)[given.to(table.device).clamp(max=len(table) - 1)]
        return scales[:, [min(math.ceil(level * LEVEL_STEPS - _ROUNDING), LEVEL_STEPS) - 1 for level in levels]].T

    def ends(self, name: str, likelihood: Likelihood, draws: Tensor, levels: Sequence[float], given: Tensor) -> tuple[Tensor, Tensor]:
        r"""The lower and upper ends of intervals, each of shape (L, B, \*shape), clipped to the support.

        At least `DRAWS` samples are in canonical form, shape (K, B, \*shape).
        """
        centre, below, above = _median_and_half_widths(likelihood, draws)
        scale = self.scale(name, levels, given).to(centre).reshape(len(levels), -1, *(1 for _ in centre.shape[1:]))
        low, high = (getattr(likelihood.support, end, None) for end in ("lower_bound", "upper_bound"))
        lower, upper = centre - scale * below, centre + scale * above
        return (lower if low is None else lower.clamp(min=low)), (upper if high is None else upper.clamp(max=high))


def has_intervals(likelihood: Likelihood) -> bool:
    """Whether cells of a likelihood have intervals: those of real values and counts do, but not columns of several kinds."""
    return likelihood.elementwise and not isinstance(likelihood, Bernoulli) and not likelihood.partly


def check_draws(draws: int) -> None:
    """Checks that there are enough samples for conformal intervals.

    Raises:
        DataError: if there are not.
    """
    if draws < DRAWS:
        raise DataError(f"draws is {draws}, but the conformal intervals of this model need at least {DRAWS}")


def scores(likelihood: Likelihood, draws: Tensor, x: Tensor) -> Tensor:
    r"""Conformity scores: distances from the median in half-widths of the central 68 % interval, shape (B, \*shape).

    Samples, shape (K, B, \*shape), and values, shape (B, \*shape), are in canonical form.
    """
    centre, below, above = _median_and_half_widths(likelihood, draws)
    return torch.where(x >= centre, (x - centre) / above, (centre - x) / below)


def _median_and_half_widths(likelihood: Likelihood, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The median and both half-widths, which are at least one step for discrete values so that they are positive."""
    ordered = torch.from_numpy(np.sort(draws[:DRAWS].cpu().numpy(), axis=0)).to(draws.device)
    lower, centre, upper = (ordered[rank - 1] for rank in RANKS)
    least = likelihood.resolution + _EPSILON
    return centre, centre - lower + least, upper - centre + least


def _buffer_name(name: str) -> str:
    return f"of_{name}"
