"""The baseline: scikit-learn predicts each modality from the same given modalities, in the same form as a model's answers.

- Classes: logistic regression; its strength C, of three, is chosen by validation rows. Attributes: one for each column.
- Reals: ridge regression, with the strength and the spread of Gaussian residuals of each column from the errors of training rows left out.
- Images: the marginal distribution of each pixel, whatever is given: Bernoulli or Laplace; none where neither is the likelihood.

Inputs are standardised, classes one-hot, unobserved cells at the mean; more than `COMPONENTS` columns become their principal components.
Training rows are those that have all of S and j.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from benchmarks.suite.measure import LEVEL, Answer, Names, Served, by_set, questions, units_of
from benchmarks.suite.tasks import Task, split_of
from nbridge.data.batch import Batch
from nbridge.evaluation.rows import rows_with

COMPONENTS = 150
STRENGTHS = (0.01, 0.1, 1.0)
ALPHAS = tuple(10.0**power for power in range(-1, 6))


@dataclass(frozen=True)
class Rows:
    """Training, validation and test rows of a task."""

    task: Task
    train: Batch
    validation: Batch
    test: Batch

    @property
    def parts(self) -> tuple[Batch, Batch, Batch]:
        return self.train, self.validation, self.test


def baseline(task: Task, seed: int) -> Iterator[Served]:
    """The answers of the baseline to every question of a task."""
    splits = split_of(task, seed)
    assert splits.validation is not None
    assert splits.test is not None
    parts = (part.sample().select(*task.modalities) for part in (splits.train, splits.validation, splits.test))
    rows = Rows(task, *parts)
    units = units_of(task, rows.train)
    for given, targets in by_set(questions(list(task.modalities))).items():
        found = []
        for target in targets:
            picked = [rows_with(part, (*given, target)).nonzero()[:, 0] for part in rows.parts]
            if len(picked[2]) and len(picked[0]) > 1:
                found.append(_answer(rows, picked, given, target, units))
        yield Served(given, torch.arange(len(rows.test)), tuple(answer for answer in found if answer is not None))


def _answer(rows: Rows, picked: Sequence[Tensor], given: Names, target: str, units: dict[str, Tensor]) -> Answer | None:
    kind = rows.task.kind(target)
    if kind == "images":
        return _marginal(rows, picked, given, target)
    inputs = _inputs(rows, picked, given)
    outputs = [part.values[target][index] for part, index in zip(rows.parts, picked, strict=True)]
    cells = [
        part.cells[target][index] if target in part.cells else torch.ones_like(x, dtype=torch.bool)
        for part, index, x in zip(rows.parts, picked, outputs, strict=True)
    ]
    if kind == "classes":
        width = rows.task.modalities[target][0][0]
        p = torch.from_numpy(_probabilities(inputs, [y.numpy() for y in outputs], width))
        confidence, guess = p.max(1)
        log_likelihood = p.gather(1, outputs[2][:, None])[:, 0].log()
        return Answer(given, target, picked[2], log_likelihood, right=guess == outputs[2], confidence=confidence)
    if kind == "attributes":
        return _attributes(inputs, outputs, cells, Answer(given, target, picked[2]))
    return _reals(inputs, outputs, cells, Answer(given, target, picked[2]), units[target].reshape(-1).double())


def _inputs(rows: Rows, picked: Sequence[Tensor], given: Names) -> list[np.ndarray]:
    """Standardised columns of the given modalities, for each part of the rows."""
    tables = []
    for part, index in zip(rows.parts, picked, strict=True):
        columns = []
        for name in given:
            x = part.values[name][index]
            if rows.task.kind(name) == "classes":
                columns.append(F.one_hot(x.long(), rows.task.modalities[name][0][0]).double())
                continue
            observed = part.cells[name][index] if name in part.cells else torch.ones_like(x, dtype=torch.bool)
            columns.append(torch.where(observed, x.double(), math.nan).flatten(1))
        tables.append(torch.cat(columns, 1).numpy())
    scaler = StandardScaler().fit(tables[0])
    tables = [np.nan_to_num(np.asarray(scaler.transform(table))) if len(table) else table for table in tables]
    if tables[0].shape[1] > COMPONENTS:
        reduced = PCA(min(COMPONENTS, *tables[0].shape), random_state=0, svd_solver="randomized").fit(tables[0])
        tables = [np.asarray(reduced.transform(table)) if len(table) else table[:, : reduced.n_components_] for table in tables]
    return tables


def _probabilities(inputs: Sequence[np.ndarray], classes: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Class probabilities of test rows, shape (B, C), by logistic regression; shares of training rows where they have one class alone."""
    seen = np.unique(classes[0])
    floor = (np.bincount(classes[0], minlength=width) + 1.0) / (len(classes[0]) + width)
    if len(seen) < 2:
        return np.tile(floor, (len(inputs[2]), 1))
    best, loss = np.zeros(0), math.inf
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegression(C=strength, max_iter=300).fit(inputs[0], classes[0])
        held_out = _padded(model, inputs[1], floor)[np.arange(len(classes[1])), classes[1]] if len(classes[1]) else np.ones(1)
        if (found := float(-np.log(held_out).mean())) < loss:
            best, loss = _padded(model, inputs[2], floor), found
    return best


def _padded(model: LogisticRegression, inputs: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Probabilities with columns for all classes, mixed with a thousandth of the class shares so that none is zero."""
    p = np.zeros((len(inputs), len(floor)))
    p[:, np.asarray(model.classes_)] = model.predict_proba(inputs)
    return 0.999 * p + 0.001 * floor


def _attributes(inputs: Sequence[np.ndarray], outputs: Sequence[Tensor], cells: Sequence[Tensor], answer: Answer) -> Answer:
    log_likelihood = torch.zeros(outputs[2].shape, dtype=torch.float64)
    right, confidence = [], []
    for place in np.ndindex(*outputs[0].shape[1:]):
        column = (slice(None), *place)
        known = [mask[column].numpy() for mask in cells]
        x = [table[mask] for table, mask in zip(inputs[:2], known[:2], strict=True)]
        y = [(part[column].numpy()[mask] > 0.5).astype(int) for part, mask in zip(outputs[:2], known[:2], strict=True)]
        if not len(y[0]):
            continue
        p = _probabilities([*x, inputs[2]], [*y, y[0]], 2)[:, 1]
        truth = outputs[2][column].double().numpy()
        log_likelihood[column] = torch.from_numpy(truth * np.log(p) + (1 - truth) * np.log1p(-p))
        right.append(torch.from_numpy(((p > 0.5) == (truth > 0.5))[known[2]]))
        confidence.append(torch.from_numpy(np.maximum(p, 1 - p)[known[2]]))
    rows = torch.where(cells[2], log_likelihood, 0.0).flatten(1).sum(1)
    return Answer(answer.given, answer.target, answer.rows, rows, right=torch.cat(right), confidence=torch.cat(confidence))


def _reals(inputs: Sequence[np.ndarray], outputs: Sequence[Tensor], cells: Sequence[Tensor], answer: Answer, unit: Tensor) -> Answer:
    flat, known = [part.double().flatten(1).numpy() for part in outputs], [mask.flatten(1).numpy() for mask in cells]
    location, spread = np.zeros_like(flat[2]), np.ones(flat[0].shape[1])
    if known[0].all():
        location, spread = _ridge(inputs[0], flat[0], inputs[2])
    else:
        for column in range(flat[0].shape[1]):
            some = known[0][:, column]
            if some.sum() > 2:
                one, spread[column : column + 1] = _ridge(inputs[0][some], flat[0][some, column : column + 1], inputs[2])
                location[:, column] = one[:, 0]
    x, mask = torch.from_numpy(flat[2]), torch.from_numpy(known[2])
    normal = torch.distributions.Normal(torch.from_numpy(location), torch.from_numpy(spread).clamp(min=1e-6))
    error = (x - normal.loc).abs()
    bound = normal.scale * math.sqrt(2) * torch.erfinv(torch.tensor(LEVEL, dtype=torch.float64))
    log_likelihood = torch.where(mask, normal.log_prob(x), 0.0).sum(1)
    square, inside = (error / unit).square()[mask], (error <= bound).double()[mask]
    return Answer(answer.given, answer.target, answer.rows, log_likelihood, square=square, inside=inside)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, shape (B, D), and the standard deviation of errors of rows left out, shape (D,); columns share one strength."""
    scale = np.where(y.std(0) > 1e-6, y.std(0), 1.0)
    model = RidgeCV(alphas=ALPHAS, store_cv_results=True).fit(x, (y - y.mean(0)) / scale)
    squares = np.asarray(model.cv_results_).reshape(len(x), y.shape[1], len(ALPHAS))
    left_out = squares[:, :, squares.mean((0, 1)).argmin()].mean(0)
    return np.asarray(model.predict(new)).reshape(len(new), -1) * scale + y.mean(0), np.sqrt(left_out) * scale


def _marginal(rows: Rows, picked: Sequence[Tensor], given: Names, target: str) -> Answer | None:
    """The distribution of each pixel over training rows."""
    likelihood = rows.task.modalities[target][1]
    train = rows.train.values[target][rows.train.present[target]].double()
    x = rows.test.values[target][picked[2]].double()
    if likelihood == "bernoulli":
        p = (train.sum(0) + 0.5) / (len(train) + 1)
        log_prob = x * p.log() + (1 - x) * (-p).log1p()
    elif likelihood == "laplace":
        median = train.median(0).values
        scale = (train - median).abs().mean(0).clamp(min=1e-3)
        log_prob = -(2 * scale).log() - (x - median).abs() / scale
    else:
        return None
    return Answer(given, target, picked[2], log_prob.flatten(1).sum(1))
