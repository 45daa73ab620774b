"""Matches columns to modalities, and checks all rows before imputation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from nbridge.common.messages import did_you_mean, listing
from nbridge.common.progress import Progress
from nbridge.data.arrays import check_same_rows, to_batch
from nbridge.data.batch import Batch
from nbridge.data.blocks import Block, RowReader
from nbridge.data.column import PRESENT, check_layout, check_mask_layout
from nbridge.data.covariates import check_sizes
from nbridge.data.ids import check_many_ids
from nbridge.data.marks import as_marks, check_marks
from nbridge.errors import CellError, DataError
from nbridge.models.support import SupportError, check_support
from nbridge.nn.likelihoods import Likelihood


@dataclass(frozen=True)
class Plan:
    """The columns of a file: the key of each modality and presence mask (``NAME__present``) by name, and the keys of all other columns.

    The keys of marks of an earlier imputation are ``marks``, by modality.
    """

    taken: Mapping[str, str]
    others: tuple[str, ...]
    rows: int
    in_part: frozenset[str] = frozenset()
    marks: Mapping[str, str] = field(default_factory=dict)


def make_plan(rows: RowReader, likelihoods: Mapping[str, Likelihood]) -> Plan:
    """Matches columns to modalities by name, dtype and shape, before any row is read.

    Raises:
        DataError: if a column does not match its modality, or its name looks like a typo of a modality's.
    """
    keys = rows.names
    taken, others = match_keys(rows.keys, keys, rows.noun)
    for key in others:
        # As for arrays in memory: otherwise a typo would silently impute the whole modality.
        absent = [known for name, known in keys.items() if name not in taken]
        if rows.by_name and key != rows.id_key and (near := did_you_mean(key, absent, cutoff=0.8)):
            raise DataError(f"{rows.noun} {key!r}: no such modality.{near} Modalities: {listing(keys.values())}")
    there = {name: likelihood for name, likelihood in likelihoods.items() if name in taken or name + PRESENT in taken}
    counts = {name: _rows_of(rows, taken, name, likelihood) for name, likelihood in there.items()}
    check_same_rows(counts)
    total = next(iter(counts.values()))
    marks = {name: key for name, key in rows.marks.items() if name in there}
    for name, key in marks.items():
        check_marks(key, rows.layout(key).shape, total, prod(likelihoods[name].shape))
    return Plan(taken, others, total, marks=marks)


def check_rows(rows: RowReader, likelihoods: Mapping[str, Likelihood], plan: Plan, size: int, report: Progress) -> Plan:
    """Checks every row, and finds the modalities that are partially observed in some row.

    Raises:
        DataError: for the first invalid value, with its row number in the file.
    """
    if (ids := rows.id_key) is not None and ids in plan.others:
        check_many_ids(lambda: rows.identifiers(ids, plan.rows, size), rows.id_wording(ids))
    for key in plan.others:
        rows.check_passed(key)
    there = {name: likelihood for name, likelihood in likelihoods.items() if name in plan.taken}
    for block in rows.blocks(plan.marks.values(), 0, plan.rows, size) if plan.marks else ():
        for key in plan.marks.values():
            as_marks(key, block.with_nan(key))
    in_part = {name for name, likelihood in there.items() if _is_in_part(rows, plan, name, likelihood, size, report)}
    return replace(plan, in_part=frozenset(in_part))


def read_block(block: Block, taken: Mapping[str, str], likelihoods: Mapping[str, Likelihood]) -> Batch:
    """Converts a block of rows to a batch, in the floating types of a model.

    Raises:
        DataError: if the rows do not match the model.
    """
    shapes = {name: likelihood.shape for name, likelihood in likelihoods.items()}
    wide = {name for name, likelihood in likelihoods.items() if likelihood.wide}
    arrays = {name: block.with_nan(key) for name, key in taken.items()}
    return to_batch(arrays, shapes, allow_missing=True, first=block.start, wide=wide)


def with_sizes(likelihoods: Mapping[str, Likelihood], batch: Batch, first: int = 0) -> Batch:
    """The batch, after checking that rows with counts have the size factor that a column holds; ``first`` is the number of its first row.

    Raises:
        DataError: for the first row without one.
    """
    columns = {name: one.size_column for name, one in likelihoods.items() if one.size_column}
    check_sizes(columns, batch, lambda row: f"row {first + row}")
    return batch


def match_keys(found: Collection[str], keys: Mapping[str, str], noun: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Matches the columns of a file to modalities by name.

    Returns:
        The key of each modality in the file, by its name, and of its mask, by ``NAME__present``; and the keys of all other columns.

    Raises:
        DataError: if no column matches, or a modality is found under its own name but the spec gives it another key.
    """
    for name, key in keys.items():
        if key not in found and name in found and name not in keys.values():
            raise DataError(f"{noun} {name!r}: the spec expects modality {name!r} in {noun} {key!r}; rename it")
    taken = {name + ending: key + ending for name, key in keys.items() for ending in ("", PRESENT) if key + ending in found}
    others = tuple(key for key in found if key not in taken.values())
    if not taken:
        raise DataError(f"no {noun} for any modality ({', '.join(keys.values())}). Found: {listing(others)}")
    return taken, others


def _rows_of(rows: RowReader, taken: Mapping[str, str], name: str, likelihood: Likelihood) -> int:
    if name not in taken:
        article = "an" if rows.noun[0] in "aeiou" else "a"
        raise DataError(f"modality {name!r}: {taken[name + PRESENT]} is given without {article} {rows.noun} {name!r}")
    layout = rows.layout(taken[name])
    check_layout(name, layout.shape, layout.dtype, likelihood.shape)
    if name + PRESENT in taken:
        mask = rows.layout(taken[name + PRESENT])
        check_mask_layout(name, mask.shape, mask.dtype, layout.shape[0])
    return layout.shape[0]


def _is_in_part(rows: RowReader, plan: Plan, name: str, likelihood: Likelihood, size: int, report: Progress) -> bool:
    """Checks all rows of a modality, and returns whether some are partially observed."""
    in_part, outside = False, None
    taken = {known: plan.taken[known] for known in (name, name + PRESENT) if known in plan.taken}
    for block in rows.blocks(taken.values(), 0, plan.rows, size):
        try:
            batch = read_block(block, taken, {name: likelihood})
        except CellError as error:
            raise error.at(rows.place) from error
        in_part = in_part or name in batch.cells
        try:
            check_support({name: likelihood}, batch, block.start)
        except SupportError as found:
            # Continues, to count such rows.
            outside = found if outside is None else SupportError(outside.cell, outside.problem, (outside.rows or 0) + (found.rows or 0))
        report(f"checking {name}", min(block.start + size, plan.rows), plan.rows)
    if outside is not None:
        raise outside.at(rows.place)
    return in_part
