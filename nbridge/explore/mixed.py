"""Mixed modalities on the page: one value for each column, a number or the place of a class, and answers by column.

Axes: K draws, W elements, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.explore.figures import figures
from nbridge.explore.session import Ranges
from nbridge.inference.impute import which_observed
from nbridge.inference.intervals import statistics_of
from nbridge.models.support import describe_support
from nbridge.nn.mixed import Mixed
from nbridge.visual.mixed_columns import ColumnView


def describe_columns(views: Sequence[ColumnView], ranges: Ranges) -> dict[str, Any]:
    """The controls of the columns: names, kinds, classes, ranges and initial values, and their order by decreasing variation."""
    columns = [_described(view, ranges) for view in views]
    spread = torch.stack([_variation(view, ranges) for view in views])
    return {
        "size": len(columns), "names": [view.name for view in views], "columns": columns,
        "varied": spread.nan_to_num(0.0).argsort(descending=True, stable=True).tolist(),
    }  # fmt: skip


def _described(view: ColumnView, ranges: Ranges) -> dict[str, Any]:
    same = {"kind": view.described, "classes": list(view.classes), "whole": view.whole, "count": view.count}
    mean = ranges.mean[view.start : view.stop].nan_to_num(0.0)
    if view.classes:
        place = int(mean[0] >= 0.5) if len(mean) == 1 else int(mean.argmax())
        return {**same, "start": place}
    low, high = (float(x[view.start].nan_to_num(end)) for x, end in ((ranges.low, 0.0), (ranges.high, 1.0)))
    if high <= low:
        # A constant: room in both directions, within the support.
        low, high = low / 2 if view.kind.type == "lognormal" else low - 1, high + 1
    low = max(low, 0.0) if view.count else low
    start = min(max(float(mean[0]), low), high)
    low, high, start = figures(torch.tensor([low, high, round(start) if view.whole else start], dtype=torch.float64))
    return {**same, "low": low, "high": high, "start": start}


def _variation(view: ColumnView, ranges: Ranges) -> Tensor:
    """The standard deviation of a number relative to its range, and of a class."""
    sd = ranges.sd[view.start : view.stop].square().sum().sqrt()
    return sd if view.classes else sd / (ranges.high - ranges.low)[view.start].clamp(min=1e-30)


def batch_of_columns(name: str, likelihood: Mixed, views: Sequence[ColumnView], values: Sequence[float | None]) -> Batch:
    """A row of a mixed modality, from a number or the place of a class for each column; None is not observed.

    Raises:
        DataError: when there are more or fewer columns, nothing is given, or a value is not one of the column.
    """
    if len(values) != len(views):
        raise DataError(f"{name}: got {len(values)} values, expected {len(views)}, one for each column")
    cells = torch.tensor([value is not None for view, value in zip(views, values, strict=True) for _ in range(view.stop - view.start)])
    if not cells.any():
        raise DataError(f"{name}: no value is given; leave the modality out")
    x = likelihood.blank(1)[0].double()
    for view, value in zip(views, values, strict=True):
        if value is not None:
            x[view.start : view.stop] = _elements(name, view, value)
    canonical = likelihood.canonical(x[None])
    # A number that is finite in JSON can overflow the model's dtype.
    wrong = ~(likelihood.support.check(x[None]) & canonical.isfinite())[0]
    if wrong.any():
        element = int(wrong.nonzero()[0])
        column, support = likelihood.support_of(element)
        raise DataError(f"{name}: value {x[element]:g} is outside the support of {column}, {describe_support(support)}")
    return Batch({name: canonical}, {name: torch.tensor([True])}, {} if cells.all() else {name: cells[None]})


def _elements(name: str, view: ColumnView, value: float) -> Tensor:
    """The elements of a column with a value."""
    if view.stop - view.start == 1:
        return torch.tensor([value], dtype=torch.float64)
    if value not in range(len(view.classes)):
        raise DataError(f"{name}: {view.name}: no class {value:g}, expected 0 to {len(view.classes) - 1}")
    return torch.nn.functional.one_hot(torch.tensor(int(value)), len(view.classes)).double()


def values_of_columns(row: Batch, name: str, views: Sequence[ColumnView]) -> list[float | None]:
    """The value of each column of a prepared row: a number or the place of a class; None where not observed."""
    x = row.values[name][0]
    observed = which_observed(row, name).expand_as(x[None])[0]
    return [_value(x[view.start : view.stop]) if observed[view.start] else None for view in views]


def _value(x: Tensor) -> float:
    # The shortest decimals that round-trip, so that sending the value back gives the same row.
    return float(x.argmax()) if len(x) > 1 else float(str(np.asarray(x)[0]))


def answer_of_columns(
    name: str, views: Sequence[ColumnView], draws: Tensor, expectation: Tensor, wanted: Sequence[int], *, level: float, shown: int
) -> dict[str, Any]:
    """Statistics of some columns: of numbers as of any vector, and of classes their probabilities, which sum to 1.

    Arguments:
        name: The modality.
        views: Its columns.
        draws: Draws, shape (K, W).
        expectation: Expectations, shape (K, W).
        wanted: The columns, by place.
        level: Probability of the intervals.
        shown: The number of draws to return.

    Raises:
        DataError: when there is no such column.
    """
    if beyond := [place for place in wanted if place >= len(views)]:
        raise DataError(f"show.{name}: no column {beyond[0]}, expected 0 to {len(views) - 1}")
    mean = expectation.double().mean(0)
    found = [_answer(views[place], draws.double(), mean, level, shown) for place in wanted]
    return {"elements": list(wanted), "columns": found}


def _answer(view: ColumnView, draws: Tensor, mean: Tensor, level: float, shown: int) -> dict[str, Any]:
    own = slice(view.start, view.stop)
    if not view.classes:
        x = draws[:, view.start]
        found = {what: figure[0] if what in ("lower", "upper") else figure for what, figure in statistics_of(x[:, None], [level]).items()}
        return {**{what: figures(figure)[0] for what, figure in found.items()}, "draws": figures(x[:shown])}
    binary = view.stop - view.start == 1
    shares = torch.stack([1 - mean[view.start], mean[view.start]]) if binary else mean[own]
    drawn = (draws[:shown, view.start] >= 0.5).long() if binary else draws[:shown, own].argmax(1)
    return {"probabilities": figures(shares), "draws": drawn.tolist()}
