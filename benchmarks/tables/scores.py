r"""Scores of imputed cells, over all that are known and hidden.

========== =========================================================================================================================
rmse       of numbers, in standard deviations of the training rows' column
accuracy   of classes
crps       of numbers, in the same units, from draws (`nbridge.evaluation.calibration.crps`); of a method without draws, the absolute error
log        mean log-density of numbers, in the same units, by a normal distribution with the mean and the standard deviation of the draws
           (at least `FLOOR`)
log class  mean log-probability of the true class
in 90 %    share of numbers inside the central 90 % interval of the draws (`nbridge.evaluation.calibration.coverage`)
seconds    to learn from the training rows and to fill in the others
========== =========================================================================================================================

The probability of a class is what the method says, or its share among the draws; both are mixed with `DOUBT` of a uniform distribution,
because a class that no draw shows would otherwise have a log-probability of minus infinity. Scores that a method has nothing for are left
out: coverage and log-density without draws, log-probabilities with neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.tables.masks import Task
from nbridge.evaluation.calibration import coverage, crps

LEVEL = 0.9
FLOOR, DOUBT = 0.05, 0.01
"""The least standard deviation of a normal fit, in training-column deviations, and the weight of the uniform distribution of classes."""


@dataclass(frozen=True)
class Answer:
    """What a method says of the rows to fill in.

    Arguments:
        values: The completed rows, (B, C).
        draws: Draws of the completed rows, (K, B, C), if it makes any.
        probabilities: Of columns of classes, by number, (B, classes), if it gives any.
        exact: Whether the draws are the whole predictive distribution, not a sample from it.
        seconds: Of learning and filling in, without scoring.
    """

    values: np.ndarray
    draws: np.ndarray | None = None
    probabilities: Mapping[int, np.ndarray] = field(default_factory=dict)
    exact: bool = False
    seconds: float = math.nan


def scores(task: Task, answer: Answer) -> dict[str, float]:
    """All scores of an answer that it has something for.

    Raises:
        ValueError: if an imputed value is missing or not finite.
    """
    if not np.isfinite(answer.values[task.scored]).all():
        raise ValueError("an imputed value is missing or not finite")
    found = {**_of_numbers(task, answer), **_of_classes(task, answer), "seconds": answer.seconds}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def units(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of the training rows, (C,)."""
    spread = np.nanstd(train, 0)
    return np.nanmean(train, 0), np.where(spread > 0, spread, 1.0)


def normal_log_density(draws: np.ndarray, x: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    r"""Log-density of x, (N,), by normal distributions with the mean and spread of draws, (K, N).

    Example:
        >>> normal_log_density(np.array([[-1.0], [1.0]]), np.array([0.0])).round(4)
        array([-1.2655])
    """
    mean, spread = draws.mean(0), np.maximum(draws.std(0, ddof=1), floor)
    return -0.5 * ((x - mean) / spread) ** 2 - np.log(spread) - 0.5 * math.log(2 * math.pi)


def log_probability(probabilities: np.ndarray, labels: np.ndarray, doubt: float = DOUBT) -> np.ndarray:
    """Log-probability of labels, (N,), by probabilities, (N, classes), mixed with a uniform distribution.

    Example:
        >>> np.exp(log_probability(np.array([[1.0, 0.0]]), np.array([1]))).round(4)
        array([0.005])
    """
    shares = probabilities / probabilities.sum(1, keepdims=True)
    return np.log((1 - doubt) * shares[np.arange(len(labels)), labels] + doubt / shares.shape[1])


def shares_of(draws: np.ndarray, count: int) -> np.ndarray:
    """The share of each class among draws of a column, (K, B) to (B, count)."""
    return (draws[..., None] == np.arange(count)).mean(0)


def _of_numbers(task: Task, answer: Answer) -> dict[str, float]:
    cells = task.scored & (task.table.counts == 0)
    if not cells.any():
        return {}
    mean, spread = units(task.train)
    x, point = (((values - mean) / spread)[cells] for values in (task.truth, answer.values))
    found = {"rmse": float(np.sqrt(np.mean((x - point) ** 2)))}
    if answer.draws is None:
        return {**found, "crps": float(np.abs(x - point).mean())}
    draws, truth = ((answer.draws - mean) / spread)[:, cells], torch.from_numpy(x)
    return {
        **found,
        "crps": crps(torch.from_numpy(draws), truth, fair=not answer.exact).mean().item(),
        "log": float(normal_log_density(draws, x).mean()),
        "in 90 %": coverage(torch.from_numpy(draws), truth, LEVEL).mean().item(),
    }


def _of_classes(task: Task, answer: Answer) -> dict[str, float]:
    right: list[np.ndarray] = []
    logs: list[np.ndarray] = []
    for place in np.flatnonzero(task.table.counts).tolist():
        rows = task.scored[:, place]
        labels = task.truth[rows, place].astype(int)
        right.append(answer.values[rows, place] == labels)
        count = int(task.table.counts[place])
        if place in answer.probabilities:
            logs.append(log_probability(answer.probabilities[place][rows], labels))
        elif answer.draws is not None:
            logs.append(log_probability(shares_of(answer.draws[:, rows, place], count), labels))
    found = {}
    if right and sum(map(len, right)):
        found["accuracy"] = float(np.concatenate(right).mean())
    if logs and sum(map(len, logs)):
        found["log class"] = float(np.concatenate(logs).mean())
    return found
