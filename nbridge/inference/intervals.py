r"""Predictive uncertainty: mean, standard deviation and central intervals of each missing cell.

A sample is :math:`z_k \sim q(z \mid x_S)`, then :math:`x_k \sim p(x_j \mid z_k)`, so the summaries describe :math:`p(x_j \mid x_S)`,
including the spread of the likelihood, rather than the mean of :math:`p(x_j \mid z)` alone. If m samples and the true value come from the
same distribution, all m + 1 ranks of the true value are equally likely, so the interval from the r-th smallest to the r-th largest sample
contains it with probability exactly :math:`1 - 2 r / (m + 1)`; r is the largest number for which this is at least the level. A model
trained with ``conformal: true`` has the intervals of `nbridge.models.conformal` instead, which are valid for any model.

Classes have no order and no intervals. Elements of mixed modalities that are binary or classes, one-hot, have probabilities as their means,
which sum to 1 for each class column; where they are imputed, the ends of their intervals are NaN.

Axes: K samples, L levels, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nbridge.common.randomness import reseed
from nbridge.data.batch import Batch
from nbridge.data.imputed import BY_LEVEL, STATISTICS, Summary
from nbridge.errors import DataError, require_positive
from nbridge.inference.impute import check_first, check_size, own_covariates, part_seed, rows_at_a_time, serving, which_observed
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import check_draws
from nbridge.nn.likelihoods import Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text

DRAWS = 399
"""Number of samples per cell: the ends of central intervals of 50, 90, 95 and 99 % are whole ranks of them."""
_ROUNDING = 1e-9
"""Tolerance in rounding ranks down: 1 - 0.9 is not exact."""


def summarise(
    model: MultimodalVAE, batch: Batch, *, levels: Sequence[float] = (0.9,), draws: int = DRAWS, seed: int = 0, first: int = 0,
    covariates: Mapping[str, Tensor] | None = None,
) -> Summary[Tensor]:  # fmt: skip
    r"""Summarises :math:`p(x_j \mid x_S)` of every missing cell, from samples.

    .. math:: p(x_j \mid x_S) = \mathbb{E}_{q(z \mid x_S)} [p(x_j \mid z)]

    Samples are drawn and summarised a few rows and one modality at a time, so that memory is bounded as in imputation, or by the samples of
    one row if these are more. Chunks of rows have their own seeds, by position, as in `nbridge.Model.impute`.

    Options are those of `nbridge.Model.impute`. A level of 90 % needs at least 19 samples per cell, 95 % needs 39.

    Raises:
        DataError: if a level is not a probability or needs more samples, or the rows do not match the model.

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
    batch = own_covariates(model, batch, covariates)
    model.check(batch)
    check_size(model, "draws", draws)
    check_first(first, unit := rows_at_a_time(model))
    parts = []
    with serving(model, seed):
        for start, part in _parts(batch, unit, rows_at_a_time(model, draws)):
            reseed(part_seed(seed, first + start))
            parts.append(_summarise_rows(model, part, levels, draws, covariates or {}))
    return Summary(levels, **{what: _joined([getattr(part, what) for part in parts], int(what in BY_LEVEL)) for what in STATISTICS})


def check_levels(levels: Sequence[float], draws: int) -> tuple[float, ...]:
    """Checks the levels of intervals, and returns them as floats.

    Raises:
        DataError: if there is none, or one is not a probability or needs more samples.

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
            raise DataError(f"intervals: level {level:g} needs at least {needed:,} draws, got {draws:,}")
    return tuple(float(level) for level in levels)


def parse_levels(text: str) -> tuple[float, ...]:
    """Parses levels of intervals, such as ``0.5,0.9``.

    Raises:
        DataError: if they are not numbers.

    Example:
        >>> parse_levels("0.5,0.9")
        (0.5, 0.9)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"intervals {text}: expected probabilities between 0 and 1, such as 0.9 or 0.5,0.9") from error


def _parts(batch: Batch, unit: int, size: int) -> Iterator[tuple[int, Batch]]:
    """Chunks of rows, each with the number of its first row; none crosses the bounds of the chunks of `impute`."""
    rows = max(1, len(batch))
    for start in range(0, rows, unit):
        stop = min(start + unit, rows)
        for begin in range(start, stop, min(unit, size)):
            yield begin, batch.slice(begin, min(begin + size, stop))


def _joined(parts: Sequence[dict[str, Tensor]], axis: int) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts], axis) for name in parts[0]}


def _summarise_rows(
    model: MultimodalVAE, batch: Batch, levels: tuple[float, ...], draws: int, covariates: Mapping[str, Tensor]
) -> Summary[Tensor]:
    rows = batch.to(model.device)
    decoded = rows.with_covariates(covariates) if covariates else rows
    z, summary = model.posterior(rows, draws).sample(), Summary[Tensor](levels)
    for name, likelihood in model.likelihoods.items():
        observed, given = which_observed(batch, name), batch.values.get(name)
        absent = ~observed.flatten(1).all(1) if observed.ndim > 1 else ~observed
        some = absent.to(z.device)
        z_some, number, decoder = z[:, some], model.given(name, rows)[some], model.decoder_of(name, decoded).index(some)
        if isinstance(likelihood, Categorical):
            probability = likelihood.expectation(decoder.served(z_some, number)).mean(0).to(batch.device)
            summary.probability[name] = _class_probabilities(likelihood, probability, given, absent)
            continue
        if isinstance(likelihood, Text):
            # A text has no mean, and no order in which an interval could end.
            continue
        distribution = decoder.served(z_some, number)
        drawn = distribution.sample().to(batch.device)
        conformal = model.conformal if model.conformal is not None and name in model.conformal.names else None
        ends = () if conformal is None else conformal.ends(name, likelihood, drawn, levels, number.to(batch.device))
        if given is not None:
            # In the units and at least the precision of observed values, but not rounded to integers, which would narrow intervals.
            like = given.to(torch.promote_types(given.dtype, drawn.dtype) if given.is_floating_point() else torch.float64)
            drawn, given, ends = likelihood.restore(drawn, like), like, tuple(likelihood.restore(end, like) for end in ends)
        found = {**statistics_of(drawn, levels), **dict(zip(BY_LEVEL, ends, strict=False))}
        if isinstance(likelihood, Mixed):
            probability = likelihood.expectation(distribution).mean(0).to(found["mean"])
            found |= _of_questions(found, probability, questions_of(likelihood).to(batch.device))
        for what, statistic in found.items():
            own = None if given is None else torch.zeros_like(given) if what == "sd" else given
            getattr(summary, what)[name] = _among_observed(statistic, int(what in BY_LEVEL), own, observed, absent)
        if name in summary.probability and isinstance(likelihood, Mixed):
            # Observed numbers as well.
            summary.probability[name][..., ~questions_of(likelihood)] = math.nan
    return summary


def questions_of(likelihood: Mixed) -> Tensor:
    """The elements of a mixed modality that are binary or one of several classes, one-hot, boolean, shape (W,)."""
    return torch.tensor([kind.binary or kind.width > 1 for kind in likelihood.kinds.values() for _ in range(kind.width)])


def _of_questions(found: Mapping[str, Tensor], probability: Tensor, questions: Tensor) -> dict[str, Tensor]:
    """Statistics in which those of questions follow from their probabilities, shape (B, W), instead of draws; empty without questions."""
    if not questions.any():
        return {}
    spread = (probability * (1 - probability)).clamp(min=0).sqrt()
    ends = {what: found[what].masked_fill(questions, math.nan) for what in BY_LEVEL}
    mean, sd = (torch.where(questions, own, found[what]) for what, own in (("mean", probability), ("sd", spread)))
    return {"mean": mean, "sd": sd, **ends, "probability": probability}


def statistics_of(draws: Tensor, levels: Sequence[float]) -> dict[str, Tensor]:
    """``mean``, ``sd``, ``lower`` and ``upper`` of samples, shape (K, B, ...); interval ends have a leading axis of L levels.

    K must be sufficient for the levels (see `check_levels`).
    """
    mean = draws.mean(0)
    # Not torch.var, which warns if there are no rows.
    variance = (draws - mean).square().sum(0) / (len(draws) - 1)
    # Sorting with torch on a CPU takes more than ten times as long.
    ordered = torch.from_numpy(np.sort(draws.cpu().numpy(), axis=0)).to(draws.device)
    ranks = [_rank(level, len(draws)) for level in levels]
    lower, upper = ordered[[rank - 1 for rank in ranks]], ordered[[len(draws) - rank for rank in ranks]]
    return {"mean": mean, "sd": variance.sqrt(), "lower": lower, "upper": upper}


def _rank(level: float, draws: int) -> int:
    """The rank, from either end, of the samples at which a central interval ends; 0 if there are too few samples."""
    return math.floor((1 - level) / 2 * (draws + 1) + _ROUNDING)


def _among_observed(figure: Tensor, axis: int, own: Tensor | None, observed: Tensor, absent: Tensor) -> Tensor:
    """Scatters the figures of missing rows, along the axis of rows, to all rows, and fills in the values of observed cells."""
    filled = figure.new_zeros(*figure.shape[:axis], len(absent), *figure.shape[axis + 1 :])
    filled.index_copy_(axis, absent.nonzero()[:, 0], figure)
    if own is None:
        return filled
    return torch.where(observed.reshape(*observed.shape, *(1 for _ in own.shape[observed.ndim :])), own, filled)


def _class_probabilities(likelihood: Likelihood, some: Tensor, given: Tensor | None, absent: Tensor) -> Tensor:
    """Class probabilities of all rows: one-hot for observed ones."""
    all_rows = some.new_zeros(len(absent), *some.shape[1:])
    if given is not None:
        all_rows = F.one_hot(likelihood.canonical(torch.where(absent.reshape(-1, *(1 for _ in given.shape[1:])), 0, given)), some.shape[-1])
    all_rows = all_rows.to(some)
    all_rows[absent] = some
    return all_rows
