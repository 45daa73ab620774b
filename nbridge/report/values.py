r"""Imputed values: scatter plots of imputed against true values, and coverage of central intervals.

Elements differ in their units, so each is shown in standard deviations of its true values over these rows; a modality of one element
keeps its own units. The share of explained variance is

.. math:: R^2 = 1 - \frac{\sum (x - \hat x)^2}{\sum (x - \bar x)^2}

with :math:`\hat x` the mean of draws of :math:`p(x_j \mid x_S)` given all other modalities, and :math:`\bar x` the mean of the element's
true values.

Axes: K samples, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import torch
from torch import Generator, Tensor

from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import Bin, coverage, observed_cells, reliability, row_chunks
from nbridge.inference.impute import serving
from nbridge.nn.likelihoods import Bernoulli
from nbridge.nn.mixed import Mixed
from nbridge.report.axes import Axis
from nbridge.report.charts import Line, calibration_curve, scatter
from nbridge.report.distributions import KEY, density
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, table
from nbridge.visual.modality_kinds import is_image

DRAWS = 49
"""Draws per cell; with this number, the intervals of all levels below end at whole ranks."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)
"""Probabilities of the central intervals."""
TABLE_LEVEL = 0.9
"""The level shown in the table."""
CELLS, POINTS = 20_000, 500
"""Maximum numbers of cells for statistics and in a chart, drawn at random."""
NUMBERS, FEWEST = 100_000_000, 30
"""Approximate maximum number of values drawn for a modality, which limits the rows of wide ones, and the minimum number of rows."""
BINS, MIN_PREDICTIONS = 10, 20
"""Number of bins of predicted probabilities, and minimum number of predictions per point of a chart."""


CALIBRATION_NOTE = "Perfect calibration is the dashed line. Below it the model is overconfident, above it underconfident."
"""How to read a calibration curve."""
BAND_NOTE = (
    "The band is where 95 % of such figures of a calibrated model are, as if each row, or each cell of a column, were one independent "
    "prediction."
)
"""How to read the band of a calibration curve."""
KEPT_DRAWS = 4
"""Draws per cell kept for the distribution of imputed values."""
NORMAL = 1.96
"""Half length of a 95 % interval, in standard errors."""


@dataclass(frozen=True)
class Imputed:
    r"""Values of one modality, imputed from all others.

    Arguments:
        true: True values of a sample of N cells, shape (N,), in standard deviations or in the units of the data.
        guess: The means of their predictive distributions, shape (N,).
        own_units: Whether both are in the units of the data.
        explained: The share :math:`R^2` of explained variance.
        covered: The share of cells inside the central interval of each level.
        draws: Some draws of each cell, in the same units, shape (K, N).
        whole: Whether values are whole numbers in the units of the data.
    """

    name: str
    rows: int
    cells: int
    true: Tensor
    guess: Tensor
    own_units: bool
    explained: float
    covered: dict[float, float]
    draws: Tensor
    whole: bool = False


@dataclass(frozen=True)
class Binary:
    """Binary elements of one modality, predicted from all others.

    The share ``common`` is the mean over elements of that of the more frequent value.
    """

    name: str
    rows: int
    cells: int
    accuracy: float
    common: float
    bins: tuple[Bin, ...]


def section(data: RunData) -> Iterator[Element]:
    """A scatter plot and a calibration curve for each modality of values, a calibration curve for each binary one."""
    loaded = data.model_and_rows
    found = [one for name in loaded.model.names if (one := measured(loaded, name)) is not None]
    values, binary = [one for one in found if isinstance(one, Imputed)], [one for one in found if isinstance(one, Binary)]
    if not found:
        raise SectionSkipped("no non-image modality of real values, counts or binary values with other modalities to impute it from")
    yield paragraph(f"Each modality from all others, with {DRAWS} draws per cell, on rows of the {loaded.split} split.", quiet=True)
    if values:
        headings = ("modality", "rows", "cells", "variance explained", f"in {TABLE_LEVEL:.0%} intervals")
        lines = [(one.name, f"{one.rows:,}", f"{one.cells:,}", f"{one.explained:.3f}", f"{one.covered[TABLE_LEVEL]:.1%}") for one in values]
        yield table("Imputed values", headings, lines)
    if binary:
        headings = ("modality", "rows", "cells", "accuracy", "more frequent value")
        rows = [(one.name, f"{one.rows:,}", f"{one.cells:,}", f"{one.accuracy:.3f}", f"{one.common:.3f}") for one in binary]
        yield table("Imputed binary values", headings, rows)
    if values:
        yield element("h3", "Imputed against true values")
        yield element("div", *map(_scatter, values), class_="charts")
        yield element("h3", "Imputed and observed distributions")
        yield paragraph(KEY, quiet=True)
        yield element("div", *map(_density, values), class_="charts")
    yield element("h3", "Calibration")
    yield paragraph(f"{CALIBRATION_NOTE} {BAND_NOTE}", quiet=True)
    curves = (probabilities(one.name, one.bins, "share of ones, %", "predicted probability, %") for one in binary)
    yield element("div", *map(_intervals, values), *curves, class_="charts")


def measured(loaded: ModelAndRows, name: str) -> Imputed | Binary | None:
    """Imputes one modality from all others; None if it is an image, categorical or mixed, or no row can be used."""
    model, batch = loaded.model, loaded.few
    likelihood = model.likelihoods[name]
    if not likelihood.elementwise or is_image(model, name) or isinstance(likelihood, Mixed):
        return None
    others = [batch.present[other] for other in batch.names if other != name]
    rows = batch.index(batch.present[name] & torch.stack(others).any(0)) if others else batch.slice(0, 0)
    rows = rows.slice(0, max(FEWEST, NUMBERS // (DRAWS * math.prod(likelihood.shape))))
    cells = observed_cells(rows, name)
    if not cells.any():
        return None
    return _binary(loaded, rows, name, cells) if isinstance(likelihood, Bernoulli) else _imputed(loaded, rows, name, cells)


def _imputed(loaded: ModelAndRows, rows: Batch, name: str, cells: Tensor) -> Imputed | None:
    likelihood = loaded.model.likelihoods[name]
    true = likelihood.point(likelihood.canonical(rows.values[name])).double()
    mean, sd = _moments(true, cells)
    # A constant element has no standard deviation to scale by and no variance to explain.
    picked = _some(cells & (sd > 0), loaded.seed)
    if not picked.any():
        return None
    draws = torch.cat([draws[:, part] for draws, part in _draws(loaded, rows, name, picked)], 1).cpu()
    x, mean, sd = (part.expand_as(true)[picked].cpu() for part in (true, mean, sd))
    guess = draws.double().mean(0)
    explained = 1 - ((guess - x) / sd).square().sum().item() / ((x - mean) / sd).square().sum().item()
    covered = {level: coverage(draws, x.to(draws), level).mean().item() for level in LEVELS}
    if own := true[0].numel() == 1:
        whole = bool((x == x.round()).all())
        return Imputed(name, len(rows), int(cells.sum()), x, guess, own, explained, covered, draws[:KEPT_DRAWS].double(), whole)
    scaled = (draws[:KEPT_DRAWS].double() - mean) / sd
    return Imputed(name, len(rows), int(cells.sum()), (x - mean) / sd, (guess - mean) / sd, own, explained, covered, scaled)


def _binary(loaded: ModelAndRows, rows: Batch, name: str, cells: Tensor) -> Binary | None:
    true = rows.values[name]
    if not ((true == 0) | (true == 1))[cells].all():
        # Values between 0 and 1 are soft targets, which have no accuracy.
        return None
    picked = _some(cells, loaded.seed)
    parts = [(draws.double().mean(0)[part]) for draws, part in _draws(loaded, rows, name, picked, noise=False)]
    probability, right = torch.cat(parts).cpu(), true[picked].cpu() == 1
    accuracy = ((probability > 0.5) == right).double().mean().item()
    share = _moments(true.double(), cells)[0].expand_as(true)[cells]
    common = torch.maximum(share, 1 - share).mean().item()
    return Binary(name, len(rows), int(cells.sum()), accuracy, common, reliability(probability, right, BINS))


def _draws(loaded: ModelAndRows, rows: Batch, name: str, cells: Tensor, *, noise: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Yields draws of :math:`p(x_j \mid x_S)` or their expectations, shape (K, b, \*shape), in chunks of rows, with the cells to use."""
    model, done = loaded.model, 0
    with serving(model, loaded.seed):
        for part in row_chunks(model, rows, name, DRAWS):
            z = model.posterior(part.hide(name), DRAWS).sample()
            distribution = model.decoder_of(name, part).served(z, model.given(name, part))
            values = distribution.sample() if noise else model.likelihoods[name].expectation(distribution)
            yield values, cells[done : done + len(part)].to(z.device)
            done += len(part)


def _moments(x: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each element over its observed cells; zero if there are none."""
    count = cells.sum(0).clamp(min=1)
    mean = torch.where(cells, x, 0.0).sum(0) / count
    return mean, (torch.where(cells, (x - mean).square(), 0.0).sum(0) / count).sqrt()


def _some(cells: Tensor, seed: int) -> Tensor:
    """A random subset of at most `CELLS` cells, as a mask of the same shape."""
    places = cells.flatten().nonzero()[:, 0].cpu()
    kept = places[torch.randperm(len(places), generator=Generator().manual_seed(seed))[:CELLS]]
    picked = torch.zeros(cells.numel(), dtype=torch.bool)
    picked[kept] = True
    return picked.reshape(cells.shape).to(cells.device)


def _scatter(one: Imputed) -> Element:
    # Every step-th of the randomly drawn cells, which are ordered by row.
    step = -(-len(one.true) // POINTS)
    points = list(zip(one.true[::step].tolist(), one.guess[::step].tolist(), strict=True))
    unit = "" if one.own_units else ", standard deviations"
    both = [value for point in points for value in point]
    x, y = Axis.fit(both, f"true{unit}"), Axis.fit(both, f"imputed{unit}")
    title = f"{one.name}: imputed against true values of {len(points)} cells; {one.explained:.0%} of the variance is explained"
    caption = element("figcaption", element("b", one.name), f" R² {one.explained:.2f}")
    return element("figure", caption, scatter(title, x, y, [Line(points, "cloud")], diagonal=True))


def _density(one: Imputed) -> Element:
    label = "value" if one.own_units else "value, standard deviations"
    return density(one.name, f"{len(one.true):,} cells", one.true, one.draws, whole=one.whole, label=label)


def coverage_band(levels: Sequence[float], number: int) -> list[tuple[float, float, float]]:
    """The 95 % range of the coverage of a calibrated model by level, (level, low, high) in percent.

    Arguments:
        levels: Probabilities of the intervals.
        number: The number of independent predictions.
    """
    errors = [(level, NORMAL * math.sqrt(level * (1 - level) / number)) for level in levels]
    return [(100 * level, 100 * max(0.0, level - error), 100 * min(1.0, level + error)) for level, error in errors]


def _intervals(one: Imputed) -> Element:
    points = [(100 * level, 100 * share) for level, share in one.covered.items()]
    text = "; ".join(f"{share:.0f} % in {level:.0f} % intervals" for level, share in points)
    chart = calibration_curve(
        f"{one.name}: {text}", Axis(0, 100, "probability of the interval, %"), Axis(0, 100, "values inside, %"), points,
        coverage_band(LEVELS, one.rows),
    )  # fmt: skip
    return element("figure", element("figcaption", element("b", one.name), " intervals"), chart)


def probabilities(name: str, bins: Sequence[Bin], observed_label: str, predicted_label: str) -> Element:
    """A calibration curve of predicted probabilities, with small bins pooled."""
    joined = pooled(bins)
    points = [(100 * one.confidence, 100 * one.accuracy) for one in joined]
    band = [(100 * one.confidence, *coverage_band((one.confidence,), one.count)[0][1:]) for one in joined]
    text = "; ".join(f"{true:.0f} % at {sure:.0f} %" for sure, true in points)
    chart = calibration_curve(f"{name}: {text}", Axis(0, 100, predicted_label), Axis(0, 100, observed_label), points, band)
    return element("figure", element("figcaption", element("b", name), " probabilities"), chart)


def pooled(bins: Sequence[Bin], least: int = MIN_PREDICTIONS) -> list[Bin]:
    """Merges neighbouring bins until each holds at least ``least`` predictions.

    Example:
        >>> [one.count for one in pooled([Bin(0, 0.5, 0.4, 0.5, 6), Bin(0.5, 0.8, 0.6, 1, 9), Bin(0.8, 1, 0.9, 1, 70)], 10)]
        [15, 70]
    """
    found: list[Bin] = []
    for one in bins:
        if found and found[-1].count < least:
            found[-1] = _joined(found[-1], one)
        else:
            found.append(one)
    if len(found) > 1 and found[-1].count < least:
        found[-2:] = [_joined(*found[-2:])]
    return found


def _joined(one: Bin, other: Bin) -> Bin:
    count = one.count + other.count
    confidence, accuracy = (
        (first * one.count + second * other.count) / count
        for first, second in ((one.confidence, other.confidence), (one.accuracy, other.accuracy))
    )
    return Bin(one.low, other.high, confidence, accuracy, count)
