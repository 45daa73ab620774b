"""Cells to hide: at random, by another column, by their own value, whole groups of columns, or groups and cells.

=============== ====================================================================================================================
mcar            every cell with probability 1/5
mar             cells of every column but one, with probability 2/5 times the row's rank in that column, from 0 to 1: 1/5 on average;
                that column is of numbers, the one with the fewest missing cells, and keeps all of its own
mnar            every cell with probability 2/5 times the rank of its own value in its column, of classes by their index
modalities      every group of columns (`benchmarks.tables.data.GROUPS`) of a row with probability 1/2, in training rows 1/4
both            groups as above, and each cell of the others with probability 1/5
=============== ====================================================================================================================

Only cells that are known can be hidden, and a randomly chosen one (with groups, a group) of each row always stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.stats import rankdata

from benchmarks.tables.data import Table

MECHANISMS = ("mcar", "mar", "mnar", "modalities", "both")
CELLS, GROUPS, TRAINING_GROUPS, HELD_OUT = 0.2, 0.5, 0.25, 0.2
"""Shares of cells, of groups in rows to fill and in training rows, and of rows to fill."""


@dataclass(frozen=True)
class Task:
    """A table with training rows, rows to fill in, and their truth.

    Arguments:
        table: Names and kinds of the columns.
        train: Training rows, (N, C), NaN where missing or hidden.
        rows: Rows to fill in, (B, C), likewise.
        truth: Their values before cells were hidden, (B, C).
    """

    table: Table
    train: np.ndarray
    rows: np.ndarray
    truth: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """Mask of the cells that are known and hidden, (B, C)."""
        return np.isnan(self.rows) & ~np.isnan(self.truth)


def task_of(table: Table, mechanism: str, seed: int) -> Task:
    """Splits a table's rows 80/20 and hides cells in both parts.

    A class that no training row shows is unknown in the rows to fill in, so that no method meets it, and is not scored.
    """
    order = np.random.default_rng(seed).permutation(len(table.values))
    held = round(HELD_OUT * len(order))
    rng = np.random.default_rng([seed, MECHANISMS.index(mechanism)])
    train, truth = table.values[order[held:]], table.values[order[:held]]
    train = np.where(hide(table, train, mechanism, TRAINING_GROUPS, rng), np.nan, train)
    for place in np.flatnonzero(table.counts):
        truth[~np.isin(truth[:, place], train[:, place]), place] = np.nan
    return Task(table, train, np.where(hide(table, truth, mechanism, GROUPS, rng), np.nan, truth), truth)


def hide(table: Table, values: np.ndarray, mechanism: str, groups: float, rng: Generator) -> np.ndarray:
    """Mask of the cells to hide, (B, C), by one of `MECHANISMS`."""
    known = ~np.isnan(values)
    if mechanism == "mcar":
        return _sparing(_drawn(np.full(values.shape, CELLS), known, rng), known, rng)
    if mechanism == "mar":
        kept = kept_column(table)
        probability = np.repeat(2 * CELLS * ranks(values[:, [kept]]), values.shape[1], 1)
        probability[:, kept] = 0.0
        return _sparing(_drawn(probability, known, rng), known, rng)
    if mechanism == "mnar":
        return _sparing(_drawn(2 * CELLS * ranks(values), known, rng), known, rng)
    hidden = _whole_groups(table, known, groups, rng)
    if mechanism == "both":
        hidden = _sparing(hidden | _drawn(np.full(values.shape, CELLS), known, rng), known, rng)
    return hidden


def kept_column(table: Table) -> int:
    """The column that decides what `mar` hides."""
    return int(np.where(table.counts == 0, np.isnan(table.values).sum(0), len(table.values) + 1).argmin())


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks within each column between 0 and 1, equal for equal values, with mean 1/2; 1/2 where missing."""
    count = (~np.isnan(values)).sum(0)
    places = (rankdata(values, axis=0, nan_policy="omit") - 0.5) / np.maximum(count, 1)
    return np.where(np.isnan(values), 0.5, places)


def _drawn(probability: np.ndarray, known: np.ndarray, rng: Generator) -> np.ndarray:
    return known & (rng.random(known.shape) < probability)


def _sparing(hidden: np.ndarray, known: np.ndarray, rng: Generator) -> np.ndarray:
    """The mask with one known cell of each row left, a random one where all would be hidden."""
    spared = np.where(known, rng.random(known.shape), -1.0).argmax(1)
    empty = ~(known & ~hidden).any(1)
    hidden = hidden.copy()
    hidden[np.flatnonzero(empty), spared[empty]] = False
    return hidden


def _whole_groups(table: Table, known: np.ndarray, share: float, rng: Generator) -> np.ndarray:
    members = table.memberships[None] == np.arange(len(table.groups))[:, None]
    has = (known[:, None] & members).any(2)
    hidden = _sparing(has & (rng.random(has.shape) < share), has, rng)
    return known & hidden[:, table.memberships]
