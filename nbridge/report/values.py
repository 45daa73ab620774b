r"""Real values and counts, imputed beside true, and how often central intervals hold what they promise.

Elements differ in their units, so each is shown in standard deviations of its true values over these rows; a modality of one element
keeps its own units. The share of variance explained is

.. math:: R^2 = 1 - \frac{\sum (x - \hat x)^2}{\sum (x - \bar x)^2}

with the mean :math:`\hat x` of draws of :math:`p(x_j \mid x_S)`, of all others, and :math:`\bar x` of each element's true values.

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
from nbridge.report.axes import Axis
from nbridge.report.charts import Line, agreement, scatter
from nbridge.report.subject import LeftOut, Served, Subject
from nbridge.report.tree import element, paragraph, table
from nbridge.visual.modality_kinds import is_image

DRAWS = 49
"""Draws of each cell: intervals of all levels below end at whole ranks of them."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.96)
"""Probabilities of central intervals."""
TOLD = 0.9
"""The one that the table tells."""
CELLS, POINTS = 20_000, 500
"""Cells that figures are taken over, and those that a chart shows, at most, drawn at random."""
NUMBERS, FEWEST = 100_000_000, 30
"""Numbers that are drawn for a modality, about, at most: so many rows of a wide one serve, though not fewer than these."""
BINS, POOLED = 10, 20
"""Bins of predicted probabilities, and how many predictions a point of a chart stands for at least."""


HONEST = "On the dashed line probabilities are honest; below it the model is too sure of itself, above it not sure enough."
"""How a calibration curve is read."""


@dataclass(frozen=True)
class Imputed:
    r"""Values of one modality, imputed from all others.

    Arguments:
        name: The modality.
        rows: The number of rows.
        cells: The number of observed cells.
        true: Their true values, shape (N,), in standard deviations, or in their own units.
        guess: The means of their predictive distributions.
        own_units: Whether these are in the units of the data.
        explained: The share :math:`R^2` of variance explained.
        covered: The share of cells inside the central interval of each level.
    """

    name: str
    rows: int
    cells: int
    true: Tensor
    guess: Tensor
    own_units: bool
    explained: float
    covered: dict[float, float]


@dataclass(frozen=True)
class Binary:
    """Elements that are 0 or 1, predicted from all others.

    Arguments:
        name: The modality.
        rows: The number of rows.
        cells: The number of observed cells.
        accuracy: The share of cells that are guessed rightly.
        common: The share that each element's more frequent value has.
        bins: Predictions of similar probability.
    """

    name: str
    rows: int
    cells: int
    accuracy: float
    common: float
    bins: tuple[Bin, ...]


def section(subject: Subject) -> Iterator[Element]:
    """A scatter and a calibration curve for each modality of values, a calibration curve for each of zeros and ones."""
    served = subject.model_and_rows
    found = [one for name in served.model.names if (one := measured(served, name)) is not None]
    values, binary = [one for one in found if isinstance(one, Imputed)], [one for one in found if isinstance(one, Binary)]
    if not found:
        raise LeftOut("no modality holds real values, counts, or zeros and ones that are no image, beside others to impute them from")
    yield paragraph(f"Each modality from all others, by {DRAWS} draws of each cell, on rows of the {served.split} split.", quiet=True)
    if values:
        headings = ("modality", "rows", "cells", "variance explained", f"in {TOLD:.0%} intervals")
        lines = [(one.name, f"{one.rows:,}", f"{one.cells:,}", f"{one.explained:.3f}", f"{one.covered[TOLD]:.1%}") for one in values]
        yield table("Values imputed", headings, lines)
    if binary:
        headings = ("modality", "rows", "cells", "accuracy", "of the more frequent value")
        rows = [(one.name, f"{one.rows:,}", f"{one.cells:,}", f"{one.accuracy:.3f}", f"{one.common:.3f}") for one in binary]
        yield table("Zeros and ones imputed", headings, rows)
    if values:
        yield element("h3", "Imputed beside true")
        yield element("div", *map(_scatter, values), class_="charts")
    yield element("h3", "Calibration")
    yield paragraph(HONEST, quiet=True)
    yield element("div", *map(_intervals, values), *map(_probabilities, binary), class_="charts")


def measured(served: Served, name: str) -> Imputed | Binary | None:
    """One modality from all others; None where it is no such modality, or no row serves."""
    model, batch = served.model, served.few
    likelihood = model.likelihoods[name]
    if not likelihood.elementwise or is_image(model, name):
        return None
    others = [batch.present[other] for other in batch.names if other != name]
    rows = batch.index(batch.present[name] & torch.stack(others).any(0)) if others else batch.slice(0, 0)
    rows = rows.slice(0, max(FEWEST, NUMBERS // (DRAWS * math.prod(likelihood.shape))))
    cells = observed_cells(rows, name)
    if not cells.any():
        return None
    return _binary(served, rows, name, cells) if isinstance(likelihood, Bernoulli) else _imputed(served, rows, name, cells)


def _imputed(served: Served, rows: Batch, name: str, cells: Tensor) -> Imputed | None:
    likelihood = served.model.likelihoods[name]
    true = likelihood.point(likelihood.canonical(rows.values[name])).double()
    mean, sd = _moments(true, cells)
    # An element that is the same in all of these rows has no unit, and nothing to explain.
    picked = _some(cells & (sd > 0), served.seed)
    if not picked.any():
        return None
    draws = torch.cat([draws[:, part] for draws, part in _draws(served, rows, name, picked)], 1).cpu()
    x, mean, sd = (part.expand_as(true)[picked].cpu() for part in (true, mean, sd))
    guess = draws.double().mean(0)
    explained = 1 - ((guess - x) / sd).square().sum().item() / ((x - mean) / sd).square().sum().item()
    covered = {level: coverage(draws, x.to(draws), level).mean().item() for level in LEVELS}
    if own := true[0].numel() == 1:
        return Imputed(name, len(rows), int(cells.sum()), x, guess, own, explained, covered)
    return Imputed(name, len(rows), int(cells.sum()), (x - mean) / sd, (guess - mean) / sd, own, explained, covered)


def _binary(served: Served, rows: Batch, name: str, cells: Tensor) -> Binary | None:
    true = rows.values[name]
    if not ((true == 0) | (true == 1))[cells].all():
        # Soft targets: neither came true.
        return None
    picked = _some(cells, served.seed)
    parts = [(draws.double().mean(0)[part]) for draws, part in _draws(served, rows, name, picked, noise=False)]
    probability, right = torch.cat(parts).cpu(), true[picked].cpu() == 1
    accuracy = ((probability > 0.5) == right).double().mean().item()
    share = _moments(true.double(), cells)[0].expand_as(true)[cells]
    common = torch.maximum(share, 1 - share).mean().item()
    return Binary(name, len(rows), int(cells.sum()), accuracy, common, reliability(probability, right, BINS))


def _draws(served: Served, rows: Batch, name: str, cells: Tensor, *, noise: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Draws of :math:`p(x_j \mid x_S)`, (K, b, \*shape), of a part of the rows at a time, or their expectations; and their cells."""
    model, done = served.model, 0
    with serving(model, served.seed):
        for part in row_chunks(model, rows, name, DRAWS):
            z = model.posterior(part.hide(name), DRAWS).sample()
            distribution = model.decoder(name).served(z, model.given(name, part))
            yield (
                distribution.sample() if noise else model.likelihoods[name].expectation(distribution),
                cells[done : done + len(part)].to(z.device),
            )
            done += len(part)


def _moments(x: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each element over its observed cells; zero where there is none."""
    count = cells.sum(0).clamp(min=1)
    mean = torch.where(cells, x, 0.0).sum(0) / count
    return mean, (torch.where(cells, (x - mean).square(), 0.0).sum(0) / count).sqrt()


def _some(cells: Tensor, seed: int) -> Tensor:
    """At most so many of these cells, boolean, of the same shape."""
    places = cells.flatten().nonzero()[:, 0].cpu()
    kept = places[torch.randperm(len(places), generator=Generator().manual_seed(seed))[:CELLS]]
    picked = torch.zeros(cells.numel(), dtype=torch.bool)
    picked[kept] = True
    return picked.reshape(cells.shape).to(cells.device)


def _scatter(one: Imputed) -> Element:
    # Drawn cells of random rows and elements, evenly: they are in order already.
    step = -(-len(one.true) // POINTS)
    points = list(zip(one.true[::step].tolist(), one.guess[::step].tolist(), strict=True))
    unit = "" if one.own_units else ", standard deviations"
    both = [value for point in points for value in point]
    x, y = Axis.over(both, f"true{unit}"), Axis.over(both, f"imputed{unit}")
    title = f"{one.name}: imputed beside true values of {len(points)} cells; {one.explained:.0%} of the variance is explained"
    caption = element("figcaption", element("b", one.name), f" R² {one.explained:.2f}")
    return element("figure", caption, scatter(title, x, y, [Line(points, "cloud")], diagonal=True))


def _intervals(one: Imputed) -> Element:
    points = [(100 * level, 100 * share) for level, share in one.covered.items()]
    told = "; ".join(f"{share:.0f} % in {level:.0f} % intervals" for level, share in points)
    chart = agreement(f"{one.name}: {told}", Axis(0, 100, "probability of the interval, %"), Axis(0, 100, "values inside, %"), points)
    return element("figure", element("figcaption", element("b", one.name), " intervals"), chart)


def _probabilities(one: Binary) -> Element:
    return probabilities(one.name, one.bins, "ones among these cells, %", "probability of a one, %")


def probabilities(name: str, bins: Sequence[Bin], came_true: str, promised: str) -> Element:
    """What came true in each bin of predicted probability, of bins that hold enough to tell."""
    points = [(100 * one.confidence, 100 * one.accuracy) for one in pooled(bins)]
    told = "; ".join(f"{true:.0f} % at {sure:.0f} %" for sure, true in points)
    chart = agreement(f"{name}: {told}", Axis(0, 100, promised), Axis(0, 100, came_true), points)
    return element("figure", element("figcaption", element("b", name), " probabilities"), chart)


def pooled(bins: Sequence[Bin], least: int = POOLED) -> list[Bin]:
    """Bins in order, each joined with those before it that hold too few to tell.

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
