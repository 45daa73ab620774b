"""The rows that a data source loads, and how they are split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.errors import DataError

PARTS = ("train", "test")
"""The parts that sources with official splits assign."""
_ASSIGNED = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """All rows of a source.

    Arguments:
        batch: The rows, in memory or on disk.
        ids: Their identifiers, :math:`(N,)`, if any.
        part: ``"train"``, ``"validation"`` or ``"test"`` for each row, :math:`(N,)`, if the source itself assigns parts; None otherwise.
        origin: The file of the rows, for messages; empty if there is none.
        groups: The group of each row (a person, a patient), :math:`(N,)`: rows of one group are never split across parts. None if rows
            are independent.
        imputed: The number of rows, by modality, with values that an earlier imputation filled.

    Raises:
        DataError: when lengths disagree or a part has another name.
    """

    batch: Rows
    ids: np.ndarray | None = None
    part: np.ndarray | None = None
    origin: str = ""
    groups: np.ndarray | None = None
    place: Callable[[str, int, int], str] | None = None
    imputed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, array in (("ids", self.ids), ("part", self.part), ("groups", self.groups)):
            if array is not None and array.shape != (len(self.batch),):
                raise DataError(f"{what}: array of shape {array.shape} for {len(self.batch)} rows, expected ({len(self.batch)},)")
        if self.part is not None and (other := set(self.part.tolist()) - set(_ASSIGNED)):
            raise DataError(f"part: {sorted(map(repr, other))[0]}, expected one of {', '.join(_ASSIGNED)}")


@dataclass(frozen=True)
class Splits:
    """Disjoint training, validation and test rows, with identifiers if the dataset has any.

    A part with a fraction of 0 is None.
    """

    train: Rows
    validation: Rows | None
    test: Rows | None
    train_ids: np.ndarray | None = None
    validation_ids: np.ndarray | None = None
    test_ids: np.ndarray | None = None


def split(dataset: Dataset, *, validation: float, test: float, seed: int) -> Splits:
    r"""Splits rows at random: every row, and every group, is in exactly one part.

    Fractions are of all rows. If the source itself assigns parts, rows stay there: then ``test`` is ignored, and ``validation`` is a
    fraction of the source's training rows, or is ignored as well if the source has validation rows.

    Rows are in the order of the permutation, which depends on ``seed`` alone. The test rows don't depend on ``validation``. Groups are
    permuted as a whole, starting from the order of their sorted names, so that the parts don't depend on the row order either. A part ends
    with the group that brings it closest to its fraction, at most half of the largest group away; if it is then off by more than half of
    the fraction, groups that are too large are skipped instead. Rows on disk get the same parts, but keep their order.

    Arguments:
        dataset: All rows.
        validation: The fraction of rows held out for model selection; 0 for none.
        test: The fraction of rows held out for the final evaluation; 0 for none.
        seed: Seed of the permutation.

    Raises:
        DataError: when a fraction is out of range, a requested part gets no row, or training rows lack a modality.
    """
    _check_fractions(validation, test)
    order, groups = _permuted(dataset, torch.Generator().manual_seed(seed))
    if dataset.part is None:
        held, free = _cut(order, groups, test, len(order), "test")
        chosen, train = _cut(free, groups, validation, len(order), "validation")
    else:
        assigned = {part: order[torch.from_numpy(dataset.part == part)[order]] for part in _ASSIGNED}
        held, chosen, train = assigned["test"], assigned["validation"], assigned["train"]
        if not len(chosen):
            chosen, train = _cut(train, groups, validation, len(train), "validation")
    if len(train) < 2:
        raise DataError(f"{len(train)} of {len(order)} rows for training, expected 2 or more: give more rows or smaller fractions")
    if not isinstance(dataset.batch, Batch):
        train, chosen, held = train.sort().values, chosen.sort().values, held.sort().values
    batch, ids = dataset.batch.subset(train), _pick(dataset.ids, train)
    _check_present(batch)
    return Splits(batch, _rows(dataset, chosen), _rows(dataset, held), ids, _pick(dataset.ids, chosen), _pick(dataset.ids, held))


def _permuted(dataset: Dataset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows in random order, groups contiguous, and the group index of each row; without groups, each row is its own."""
    rows = len(dataset.batch)
    groups = torch.arange(rows) if dataset.groups is None else torch.from_numpy(np.unique(dataset.groups, return_inverse=True)[1])
    place = torch.randperm(int(groups.max()) + 1 if rows else 0, generator=generator).argsort()
    return place[groups].argsort(stable=True), groups


def _check_fractions(validation: float, test: float) -> None:
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1:
            raise DataError(f"{name}: fraction {fraction}, expected one in [0, 1)")
    if not validation + test < 1:
        raise DataError(f"validation {validation} and test {test}: they leave no row for training, expected a sum below 1")


def _cut(rows: Tensor, groups: Tensor, fraction: float, of: int, name: str) -> tuple[Tensor, Tensor]:
    """Takes the rows of whole groups that come closest to a fraction; returns them and the rest."""
    sizes = torch.unique_consecutive(groups[rows], return_counts=True)[1]
    wanted = round(fraction * of)
    count = min((0, *sizes.cumsum(0).tolist()), key=lambda end: abs(end - wanted))
    taken = torch.arange(len(rows)) < count
    if 2 * abs(count - wanted) > wanted:
        fitting = torch.tensor(_fitting(sizes.tolist(), wanted), dtype=torch.bool).repeat_interleave(sizes)
        taken = fitting if abs(int(fitting.sum()) - wanted) < abs(count - wanted) else taken
    if fraction > 0 and not taken.any():
        whole = "" if len(sizes) == len(rows) else f" in {len(sizes)} group{'s' if len(sizes) > 1 else ''}, the largest of {sizes.max()},"
        raise DataError(f"{name}: a fraction of {fraction} of {of} rows{whole} is none: give more rows, a larger fraction, or 0")
    return rows[taken], rows[~taken]


def _fitting(sizes: Sequence[int], wanted: int) -> list[bool]:
    """The groups, in order, that bring the number of rows closer to the target; those too large are skipped."""
    taken, total = [], 0
    for size in sizes:
        taken.append(abs(total + size - wanted) < abs(total - wanted))
        total += size if taken[-1] else 0
    return taken


def _check_present(train: Rows) -> None:
    for name, mask in train.present.items():
        if not mask.any():
            raise DataError(f"modality {name!r}: present in none of the {len(train)} training rows, so nothing can be learned about it")


def _rows(dataset: Dataset, rows: Tensor) -> Rows | None:
    return dataset.batch.subset(rows) if len(rows) else None


def _pick(ids: np.ndarray | None, rows: Tensor) -> np.ndarray | None:
    return None if ids is None or not len(rows) else ids[rows.numpy()]
