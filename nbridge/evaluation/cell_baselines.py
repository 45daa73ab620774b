"""Baselines of single cells: fitted for each column on training rows with the same kind of holes, and compared with a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from nbridge.evaluation.baseline_inputs import ModalityInputs
from nbridge.evaluation.baselines import Examples, Predictor, constant_prediction, select_baseline
from nbridge.evaluation.compared_scores import ComparedScores, Sample
from nbridge.evaluation.single_cells import (
    ROWS,
    CellInputs,
    RowsWithHoles,
    first_element,
    hidden_scores,
    hide_cells,
    mixed,
    usable_rows,
)
from nbridge.evaluation.targets import Target, Values, values_of
from nbridge.evaluation.verdict import BY_COLUMN, CHOOSING, BaselineComparison
from nbridge.models.base import MultimodalVAE


@dataclass(frozen=True)
class CellComparer:
    """Compares the imputation of single cells of a mixed modality with the best baseline of each column.

    Arguments:
        model: The model.
        name: The modality.
        train: Training rows.
        choosing: Rows that choose the baselines; None for cross-validation of the training rows.
        blocks: The inputs of each modality.
        fitted_on: Indices of the training rows to use.
        split: The split of the rows that are compared on.
        seed: Seed of the holes and folds.
    """

    model: MultimodalVAE
    name: str
    train: Sample
    choosing: Sample | None
    blocks: Mapping[str, ModalityInputs]
    fitted_on: np.ndarray
    split: str
    seed: int

    def compared(
        self, target: Target, rows: RowsWithHoles, predicted: Values, of_columns: int
    ) -> tuple[BaselineComparison, list[BaselineComparison]]:
        """The comparison of the columns of a target together, and of each.

        Arguments:
            target: The columns.
            rows: Rows with holes.
            predicted: What the model imputes in these rows, shape (R N, W).
            of_columns: The number of columns before sampling.
        """
        values = {other: values_of(self.model, rows.batch, other) for other in self.model.names}
        ours = hidden_scores(target, target.scaled(values[self.name]), target.scaled(predicted, logged=True), rows)
        theirs, plain, blanks = list[Values](), list[Values](), list[BaselineComparison]()
        for place, label in enumerate(target.names):
            column = target.only([place])
            predictor, baseline, train = self._fitted(column)
            test = self.inputs.examples(column, values, rows.holes)
            theirs.append(hidden_scores(column, test.truth, baseline(test.inputs), rows))
            plain.append(hidden_scores(column, test.truth, constant_prediction(column, train), rows))
            blanks.append(
                BaselineComparison(self.name, label, target.figure, 0, train_rows=len(train.truth), predictor=predictor, cells=True)
            )
        scores = ComparedScores(ours, np.concatenate(theirs, 1), np.concatenate(plain, 1), target.figure, self.split)
        predictors = {blank.predictor for blank in blanks}
        both = replace(
            blanks[0], column="", predictor=predictors.pop() if len(predictors) == 1 else BY_COLUMN,
            train_rows=max(blank.train_rows for blank in blanks), columns=(len(target.names), of_columns),
        )  # fmt: skip
        return scores.compared(both), [scores.compared(blank, slice(place, place + 1)) for place, blank in enumerate(blanks)]

    @cached_property
    def inputs(self) -> CellInputs:
        """The inputs of baselines."""
        return CellInputs(self.blocks, self.name, mixed(self.model, self.name).spans)

    def _fitted(self, column: Target) -> tuple[str, Predictor, Examples]:
        """The best baseline of a column: its name, the predictor, and the training rows with the column."""
        train = self._examples(self.train, self.fitted_on, self._train_holes, column)
        chosen_on = None
        if self.choosing is not None and len(self._chosen_rows):
            found = self._examples(self.choosing, self._chosen_rows, self._chosen_holes, column)
            chosen_on = found if len(found.truth) >= CHOOSING else None
        return (*select_baseline(column, train, chosen_on, self.seed), train)

    @cached_property
    def _chosen_rows(self) -> np.ndarray:
        return np.empty(0, np.int64) if self.choosing is None else usable_rows(self.model, self.choosing.batch, self.name)[:ROWS]

    @cached_property
    def _train_holes(self) -> np.ndarray:
        return self._holes(self.train, self.fitted_on)

    @cached_property
    def _chosen_holes(self) -> np.ndarray:
        assert self.choosing is not None
        return self._holes(self.choosing, self._chosen_rows)

    def _holes(self, part: Sample, rows: np.ndarray) -> np.ndarray:
        """Hidden elements of some rows, in one round, with a seed unlike that of the rows that are compared on."""
        return hide_cells(self.model, part.batch.index(torch.from_numpy(rows)), self.name, seed=self.seed + 1, most=len(rows)).holes

    def _examples(self, part: Sample, rows: np.ndarray, holes: np.ndarray, column: Target) -> Examples:
        """The rows in which a column is observed, with other columns hidden at random."""
        known = np.flatnonzero(~np.isnan(part.values[self.name][rows, first_element(column, 0)]))
        return self.inputs.examples(column, {other: values[rows[known]] for other, values in part.values.items()}, holes[known])
