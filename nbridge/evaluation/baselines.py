r"""Baselines: scikit-learn predicts a modality from the others, fitted in seconds on the model's training rows.

================= ================================================================================================================
``mean``          the mean of each column of real values or counts
``most frequent`` the most frequent value, for classes and binary columns
``ridge``         ridge regression, with the penalty chosen by leave-one-out error; for many questions, on their one-hot answers
``logistic``      logistic regression, for up to eight questions
``neighbours``    the mean, or the majority vote, of the ten nearest neighbours
================= ================================================================================================================

The best baseline is chosen on separate rows, never on those used for the comparison (`select_baseline`). A *question* is a class or a
binary column.

Axes: N rows, F inputs, C columns or questions, E elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.neighbors import NearestNeighbors

from nbridge.common.process_state import ignored_warnings
from nbridge.evaluation.baseline_inputs import Inputs
from nbridge.evaluation.paired import paired
from nbridge.evaluation.targets import ClassificationTarget, RegressionTarget, Target, Values

NEIGHBOURS = 10
PENALTIES = tuple(10.0**power for power in range(-1, 5))
"""Candidate penalties of ridge regression."""
STRENGTHS = (0.01, 1.0)
"""Candidate inverse penalties of logistic regression."""
FEW_QUESTIONS = 8
"""Maximum number of questions for which a logistic regression is fitted to each."""
MAX_SEPARATE_FITS = 100
"""Maximum number of columns with missing cells that are each fitted on their observed rows; in the rest, missing cells become the mean."""
MAX_MULTIPLICATIONS, FEWEST_STEPS, MOST_STEPS = 2e10, 30, 300
"""Budget of multiplications for one logistic regression, and the bounds on its number of iterations."""
FOLDS, MAX_FOLD_ROWS = 3, 2000
"""Number of cross-validation folds, and the maximum number of rows used."""

Predictor = Callable[[Inputs], Values]
"""Maps inputs to predictions in a target's standard form."""


@dataclass(frozen=True)
class Examples:
    """Rows with inputs, (N, F), the weight of each input in a distance, (F,), and true values in the target's standard form, or NaN."""

    inputs: Inputs
    factors: Inputs
    truth: Values

    def index(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """A subset of the rows."""
        return Examples(self.inputs[rows], self.factors, self.truth[rows])


@dataclass(frozen=True)
class Candidate:
    """A kind of baseline: its name and its fitting function."""

    name: str
    fit: Callable[[Examples], Predictor]


def constant_prediction(target: Target, train: Examples) -> Values:
    """The constant prediction, shape (1, E) or (1, C): the mean, which is 0 in standard form, or the most frequent answer."""
    if isinstance(target, RegressionTarget):
        return np.zeros((1, len(target.elements)))
    return np.array([[_most_frequent(train.truth[:, place]) for place in range(len(target.names))]])


def candidates(target: Target) -> Iterator[Candidate]:
    """The candidate baselines for a target, simplest first."""
    yield Candidate("most frequent" if isinstance(target, ClassificationTarget) else "mean", lambda train: _constant(target, train))
    # Texts may have as many answers as rows, too many for a classifier.
    whole_texts = isinstance(target, ClassificationTarget) and target.texts is not None
    if isinstance(target, ClassificationTarget) and len(target.names) <= FEW_QUESTIONS and not whole_texts:
        for strength in STRENGTHS:
            yield Candidate("logistic", lambda train, strength=strength: _logistic(train, strength))
    elif not whole_texts:
        yield Candidate("ridge", lambda train: _ridge(target, train))
    yield Candidate("neighbours", lambda train: _neighbours(target, train))


def select_baseline(target: Target, train: Examples, choosing: Examples | None, seed: int = 0) -> tuple[str, Predictor]:
    """The best baseline for a target: its name and the fitted predictor.

    The best is chosen on the rows ``choosing``, distinct from those used for the comparison, or else by cross-validation on the training
    rows.

    Without inputs, or with fewer than ten rows, it is the constant.
    """
    enough = train.inputs.shape[1] and len(train.truth) >= NEIGHBOURS
    competing = [*candidates(target)] if enough else [next(candidates(target))]
    # The iteration limit is part of the baseline, so not converging is no fault.
    with ignored_warnings(ConvergenceWarning):
        if choosing is not None:
            fitted = [(one, one.fit(train)) for one in competing]
            best, predict = min(fitted, key=lambda pair: _loss(target, choosing.truth, pair[1](choosing.inputs)))
            return best.name, predict
        losses = [_cross_validated(target, one, train, seed) for one in competing] if len(competing) > 1 else [0.0]
        best = competing[int(np.argmin(losses))]
        return best.name, best.fit(train)


def _cross_validated(target: Target, candidate: Candidate, train: Examples, seed: int) -> float:
    order = torch.randperm(len(train.truth), generator=torch.Generator().manual_seed(seed)).numpy()[:MAX_FOLD_ROWS]
    predicted = np.empty((len(order), train.truth.shape[1]))
    places = np.arange(len(order)) % FOLDS
    for fold in range(FOLDS):
        rest, held = order[places != fold], order[places == fold]
        predicted[places == fold] = candidate.fit(train.index(rest))(train.inputs[held])
    return _loss(target, train.truth[order], predicted)


def _loss(target: Target, truth: Values, predicted: Values) -> float:
    scores = target.scores(truth, predicted)
    figure = paired(scores, scores, root=target.figure == "rmse").model
    return figure if target.figure == "rmse" else -figure


def _constant(target: Target, train: Examples) -> Predictor:
    row = constant_prediction(target, train)
    return lambda inputs: row.repeat(len(inputs), 0)


def _most_frequent(answers: Values) -> float:
    seen, numbers = np.unique(answers[~np.isnan(answers)], return_counts=True)
    return float(seen[numbers.argmax()]) if len(seen) else 0.0


# Ridge regression


def _ridge(target: Target, train: Examples) -> Predictor:
    if isinstance(target, RegressionTarget):
        return _linear(train.inputs, train.truth)
    spans = np.cumsum([0, *target.classes])
    places = [np.arange(classes) for classes in target.classes]
    truth = [np.where(np.isnan(train.truth[:, [c]]), np.nan, train.truth[:, [c]] == place) for c, place in enumerate(places)]
    predict = _linear(train.inputs, np.concatenate(truth, 1))

    def answers(inputs: Inputs) -> Values:
        scores = predict(inputs)
        return np.stack([scores[:, start:stop].argmax(1) for start, stop in pairwise(spans)], 1).astype(float)

    return answers


def _linear(inputs: Inputs, truth: Values) -> Predictor:
    """Fits ridge regression to each column, on the rows in which it is observed."""
    missing = np.isnan(truth)
    partly = np.flatnonzero(missing.any(0) & ~missing.all(0))
    apart, filled = partly[:MAX_SEPARATE_FITS], np.where(missing, np.nanmean(np.where(missing.all(0), 0.0, truth), 0), truth)
    fits = [(np.setdiff1d(np.arange(truth.shape[1]), apart), slice(None)), *(([column], ~missing[:, column]) for column in apart)]
    models = [(columns, _solved(inputs[rows], filled[rows][:, columns])) for columns, rows in fits if len(columns)]

    def predict(new: Inputs) -> Values:
        predicted = np.empty((len(new), truth.shape[1]))
        for columns, model in models:
            predicted[:, columns] = model(new)
        return predicted

    return predict


def _solved(inputs: Inputs, truth: Values) -> Predictor:
    if len(inputs) < 2:
        mean = truth.mean(0)
        return lambda new: np.broadcast_to(mean, (len(new), len(mean)))
    model = RidgeCV(alphas=PENALTIES, alpha_per_target=truth.shape[1] > 1).fit(inputs, truth)
    return lambda new: model.predict(new).reshape(len(new), -1)


# Logistic regression


def _logistic(train: Examples, strength: float) -> Predictor:
    models = [_classifier(train.inputs, train.truth[:, place], strength) for place in range(train.truth.shape[1])]
    return lambda inputs: np.stack([model(inputs) for model in models], 1)


def _classifier(inputs: Inputs, answers: Values, strength: float) -> Predictor:
    known = ~np.isnan(answers)
    classes = np.unique(answers[known])
    if len(classes) < 2:
        only = float(classes[0]) if len(classes) else 0.0
        return lambda new: np.full(len(new), only)
    work = known.sum() * inputs.shape[1] * (1 if len(classes) == 2 else len(classes)) * 4.0
    steps = int(np.clip(MAX_MULTIPLICATIONS / work, FEWEST_STEPS, MOST_STEPS))
    model = LogisticRegression(C=strength, max_iter=steps).fit(inputs[known], answers[known].astype(np.int64))
    return lambda new: model.predict(new).astype(float)


# Nearest neighbours


def _neighbours(target: Target, train: Examples) -> Predictor:
    found = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train.inputs)), algorithm="brute").fit(train.inputs * train.factors)

    def predict(inputs: Inputs) -> Values:
        near = found.kneighbors(inputs * train.factors, return_distance=False)
        return _means(train.truth, near) if isinstance(target, RegressionTarget) else _votes(target, train.truth, near)

    return predict


def _means(truth: Values, near: np.ndarray) -> Values:
    """Column means over the neighbours in which the column is observed; 0, the mean in standard form, when none has it."""
    seen = ~np.isnan(truth)
    filled = np.where(seen, truth, 0.0)
    total, number = np.zeros((len(near), truth.shape[1])), np.zeros((len(near), truth.shape[1]))
    for place in range(near.shape[1]):
        total += filled[near[:, place]]
        number += seen[near[:, place]]
    return total / np.maximum(number, 1.0)


def _votes(target: ClassificationTarget, truth: Values, near: np.ndarray) -> Values:
    """Majority vote of the neighbours; the first answer wins a tie."""
    answers = np.empty((len(near), truth.shape[1]))
    for column in range(len(target.classes)):
        given = truth[:, column][near]
        # The number of votes for each neighbour's answer; of equal numbers the first answer wins.
        votes = (given[:, :, None] == given[:, None, :]).sum(1)
        best = np.where((votes == votes.max(1, keepdims=True)) & (votes > 0), given, np.inf).min(1)
        answers[:, column] = np.where(np.isinf(best), 0.0, best)
    return answers
