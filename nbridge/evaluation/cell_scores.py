r"""Scores of single cells of mixed modalities, imputed from the rest of the row, by column.

A fifth of the observed columns of each row is hidden at random (`nbridge.evaluation.single_cells`), and the hidden cells are imputed from
the other columns and the other modalities. Numbers are scored in standard deviations of the training rows, counts as :math:`\log(1 + x)`,

.. math:: \mathrm{RMSE}^2 = \frac{1}{n} \sum_i (x_i - \bar x_i)^2, \qquad \mathrm{log\ score} = \frac{1}{n} \sum_i \log p(y_i)

with :math:`\bar x_i` the mean of the draws of cell i, and :math:`p(y_i)` the probability of the true class. The CRPS and the coverage of
90 % intervals are of the same draws.

Axes: K draws, B rows, W elements, n hidden cells of a column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.calibration import coverage, crps, row_chunks
from nbridge.evaluation.single_cells import ROWS, RowsWithHoles, hide_cells, mixed, usable_rows
from nbridge.evaluation.targets import Values, column_moments, counts_of, values_of
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE
from nbridge.models.holes import with_holes
from nbridge.spec.spec import Spec
from nbridge.visual.mixed_columns import ColumnView, column_views

LEVEL = 0.9
"""Probability of the intervals."""
DRAWN, LEAST = 2**27, 100
"""Maximum number of values drawn for a modality, which limits the rows of wide ones, and the minimum number of rows."""
_TINY = 1e-12


@dataclass(frozen=True)
class ColumnScores:
    """Scores of the hidden cells of a column; NaN where they do not apply to its kind.

    Arguments:
        view: The column.
        cells: The number of hidden cells.
        rmse: Root-mean-square error in standard deviations.
        crps: Continuous ranked probability score in standard deviations.
        coverage: Share of cells inside their 90 % interval.
        accuracy: Share of cells whose most probable class is the true one.
        common: Share of cells of their most frequent class.
        log_score: Mean log-probability of the true class, in nats.
    """

    view: ColumnView
    cells: int
    rmse: float = np.nan
    crps: float = np.nan
    coverage: float = np.nan
    accuracy: float = np.nan
    common: float = np.nan
    log_score: float = np.nan


FIGURES = {
    "rmse": "RMSE/sd", "crps": "CRPS/sd", "coverage": f"{LEVEL:.0%} coverage", "accuracy": "accuracy", "common": "most frequent",
    "log_score": "log score",
}  # fmt: skip
"""Display text of the scores, by attribute of `ColumnScores`."""


@dataclass(frozen=True)
class HiddenCells:
    """What a model predicts for the hidden cells of a column.

    Arguments:
        view: The column.
        truth: True numbers, or classes, shape (n,).
        draws: Draws of a number, shape (K, n); empty for classes.
        probabilities: Probabilities of classes, shape (n, C); empty for numbers.
    """

    view: ColumnView
    truth: Tensor
    draws: Tensor
    probabilities: Tensor


def cell_scores(
    model: MultimodalVAE, spec: Spec, batch: Batch, name: str, *, train: Batch, samples: int = 200, seed: int = 0
) -> tuple[int, tuple[ColumnScores, ...]]:
    """Scores the imputation of single cells of a mixed modality, by column.

    Rows must not be used in training. Of at most 2,000 rows with two or more observed columns, fewer for wide modalities, each is used one
    to five times, with other cells hidden.

    Arguments:
        model: The model.
        spec: Its spec, for the names of classes.
        batch: Rows.
        name: The modality.
        train: Training rows, for the units of numbers.
        samples: The number of draws of each cell.
        seed: Random seed.

    Returns:
        The number of rows, and the scores of each column with a hidden cell that is not constant in the training rows.

    Raises:
        DataError: when no row has two observed columns.
    """
    rows, found = predict_hidden_cells(model, spec, batch, name, samples=samples, seed=seed)
    units = units_of(model, name, train)
    scored = (scores_of(column, float(units[column.view.start])) for column in found)
    return rows, tuple(one for one in scored if one is not None)


def units_of(model: MultimodalVAE, name: str, train: Batch) -> Values:
    """The standard deviation of each element over training rows, of log(1 + x) for counts, shape (W,)."""
    values, counts = values_of(model, train, name), counts_of(mixed(model, name))
    return column_moments(np.where(counts, np.log1p(np.maximum(values, 0.0)), values))[1]


def predict_hidden_cells(
    model: MultimodalVAE, spec: Spec, batch: Batch, name: str, *, samples: int = 200, seed: int = 0
) -> tuple[int, tuple[HiddenCells, ...]]:
    """Predicts the hidden cells of each column of a mixed modality: the number of rows, and the columns in order.

    Arguments and errors are those of `cell_scores`.
    """
    likelihood = mixed(model, name)
    usable = usable_rows(model, batch, name)[: max(LEAST, DRAWN // (samples * likelihood.shape[0]))]
    if not len(usable):
        raise DataError(f"modality {name!r}: no row has two observed columns, so that one could be hidden")
    most = max(len(usable), min(ROWS, DRAWN // (samples * likelihood.shape[0])))
    rows = hide_cells(model, batch.index(torch.from_numpy(usable)), name, seed=seed, most=most)
    drawn, expected = _predicted(model, rows, name, samples, seed)
    truth = model.prepare(rows.batch).values[name].cpu()
    views = column_views(spec, name, likelihood)
    holes = torch.from_numpy(rows.holes)
    return len(usable), tuple(_column(view, truth, holes, drawn, expected) for view in views)


def mean_figures(scores: Iterable[ColumnScores]) -> dict[str, float]:
    """The mean of each score over the columns that have it, by display text."""
    scores = tuple(scores)
    found = {text: [getattr(one, what) for one in scores if not np.isnan(getattr(one, what))] for what, text in FIGURES.items()}
    return {text: float(np.mean(values)) for text, values in found.items() if values}


def figures_by_column(scores: Iterable[ColumnScores]) -> dict[str, dict[str, float]]:
    """Each score by the name of the column, by display text."""
    scores = tuple(scores)
    found = {text: {one.view.name: getattr(one, what) for one in scores} for what, text in FIGURES.items()}
    known = {text: {name: value for name, value in values.items() if not np.isnan(value)} for text, values in found.items()}
    return {text: values for text, values in known.items() if values}


def _predicted(model: MultimodalVAE, rows: RowsWithHoles, name: str, samples: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Draws of the hidden cells of each element, shape (K, n), and expectations of all, shape (B, W)."""
    given, done = with_holes(rows.batch, {name: torch.from_numpy(rows.holes)}), 0
    drawn: list[list[Tensor]] = [[] for _ in range(rows.holes.shape[1])]
    expected = []
    with serving(model, seed):
        for part in row_chunks(model, given, name, samples):
            distribution = model.decoder_of(name, part).served(model.posterior(part, samples).sample(), model.given(name, part))
            sampled = distribution.sample().cpu()
            expected.append(model.likelihoods[name].expectation(distribution).double().mean(0).cpu())
            holes = torch.from_numpy(rows.holes[done : done + len(part)])
            for element, pieces in enumerate(drawn):
                pieces.append(sampled[:, holes[:, element], element].double())
            done += len(part)
    return [torch.cat(pieces, 1) for pieces in drawn], torch.cat(expected)


def _column(view: ColumnView, truth: Tensor, holes: Tensor, drawn: list[Tensor], expected: Tensor) -> HiddenCells:
    some = holes[:, view.start]
    own = truth[some, view.start : view.stop]
    if not view.classes:
        return HiddenCells(view, own[:, 0].double(), drawn[view.start], torch.zeros(0, 0))
    shares = expected[some, view.start : view.stop]
    if view.stop - view.start == 1:
        return HiddenCells(view, (own[:, 0] >= 0.5).long(), torch.zeros(0, 0), torch.cat([1 - shares, shares], 1))
    return HiddenCells(view, own.argmax(1), torch.zeros(0, 0), shares)


def scores_of(column: HiddenCells, unit: float) -> ColumnScores | None:
    """The scores of a column; None without a hidden cell, or for numbers without a spread.

    Arguments:
        column: What is predicted.
        unit: The standard deviation of a number, of log(1 + x) for counts.
    """
    if not (number := len(column.truth)):
        return None
    if column.view.classes:
        right = column.probabilities.argmax(1) == column.truth
        sure = column.probabilities.gather(1, column.truth[:, None]).clamp(min=_TINY).log()
        common = column.truth.bincount().max().item() / number
        accuracy, log_score = right.double().mean().item(), sure.mean().item()
        return ColumnScores(column.view, number, accuracy=accuracy, common=common, log_score=log_score)
    if not unit:
        return None
    draws, truth = (torch.log1p(x) if column.view.count else x for x in (column.draws, column.truth))
    rmse = ((draws.mean(0) - truth) / unit).square().mean().sqrt().item()
    covered = coverage(draws, truth, LEVEL).mean().item()
    return ColumnScores(column.view, number, rmse, (crps(draws, truth) / unit).mean().item(), covered)
