"""Rows and scores that a model and a baseline are compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.evaluation.paired import paired
from nbridge.evaluation.targets import Values
from nbridge.evaluation.verdict import MIN_ROWS, BaselineComparison, Figure, outcome_of


@dataclass(frozen=True)
class Sample:
    """A sample of rows, their values, and the indices of the rows that can be used for each target."""

    batch: Batch
    values: Mapping[str, Values]
    serving: Mapping[str, Tensor]

    def of(self, target: str, most: int) -> np.ndarray:
        """Indices of at most ``most`` rows that can be used for a target."""
        return self.serving[target][:most].numpy()


@dataclass(frozen=True)
class ComparedScores:
    """Scores of a model, a baseline and a constant prediction on the same rows, each of shape (N, C); NaN where there is none."""

    ours: Values
    theirs: Values
    plain: Values
    figure: Figure
    split: str

    def compared(self, blank: BaselineComparison, places: slice = slice(None)) -> BaselineComparison:
        """A comparison completed by the scores of some columns."""
        root = self.figure == "rmse"
        done = paired(self.ours[:, places], self.theirs[:, places], root=root)
        result = replace(blank, rows=done.rows)
        if done.rows < MIN_ROWS:
            return replace(result, predictor="", reason=too_few(done.rows, self.split))
        constant = paired(self.plain[:, places], self.plain[:, places], root=root).model
        result = replace(result, model=done.model, baseline=done.baseline, constant=constant)
        return replace(result, standard_error=done.standard_error, outcome=outcome_of(result.lead, done.standard_error))


def too_few(rows: int, split: str) -> str:
    """Why a comparison on so few rows is left out.

    Example:
        >>> too_few(1, "test")
        '1 test row, 20 needed'
    """
    return f"{rows} {split} row{'s' if rows != 1 else ''}, {MIN_ROWS} needed"
