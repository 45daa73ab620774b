r"""How sure an imputation is: mean, deviation and central intervals of the predictive distribution of each absent cell.

A draw takes :math:`z_k \sim q(z \mid x_S)`, then :math:`x_k \sim p(x_j \mid z_k)` with the spread of the likelihood: what is summarised is
:math:`p(x_j \mid x_S)`, in which observations are spread as well, and not the mean of :math:`p(x_j \mid z)` alone. Of m draws and
the truth, all from one distribution, each of the m + 1 ranks of the truth is equally likely, so the interval from the r-th draw to the
r-th from the end holds it with probability :math:`1 - 2 r / (m + 1)` exactly; r is the largest that keeps this at the level or above. A
model that was trained with ``conformal: true`` has the intervals of `nbridge.models.conformal` instead, which hold whatever the model is
worth.

Axes: K draws, L levels, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nbridge.common.randomness import reseed
from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.inference.impute import check_first, decode, part_seed, rows_at_a_time, serving, which_observed
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import check_draws
from nbridge.nn.likelihoods import Categorical, Likelihood

DRAWS = 399
"""Draws of each cell: central intervals of 50, 90, 95 and 99 % end at whole ranks of them."""
FIGURES = ("mean", "sd", "lower", "upper", "probability")
"""What a summary holds, of each modality some of it."""
BY_LEVEL = ("lower", "upper")
"""Those of them that have an axis of levels."""
_ROUNDING = 1e-9
"""How far a rank may lie below a whole number and still count as one: 1 - 0.9 is no round number."""


@dataclass(frozen=True)
class Summary:
    r"""Predictive distributions in a few figures. An observed cell has its own value, and a deviation of 0.

    Arguments:
        levels: The probabilities of the central intervals.
        mean: By modality, the mean, shape (B, \*shape).
        sd: The standard deviation, shape (B, \*shape).
        lower: The lower end of the interval of each level, shape (L, B, \*shape).
        upper: The upper ends.
        probability: Of modalities of classes, which have none of the above, the probability of each class, shape (B, C).
    """

    levels: tuple[float, ...]
    mean: dict[str, Tensor] = field(default_factory=dict)
    sd: dict[str, Tensor] = field(default_factory=dict)
    lower: dict[str, Tensor] = field(default_factory=dict)
    upper: dict[str, Tensor] = field(default_factory=dict)
    probability: dict[str, Tensor] = field(default_factory=dict)


def summarise(
    model: MultimodalVAE, batch: Batch, *, levels: Sequence[float] = (0.9,), draws: int = DRAWS, seed: int = 0, first: int = 0
) -> Summary:
    r"""Summarises :math:`p(x_j \mid x_S)` of every absent cell, from many draws of it.

    .. math:: p(x_j \mid x_S) = \mathbb{E}_{q(z \mid x_S)} [p(x_j \mid z)]

    Draws are made, summarised and dropped a few rows and one modality at a time: memory holds as many numbers as an imputation takes, or
    all draws of one row where these are more. Parts of rows have seeds of their own, by their place, as in `nbridge.Model.impute`.

    Arguments:
        model: A trained model.
        batch: Rows with any pattern of presence.
        levels: The probabilities of the central intervals, each between 0 and 1.
        draws: The number K of draws of each cell: 19 or more for 90 %, 39 or more for 95 %.
        seed: Seed of the draws.
        first: The number that the batch's first row has among all rows, a multiple of `nbridge.inference.impute.rows_at_a_time`.

    Raises:
        DataError: when a level is no probability or needs more draws, or the rows do not fit the model.

    Example:
        >>> import nbridge
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "top": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
        ...     "label": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> rows = nbridge.Batch.complete({"top": torch.randn(5, 4), "label": torch.tensor([0, 1, 2, 0, 1])})
        >>> known = summarise(model, rows.hide("top"), levels=(0.5, 0.9))
        >>> known.sd["top"].shape, known.lower["top"].shape, known.probability["label"][1]
        (torch.Size([5, 4]), torch.Size([2, 5, 4]), tensor([0., 1., 0.]))
    """
    levels = check_levels(levels, draws)
    if model.conformal is not None:
        check_draws(draws)
    model.check(batch)
    check_first(first, unit := rows_at_a_time(model))
    parts = []
    with serving(model, seed):
        for start, part in _parts(batch, unit, rows_at_a_time(model, draws)):
            reseed(part_seed(seed, first + start))
            parts.append(_summarise_rows(model, part, levels, draws))
    return Summary(
        levels,
        **{what: _joined([getattr(part, what) for part in parts], int(what in BY_LEVEL)) for what in FIGURES},
    )


def check_levels(levels: Sequence[float], draws: int) -> tuple[float, ...]:
    """Levels of intervals that so many draws can tell.

    Raises:
        DataError: when one is no probability, or needs more draws.

    Example:
        >>> check_levels([0.5, 0.9], 19)
        (0.5, 0.9)
    """
    require_positive(draws=draws)
    if not levels:
        raise DataError("intervals: no level, expected one or more, such as 0.9")
    for level in levels:
        if not 0 < level < 1:
            percent = f"; for {level:g} % write {level / 100:g}" if 1 < level < 100 else ""
            raise DataError(f"intervals: level {level:g}, expected a probability between 0 and 1, such as 0.9{percent}")
        if not _rank(level, draws):
            needed = math.ceil((1 - _ROUNDING) * 2 / (1 - level)) - 1
            raise DataError(f"intervals: level {level:g} needs {needed:,} draws or more, and draws is {draws:,}; raise it")
    return tuple(float(level) for level in levels)


def parse_levels(text: str) -> tuple[float, ...]:
    """Levels of intervals, of a text such as ``0.5,0.9``.

    Raises:
        DataError: when it holds something else than numbers.

    Example:
        >>> parse_levels("0.5,0.9")
        (0.5, 0.9)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"intervals {text}: expected probabilities between 0 and 1, such as 0.9 or 0.5,0.9") from error


def _parts(batch: Batch, unit: int, size: int) -> Iterator[tuple[int, Batch]]:
    """Rows with the number of their first one, cut wherever an imputation is cut, so that a file's blocks hold whole parts, and between."""
    rows = max(1, len(batch))
    for start in range(0, rows, unit):
        stop = min(start + unit, rows)
        for begin in range(start, stop, min(unit, size)):
            yield begin, batch.slice(begin, min(begin + size, stop))


def _joined(parts: Sequence[dict[str, Tensor]], axis: int) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts], axis) for name in parts[0]}


def _summarise_rows(model: MultimodalVAE, batch: Batch, levels: tuple[float, ...], draws: int) -> Summary:
    rows = batch.to(model.device)
    z, summary = model.posterior(rows, draws).sample(), Summary(levels)
    for name, likelihood in model.likelihoods.items():
        observed, given = which_observed(batch, name), batch.values.get(name)
        absent = ~observed.flatten(1).all(1) if observed.ndim > 1 else ~observed
        some = absent.to(z.device)
        z_some, number = z[:, some], model.given(name, rows)[some]
        if isinstance(likelihood, Categorical):
            probability = likelihood.expectation(model.decoder(name).served(z_some, number)).mean(0).to(batch.device)
            summary.probability[name] = _class_probabilities(likelihood, probability, given, absent)
            continue
        drawn = decode(model, name, z_some, number, noise=True).to(batch.device)
        conformal = model.conformal if model.conformal is not None and name in model.conformal.names else None
        ends = () if conformal is None else conformal.ends(name, likelihood, drawn, levels, number.to(batch.device))
        if given is not None:
            # In the units and at least the precision of what was given; never rounded to whole numbers, which would narrow intervals.
            like = given.to(torch.promote_types(given.dtype, drawn.dtype) if given.is_floating_point() else torch.float64)
            drawn, given, ends = likelihood.restore(drawn, like), like, tuple(likelihood.restore(end, like) for end in ends)
        for what, figure in {**figures_of(drawn, levels), **dict(zip(BY_LEVEL, ends, strict=False))}.items():
            own = None if given is None else torch.zeros_like(given) if what == "sd" else given
            getattr(summary, what)[name] = _among_observed(figure, int(what in BY_LEVEL), own, observed, absent)
    return summary


def figures_of(draws: Tensor, levels: Sequence[float]) -> dict[str, Tensor]:
    """``mean``, ``sd``, ``lower`` and ``upper`` of draws, shape (K, B, ...); the ends of L intervals come first.

    Arguments:
        draws: The draws.
        levels: The probabilities of the intervals, none of which needs more draws (see `check_levels`).
    """
    mean = draws.mean(0)
    # Not torch's own variance, which warns of rows that are none.
    variance = (draws - mean).square().sum(0) / (len(draws) - 1)
    # Torch takes more than ten times as long to sort on a CPU.
    ordered = torch.from_numpy(np.sort(draws.cpu().numpy(), axis=0)).to(draws.device)
    ranks = [_rank(level, len(draws)) for level in levels]
    lower, upper = ordered[[rank - 1 for rank in ranks]], ordered[[len(draws) - rank for rank in ranks]]
    return {"mean": mean, "sd": variance.sqrt(), "lower": lower, "upper": upper}


def _rank(level: float, draws: int) -> int:
    """The rank, from either end, of the draws that a central interval ends at; 0 when there are too few of them."""
    return math.floor((1 - level) / 2 * (draws + 1) + _ROUNDING)


def _among_observed(figure: Tensor, axis: int, own: Tensor | None, observed: Tensor, absent: Tensor) -> Tensor:
    """Figures of the absent rows, which are an axis of theirs, in the places of these rows, with those of observed cells in theirs."""
    filled = figure.new_zeros(*figure.shape[:axis], len(absent), *figure.shape[axis + 1 :])
    filled.index_copy_(axis, absent.nonzero()[:, 0], figure)
    if own is None:
        return filled
    return torch.where(observed.reshape(*observed.shape, *(1 for _ in own.shape[observed.ndim :])), own, filled)


def _class_probabilities(likelihood: Likelihood, some: Tensor, given: Tensor | None, absent: Tensor) -> Tensor:
    """Probabilities of the rows that are absent, and certainty about the others."""
    all_rows = some.new_zeros(len(absent), *some.shape[1:])
    if given is not None:
        all_rows = F.one_hot(likelihood.canonical(torch.where(absent.reshape(-1, *(1 for _ in given.shape[1:])), 0, given)), some.shape[-1])
    all_rows = all_rows.to(some)
    all_rows[absent] = some
    return all_rows
