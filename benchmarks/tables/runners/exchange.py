"""What the runners share: a task read from an npz file, and an answer written to another. Needs numpy alone, for every environment."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """Training rows, (N, C), and rows to fill in, (B, C), NaN where missing.

    Arguments:
        counts: The number of classes of each column, whose values are their indices; 0 for numbers.
        ordered: Whether each column is of classes in order.
        groups: The number of each column's group.
        draws: The number of draws asked for.
    """

    train: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    ordered: np.ndarray
    groups: np.ndarray
    seed: int
    draws: int


def serve(answer: Callable[[Question], dict[str, np.ndarray]]) -> None:
    """Answers the question in the first argument, in a file named by the second one: values, and draws if there are any."""
    os.environ.update(OMP_NUM_THREADS="1")
    with np.load(sys.argv[1]) as file:
        parts = {name: file[name] for name in ("train", "rows", "counts", "ordered", "groups")}
        question = Question(**parts, seed=int(file["seed"]), draws=int(file["draws"]))
    started = time.perf_counter()
    found = answer(question)
    found["seconds"] = np.array(time.perf_counter() - started)
    np.savez(sys.argv[2], allow_pickle=False, **found)


def standardised(question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of the training rows; 0 and 1 for classes."""
    numbers = question.counts == 0
    mean, spread = np.nanmean(question.train, 0), np.nanstd(question.train, 0)
    return np.where(numbers, mean, 0.0), np.where(numbers & (spread > 0), spread, 1.0)
