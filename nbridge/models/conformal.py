r"""Split-conformal intervals: what central intervals must be scaled by to hold their share of values, whatever the model made of them.

Rows that nothing was fitted to have each modality j hidden and are served from k of their other modalities. With the median m and the ends
:math:`m - \ell, m + u` of the central 68 % interval of `DRAWS` draws of each cell, its score is the distance of the true value from the
median in these half-widths,

.. math:: s = \begin{cases} (x - m) / u & x \geq m \\ (m - x) / \ell & x < m \end{cases}, \qquad
    \hat{\lambda} = \min \Big\{ \lambda : \sum_{i=1}^{n} \frac{1}{C_i} \sum_{c=1}^{C_i} 1[s_{ic} \leq \lambda] \geq (n + 1) \cdot
    \mathrm{level} \Big\}

with C cells in a row, and :math:`[m - \hat{\lambda} \ell, m + \hat{\lambda} u]` the interval of a new row. If the new row and these n rows
are exchangeable, the expected share of its cells inside is at least the level, for any n and any model: conformal risk control of the share
of cells outside. For modalities of one cell it is split-conformal prediction with rank :math:`\lceil (n + 1) \, \mathrm{level} \rceil`.
Each pair of a modality and a number k has its own :math:`\hat{\lambda}`; where n is too small for a level, the interval has no ends but
those of the support.

References:
    | Conformalized Quantile Regression (Romano, Patterson & Candès, 2019), https://arxiv.org/abs/1905.03222
    | Conformal Risk Control (Angelopoulos, Bates, Fisch, Lei & Schuster, 2024), https://arxiv.org/abs/2208.02814

Axes: K draws, L levels, B rows.
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
"""Draws of each cell that a median and half-widths are taken from, in fitting and in serving alike."""
RANKS = (16, 50, 84)
"""Ranks of the lower end, the median and the upper end among these draws."""
LEVELS = 1000
"""One over the distance of the levels that scales are kept for; a level between two of them takes the higher one."""
_LEAST = 1e-30
"""Added to half-widths, so that none is zero."""
_ROUNDING = 1e-9


class Conformal(nn.Module):
    """Scales of central intervals by modality, number of other modalities given, and level; infinite until they are fitted.

    Arguments:
        names: The modalities that have intervals.
        numbers: The number of modalities of the model, from 0 to one less of which may be given beside one of them.

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
            self.register_buffer(_key(name), torch.full((numbers, LEVELS - 1), math.inf))

    def reset(self) -> None:
        """Forgets all scales."""
        for name in self.names:
            self.get_buffer(_key(name)).fill_(math.inf)

    def fit(self, name: str, number: int, scores: Tensor, cells: Tensor) -> None:
        """Takes the scales of one modality for one number of others given.

        Arguments:
            name: The modality.
            number: How many other modalities rows were served from.
            scores: Scores of the cells of rows that nothing was fitted to, shape (B, C).
            cells: Which of them were observed, boolean, shape (B, C).
        """
        table = self.get_buffer(_key(name))
        weights = torch.where(cells, 1.0, 0.0).double()
        weights /= weights.sum(1, keepdim=True).clamp(min=1)
        ordered, places = scores[cells].sort()
        shares = weights[cells][places].cumsum(0)
        rows = int(cells.any(1).sum())
        levels = torch.arange(1, LEVELS, device=shares.device, dtype=torch.float64) / LEVELS
        # No share reaches the last place: there the scale is infinite.
        first = torch.searchsorted(shares, (rows + 1) * levels - _ROUNDING)
        table[number] = torch.cat([ordered, ordered.new_full((1,), math.inf)])[first].to(table)

    def scale(self, name: str, levels: Sequence[float], given: Tensor) -> Tensor:
        """The scales of rows for the levels, shape (L, B).

        Arguments:
            name: The modality.
            levels: Probabilities of intervals.
            given: How many other modalities each row was served from, shape (B,).
        """
        table = self.get_buffer(_key(name))
        scales = torch.cat([table, table.new_full((len(table), 1), math.inf)], 1)[given.to(table.device).clamp(max=len(table) - 1)]
        return scales[:, [min(math.ceil(level * LEVELS - _ROUNDING), LEVELS) - 1 for level in levels]].T

    def ends(self, name: str, likelihood: Likelihood, draws: Tensor, levels: Sequence[float], given: Tensor) -> tuple[Tensor, Tensor]:
        r"""The ends of intervals, each of shape (L, B, \*shape), within the support.

        Arguments:
            name: The modality.
            likelihood: Its likelihood.
            draws: Draws in canonical form, shape (K, B, \*shape), `DRAWS` of them or more.
            levels: Probabilities of the intervals.
            given: How many other modalities each row was served from, shape (B,).
        """
        centre, below, above = _centre(likelihood, draws)
        scale = self.scale(name, levels, given).to(centre).reshape(len(levels), -1, *(1 for _ in centre.shape[1:]))
        low, high = (getattr(likelihood.support, end, None) for end in ("lower_bound", "upper_bound"))
        lower, upper = centre - scale * below, centre + scale * above
        return (lower if low is None else lower.clamp(min=low)), (upper if high is None else upper.clamp(max=high))


def has_intervals(likelihood: Likelihood) -> bool:
    """Whether a likelihood is one of real values or counts, whose cells may have an interval each."""
    return likelihood.elementwise and not isinstance(likelihood, Bernoulli)


def check_draws(draws: int) -> None:
    """Checks that there are enough draws for conformal intervals.

    Raises:
        DataError: when they cannot.
    """
    if draws < DRAWS:
        raise DataError(f"draws is {draws}, and the conformal intervals of this model take {DRAWS} draws or more; raise it")


def scores(likelihood: Likelihood, draws: Tensor, x: Tensor) -> Tensor:
    r"""How far values are from the median of their draws, in half-widths of the central 68 % interval, shape (B, \*shape).

    Arguments:
        likelihood: The likelihood.
        draws: Draws in canonical form, shape (K, B, \*shape).
        x: Values in canonical form, shape (B, \*shape).
    """
    centre, below, above = _centre(likelihood, draws)
    return torch.where(x >= centre, (x - centre) / above, (centre - x) / below)


def _centre(likelihood: Likelihood, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Median and half-widths to both sides; at least one step where values are discrete, so that certainty has a width as well."""
    ordered = torch.from_numpy(np.sort(draws[:DRAWS].cpu().numpy(), axis=0)).to(draws.device)
    lower, centre, upper = (ordered[rank - 1] for rank in RANKS)
    least = likelihood.resolution + _LEAST
    return centre, centre - lower + least, upper - centre + least


def _key(name: str) -> str:
    return f"of_{name}"
