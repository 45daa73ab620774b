r"""Skill by the number of modalities given: the predictive log-likelihood of each modality over that of its marginal distribution.

.. math:: \frac{1}{B} \sum_b \big( \log p(x_{bj} \mid x_{bS}) - \log p_\mathrm{free}(x_{bj}) \big), \qquad |S| = k

with S drawn at random for each row among the other modalities, in nats that no likelihood weight multiplies. The standard error is that of
the mean over rows.

Axes: M modalities, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import torch
from torch import Generator, Tensor

from nbridge.data.batch import Batch
from nbridge.inference.free import Marginal
from nbridge.inference.hidden import free_baseline, hidden_log_likelihood
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE
from nbridge.report.axes import Axis
from nbridge.report.charts import error_bars
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph

DRAWS = 16
"""Draws of z per row."""
TARGETS, NUMBERS = 12, 5
"""Maximum numbers of modalities, and of different numbers of given modalities."""
VALUES, FEWEST = 2**23, 10
"""Approximate maximum number of values decoded for a point, which limits the rows of wide modalities, and the minimum number of rows."""
MARGINAL_ROWS = 500
"""Maximum number of training rows that marginal distributions are fitted to."""
ERRORS = 2.0
"""Length of the error bars, in standard errors."""


@dataclass(frozen=True)
class Skill:
    """The skill of a model on one modality with a number of others given, in nats, with its standard error over rows."""

    name: str
    given: int
    rows: int
    nats: float
    error: float


def section(data: RunData) -> Iterator[Element]:
    """A chart for each modality."""
    found = skills(data.model_and_rows)
    if not found:
        raise SectionSkipped("no modality with other modalities to impute it from")
    yield paragraph(
        f"How far the log-likelihood of a hidden modality is above that of its marginal distribution, in nats per row, when 1, 2, ... "
        f"other modalities, chosen at random for each row, are given; "
        f"on rows of the {data.model_and_rows.split} split. Bars are two standard "
        "errors; at 0, the others do not help.",
        quiet=True,
    )
    named: dict[str, list[Skill]] = {}
    for one in found:
        named.setdefault(one.name, []).append(one)
    most = max(one.given for one in found)
    yield element("div", *(_chart(name, points, most) for name, points in named.items()), class_="charts")
    if (more := len(data.spec.modalities) - TARGETS) > 0:
        yield paragraph(f"and {more} more modalities", quiet=True)


def skills(loaded: ModelAndRows) -> list[Skill]:
    """The skill on each modality, by number of modalities given; empty if none can be hidden."""
    model = loaded.model
    if len(model.names) < 2:
        return []
    with serving(model, loaded.seed), torch.no_grad():
        rows = model.prepare(loaded.few.to(model.device))
        free = free_baseline(model, model.prepare(loaded.train.sample(MARGINAL_ROWS).to(model.device)))
        points = (
            _skill(model, rows, free, name, number, loaded.seed)
            for name in model.names[:TARGETS]
            if name in free
            for number in _numbers(len(model.names) - 1)
        )
        return [one for one in points if one is not None]


def _numbers(most: int) -> Sequence[int]:
    """Numbers of given modalities: all from 1, or a few of them evenly."""
    if most <= NUMBERS:
        return range(1, most + 1)
    return sorted({round(1 + place * (most - 1) / (NUMBERS - 1)) for place in range(NUMBERS)})


def _skill(model: MultimodalVAE, rows: Batch, free: Mapping[str, Marginal], name: str, number: int, seed: int) -> Skill | None:
    """The skill on one modality; None if fewer rows than needed have it and enough others."""
    place, present = model.names.index(name), model.presence(rows)
    usable = (present[place] & (present.sum(0) > number)).nonzero()[:, 0]
    usable = usable[: max(FEWEST, VALUES // (DRAWS * math.prod(model.likelihoods[name].raw_shape)))]
    if len(usable) < FEWEST:
        return None
    generator = Generator().manual_seed(seed)
    parts = _parts(present.index_select(1, usable), place, number, generator)
    batch = rows.index(usable)
    shown = {other: parts[index] if index != place else batch.present[name] for index, other in enumerate(model.names)}
    batch = Batch(batch.values, shown, batch.cells, batch.covariates)
    above = hidden_log_likelihood(model, batch, parts, DRAWS, generator)[name].double() - free[name].log_prob(
        batch.values[name], batch.cells.get(name)
    )
    above = above[above.isfinite()].cpu()
    if len(above) < FEWEST:
        return None
    return Skill(name, number, len(above), above.mean().item(), above.std().item() / math.sqrt(len(above)))


def _parts(present: Tensor, target: int, number: int, generator: Generator) -> Tensor:
    """A random subset of ``number`` present modalities without the target for each row, boolean, shape (M, B)."""
    order = torch.rand(present.shape, generator=generator).to(present.device).masked_fill(~present, 2.0)
    order[target] = 2.0
    return order.argsort(0).argsort(0) < number


def _chart(name: str, points: Sequence[Skill], most: int) -> Element:
    bars = [(float(one.given), one.nats, ERRORS * one.error) for one in points]
    text = "; ".join(f"{one.nats:.3g} ± {one.error:.2g} with {one.given} given" for one in points)
    reach = [0.0, *(value + side * bar for _, value, bar in bars for side in (-1, 1))]
    x, y = Axis(0.5, most + 0.5, "number of modalities given", whole=True), Axis.fit(reach, "nats over the marginal")
    caption = element("figcaption", element("b", name), f" {points[0].rows:,} rows")
    return element("figure", caption, error_bars(f"{name}: {text}", x, y, [bars]))
