r"""Columns of mixed modalities, imputed from the rest of the row: scores by name and kind, charts of numbers, confusion of classes.

A fifth of the observed columns of each row is hidden at random, so that a single table has a report too
(`nbridge.evaluation.cell_scores`).

Axes: K draws, n hidden cells of a column, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

import numpy as np
import torch

from nbridge.common.messages import number
from nbridge.evaluation.calibration import coverage, reliability
from nbridge.evaluation.cell_scores import (
    FIGURES,
    ColumnScores,
    HiddenCells,
    predict_hidden_cells,
    scores_of,
    units_of,
)
from nbridge.evaluation.single_cells import mixed_modalities, usable_rows
from nbridge.report.axes import Axis
from nbridge.report.charts import Line, calibration_curve, scatter
from nbridge.report.distributions import KEY, density, shares
from nbridge.report.labels import ClassPredictions, matrix
from nbridge.report.run_data import ModelAndRows, RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, sortable
from nbridge.report.values import BAND_NOTE, BINS, CALIBRATION_NOTE, LEVELS, POINTS, coverage_band, probabilities
from nbridge.spec.spec import Spec

DRAWS = 99
"""Draws per cell."""
LINES, CHARTS = 150, 12
"""Maximum numbers of columns in a table, and of charts and matrices of a modality."""
NUMBERS, CLASSES = ("rmse", "crps", "coverage"), ("accuracy", "common", "log_score")
"""The scores of numbers and of classes."""


def section(data: RunData) -> Iterator[Element]:
    """For each mixed modality: scores by column, imputed against true numbers, confusion of classes, and calibration."""
    loaded = data.model_and_rows
    model, rows = loaded.model, loaded.few
    names = [name for name in mixed_modalities(model) if name in rows.names and len(usable_rows(model, rows, name))]
    if not names:
        raise SectionSkipped("no mixed modality with two observed columns in a row")
    yield paragraph(
        "A fifth of the observed columns of each row is hidden at random and imputed from the rest of the row, "
        f"with {DRAWS} draws per cell, on rows of the {loaded.split} split. RMSE and CRPS are in standard deviations of a column "
        "(counts as log(1 + x)).",
        quiet=True,
    )
    for name in names:
        yield element("h3", name)
        yield from _modality(loaded, data.spec, name)
    yield paragraph(f"{CALIBRATION_NOTE} {BAND_NOTE}", quiet=True)


def _modality(loaded: ModelAndRows, spec: Spec, name: str) -> Iterator[Element]:
    rows, found = predict_hidden_cells(loaded.model, spec, loaded.few, name, samples=DRAWS, seed=loaded.seed)
    units = units_of(loaded.model, name, loaded.train.representative())
    scored = [(one, scores) for one in found if (scores := scores_of(one, float(units[one.view.start]))) is not None]
    numbers, classes = ([pair for pair in scored if bool(pair[0].view.classes) is kind] for kind in (False, True))
    for kind, what, pairs in (("numbers", NUMBERS, numbers), ("classes", CLASSES, classes)):
        if pairs:
            yield _scores(f"Imputed {kind} of {name}, {rows:,} rows", what, [scores for _, scores in pairs])
    if numbers:
        yield element("div", *(_scatter(one) for one, _ in numbers[:CHARTS]), class_="charts")
        yield paragraph(f"Distributions of hidden cells. {KEY}", quiet=True)
        yield element("div", *(_density(one) for one, _ in numbers[:CHARTS]), class_="charts")
    if classes:
        yield paragraph("Rows are true classes, columns predicted ones, in percent of the row; n is its number of cells.", quiet=True)
        yield element("div", *(matrix(_predictions(one), one.view.classes) for one, _ in classes[:CHARTS]), class_="matrices")
        yield element("div", *(_shares(one) for one, _ in classes[:CHARTS]), class_="matrices")
    if (more := max(len(numbers), len(classes)) - CHARTS) > 0:
        yield paragraph(f"and {more} more columns, with scores in the tables above", quiet=True)
    of_numbers, of_classes = ([one for one, _ in pairs] for pairs in (numbers, classes))
    curves = [curve for curve in (_intervals(name, of_numbers), _reliability(name, of_classes)) if curve is not None]
    yield element("div", *curves, class_="charts")


def _scores(caption: str, what: Sequence[str], scores: Sequence[ColumnScores]) -> Element:
    """A table of scores, one line for each column with its kind."""
    more = f", the first {LINES} of {len(scores):,} columns" if len(scores) > LINES else ""
    lines = [
        (one.view.name, one.view.described, f"{one.cells:,}", *(number(getattr(one, name)) for name in what)) for one in scores[:LINES]
    ]
    keys = [(one.view.name, one.view.described, one.cells, *(getattr(one, name) for name in what)) for one in scores[:LINES]]
    return sortable(caption + more, ("column", "kind", "cells", *(FIGURES[name] for name in what)), lines, keys, words=2)


def _scatter(one: HiddenCells) -> Element:
    """Imputed against true numbers, in the units of the column."""
    points = list(zip(one.truth[:POINTS].tolist(), one.draws.mean(0)[:POINTS].tolist(), strict=True))
    both = [value for point in points for value in point]
    title = f"{one.view.name}: imputed against true values of {len(points)} cells"
    chart = scatter(title, Axis.fit(both, "true"), Axis.fit(both, "imputed"), [Line(points, "cloud")], diagonal=True)
    return element("figure", element("figcaption", element("b", one.view.name), f" {one.view.described}"), chart)


def _density(one: HiddenCells) -> Element:
    return density(one.view.name, one.view.described, one.truth, one.draws, whole=one.view.whole)


def _shares(one: HiddenCells) -> Element:
    counts = torch.bincount(one.truth, minlength=len(one.view.classes))
    return shares(one.view.name, one.view.classes, counts, one.probabilities.mean(0))


def _predictions(one: HiddenCells) -> ClassPredictions:
    """Numbers of cells by true and by most probable class."""
    classes = len(one.view.classes)
    confidence, guess = one.probabilities.max(1)
    counts = torch.bincount(one.truth * classes + guess, minlength=classes * classes).reshape(classes, classes)
    return ClassPredictions(one.view.name, "the rest of the row", counts, reliability(confidence, guess == one.truth, BINS))


def _intervals(name: str, columns: Sequence[HiddenCells]) -> Element | None:
    """The coverage of intervals of all numbers together."""
    if not columns:
        return None
    shares = {level: np.mean([coverage(one.draws, one.truth, level).mean().item() for one in columns]) for level in LEVELS}
    points = [(100 * level, 100 * float(share)) for level, share in shares.items()]
    text = "; ".join(f"{share:.0f} % in {level:.0f} % intervals" for level, share in points)
    axes = Axis(0, 100, "probability of the interval, %"), Axis(0, 100, "values inside, %")
    chart = calibration_curve(f"{name}: {text}", *axes, points, coverage_band(LEVELS, max(len(one.truth) for one in columns)))
    return element("figure", element("figcaption", element("b", name), " intervals"), chart)


def _reliability(name: str, columns: Sequence[HiddenCells]) -> Element | None:
    """The calibration of the most probable class of all columns together."""
    if not columns:
        return None
    confidence = torch.cat([one.probabilities.max(1).values for one in columns])
    right = torch.cat([one.probabilities.argmax(1) == one.truth for one in columns])
    return probabilities(name, reliability(confidence, right, BINS), "right, %", "confidence, %")
