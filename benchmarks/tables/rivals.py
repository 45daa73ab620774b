"""Imputers that run in this process: mean and mode, nearest neighbours, chained regressions, and missForest.

Numbers are standardised by the training rows, and classes are indicator columns, all but the first, except to missForest, whose trees take
indices. All learn from the training rows alone, then fill in the others.

=========== ============================================================================================================================
mean        mean and mode; the training rows' values as draws, their shares as probabilities
knn         the 10 nearest training rows in which the cell is known, by the distance over cells known in both (scikit-learn's
            ``KNNImputer``); the neighbours' values as draws, their shares as probabilities
iterative   scikit-learn's ``IterativeImputer``, Bayesian ridge regressions, 10 rounds; 20 draws by ``sample_posterior``
missforest  missForest (Stekhoven and Bühlmann, 2012): forests of 100 trees over square-root many columns, at most 10 rounds, until
            completed training rows change more than in the round before; no draws, probabilities are the trees' mean
=========== ============================================================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes the next line work)
from sklearn.impute import IterativeImputer
from sklearn.metrics.pairwise import nan_euclidean_distances

from benchmarks.tables.masks import Task
from benchmarks.tables.scores import Answer, shares_of, units

NEIGHBOURS, DRAWS, ITERATIVE_DRAWS, ITERATIONS = 10, 100, 20, 10
TREES, ROUNDS = 100, 10


def mean_or_mode(task: Task, seed: int) -> Answer:
    """The training rows' mean or most frequent class in every cell."""
    rng = np.random.default_rng(seed)
    shape, values, probabilities = task.rows.shape, task.rows.copy(), {}
    draws = np.empty((DRAWS, *shape))
    for place, count in enumerate(task.table.counts):
        column = task.train[~np.isnan(task.train[:, place]), place]
        draws[..., place] = rng.choice(column, (DRAWS, shape[0]))
        estimate = column.mean()
        if count:
            probabilities[place] = np.tile(shares_of(column[:, None], int(count)), (shape[0], 1))
            estimate = probabilities[place][0].argmax()
        values[np.isnan(task.rows[:, place]), place] = estimate
    return Answer(values, draws, probabilities)


def nearest(task: Task, seed: int) -> Answer:  # noqa: ARG001 (it draws nothing)
    """Mean, or most frequent class, of the nearest training rows that have the cell."""
    train, rows = encoded(task, task.train), encoded(task, task.rows)
    distances = np.nan_to_num(nan_euclidean_distances(rows, train), nan=np.inf)
    values, probabilities = task.rows.copy(), {}
    draws = np.empty((NEIGHBOURS, *task.rows.shape))
    for place, count in enumerate(task.table.counts):
        known = ~np.isnan(task.train[:, place])
        order = np.argsort(np.where(known, distances, np.inf), 1, kind="stable")[:, :NEIGHBOURS]
        draws[..., place] = task.train[order, place].T
        estimate = draws[..., place].mean(0)
        if count:
            probabilities[place] = shares_of(draws[..., place], int(count))
            estimate = probabilities[place].argmax(1)
        values[:, place] = np.where(np.isnan(task.rows[:, place]), estimate, task.rows[:, place])
    return Answer(values, draws, probabilities, exact=True)


def iterative(task: Task, seed: int) -> Answer:
    """Chained Bayesian ridge regressions; the class of a row is the largest of its columns."""
    options: dict[str, Any] = {"max_iter": ITERATIONS, "tol": 0.0, "random_state": seed}
    train, rows = encoded(task, task.train), encoded(task, task.rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = IterativeImputer(sample_posterior=True, **options).fit(train)
        draws = np.stack([decoded(task, np.asarray(imputer.transform(rows))) for _ in range(ITERATIVE_DRAWS)])
        # The same regressions, with means instead of draws.
        values = decoded(task, np.asarray(imputer.set_params(sample_posterior=False).transform(rows)))
    return Answer(values, draws)


def miss_forest(task: Task, seed: int) -> Answer:
    """Forests for each column in turn, over completed rows, until these change more than in the round before."""
    both = (task.train, task.rows)
    now = tuple(np.where(np.isnan(values), _guess(task), values) for values in both)
    order = sorted((place for place in range(now[0].shape[1]) if any(np.isnan(values[:, place]).any() for values in both)),
                   key=lambda place: np.isnan(task.train[:, place]).sum())  # fmt: skip
    best, probabilities, change = now[1], {}, np.full(2, np.inf)
    for number in range(ROUNDS):
        before, found = now[0].copy(), {}
        now = tuple(values.copy() for values in now)
        for place in order:
            found |= _regrow(task, now, place, seed + 1000 * number)
        moved = _change(task, before, now[0])
        if (moved >= change).all():
            break
        best, probabilities, change = now[1], found, moved
    return Answer(best, None, probabilities)


def encoded(task: Task, values: np.ndarray) -> np.ndarray:
    """Standardised numbers and an indicator of every class but the first, NaN where missing, (B, columns).

    With an indicator of every class, each is an exact sum of the others, and chained regressions never leave their first guess.
    """
    mean, spread = units(task.train)
    parts = []
    for place, count in enumerate(task.table.counts):
        column = values[:, [place]]
        one = (column == np.arange(1, count)).astype(float) if count else (column - mean[place]) / spread[place]
        parts.append(np.where(np.isnan(column), np.nan, one))
    return np.concatenate(parts, 1)


def decoded(task: Task, columns: np.ndarray) -> np.ndarray:
    """The opposite of `encoded`; the class of a row is the largest of its indicators, that of the first class being 1 minus their sum."""
    mean, spread = units(task.train)
    widths = np.where(task.table.counts, task.table.counts - 1, 1)
    found = []
    for place, part in enumerate(np.split(columns, np.cumsum(widths)[:-1], axis=1)):
        if task.table.counts[place]:
            found.append(np.concatenate([1 - part.sum(1, keepdims=True), part], 1).argmax(1).astype(float))
        else:
            found.append(part[:, 0] * spread[place] + mean[place])
    return np.stack(found, 1)


def _guess(task: Task) -> np.ndarray:
    """Mean or mode of each column of the training rows."""
    found = []
    for column, count in zip(task.train.T, task.table.counts, strict=True):
        known = column[~np.isnan(column)]
        found.append(np.bincount(known.astype(int)).argmax() if count else known.mean())
    return np.array(found, dtype=float)


def _regrow(task: Task, now: tuple[np.ndarray, ...], place: int, seed: int) -> dict[int, np.ndarray]:
    """Grows a column's forest on training rows that have it, and fills it in, in place; returns probabilities of classes."""
    known = ~np.isnan(task.train[:, place])
    others = np.delete(np.arange(now[0].shape[1]), place)
    options: dict[str, Any] = {"n_estimators": TREES, "max_features": "sqrt", "n_jobs": 1, "random_state": seed}
    classes = int(task.table.counts[place])
    forest = RandomForestClassifier(**options) if classes else RandomForestRegressor(**options)
    forest.fit(now[0][known][:, others], task.train[known, place])
    for values, given in zip(now, (task.train, task.rows), strict=True):
        if (holes := np.isnan(given[:, place])).any():
            values[holes, place] = forest.predict(values[holes][:, others])
    if not isinstance(forest, RandomForestClassifier):
        return {}
    shares = np.zeros((len(now[1]), classes))
    shares[:, np.asarray(forest.classes_, dtype=int)] = forest.predict_proba(now[1][:, others])
    return {place: shares}


def _change(task: Task, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Relative squared change of imputed numbers, and the share of imputed classes that changed; 0 without such cells."""
    holes, classes = np.isnan(task.train), task.table.counts > 0
    of_numbers, of_classes = holes & ~classes, holes & classes
    spread = units(task.train)[1]
    squares = (((after - before) / spread)[of_numbers] ** 2).sum() / max(((after / spread)[of_numbers] ** 2).sum(), 1e-12)
    changed = (after != before)[of_classes].mean() if of_classes.any() else 0.0
    return np.array([squares, changed])


RIVALS: Mapping[str, Callable[[Task, int], Answer]] = {
    "mean": mean_or_mode,
    "knn": nearest,
    "iterative": iterative,
    "missforest": miss_forest,
}
