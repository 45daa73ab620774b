"""The columns to write for an imputed table: imputed columns, masks, and interval statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.imputed import Imputed, marks_of
from nbridge.data.names import repeated
from nbridge.data.output_names import DRAW, IMPUTED, statistic_suffix, statistics_by_level
from nbridge.data.source import Field
from nbridge.data.tables.cell_format import CellStyle, general
from nbridge.data.tables.columns import Chunk
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.text_cells import spelt
from nbridge.errors import DataError


@dataclass(frozen=True)
class CellPlan:
    """What to write of a table.

    Arguments:
        styles: The cell format of each scalar column.
        shapes: The vector shape of each list column, if known.
        kept: The columns of the table to write again, in order.
        passed: Those of them that belong to no modality.
        written: The modality columns to write; None for all.
        elsewhere: Modalities whose values are written elsewhere, such as images; the table only gets their masks.
    """

    layout: TableLayout
    styles: Mapping[str, CellStyle]
    shapes: Mapping[str, tuple[int, ...]]
    kept: tuple[str, ...]
    passed: tuple[str, ...]
    written: frozenset[str] | None = None
    elsewhere: tuple[str, ...] = ()

    def fields(self, name: str) -> list[Field]:
        """The columns of a modality to write."""
        return [field for field in self.layout.fields(name) if self.written is None or field.column in self.written]


def learn_formats(
    styles: Mapping[str, CellStyle], shapes: dict[str, tuple[int, ...]], chunk: Chunk, numbers: Mapping[str, np.ndarray]
) -> None:
    """Updates the cell format of scalar columns, and the vector shapes of list columns, from a chunk and its columns as numbers."""
    for column, values in numbers.items():
        if column in styles:
            styles[column].learn(chunk.column(column), values)
    shapes |= {column: array.shape[1:] for column, array in chunk.vectors.items() if array.size}


@dataclass(frozen=True)
class CellColumn:
    """Some rows of an output column.

    Arguments:
        numbers: Its values, draws first, (K, N), or vectors, (K, N, n).
        fill: Which cells to rewrite, (N,); others keep their text.
        observed: The content of other cells in a column that the file lacks: a text, or the column whose text is copied.
        style: The number format; seven digits by default.
        mask: Whether values are booleans.
        marks: Which cells of a modality's column were imputed, now or before, (N,).
    """

    name: str
    numbers: np.ndarray
    fill: np.ndarray
    observed: str = ""
    same_as: str | None = None
    style: CellStyle | None = None
    mask: bool = False
    marks: np.ndarray | None = None

    def number(self, draw: int, row: int) -> float:
        """The value of a row in a draw; a column may have one value for all draws."""
        return float(self.numbers[draw if len(self.numbers) > 1 else 0, row])

    def text(self, draw: int, row: int) -> str:
        """The same, formatted as a cell."""
        number = self.number(draw, row)
        return general(number) if self.style is None else self.style.text(number)


def output_columns(plan: CellPlan, imputed: Imputed[np.ndarray]) -> list[CellColumn]:
    """All output columns: imputed ones, then masks, then statistics.

    Raises:
        DataError: when two would have the same name.
    """
    names = [name for name in plan.layout.columns if name in imputed.values and plan.fields(name)]
    values = [column for name in names for column in _imputed(plan, name, imputed)]
    masked = [*names, *(name for name in plan.elsewhere if name in imputed.mask)]
    masks = [column for name in masked for column in _masks(plan, name, marks_of(imputed, name))]
    statistics = [column for name in names for column in _statistics(plan, name, imputed)]
    columns = [*values, *masks, *statistics]
    named = [*plan.passed, *(column.name for column in columns), *([] if imputed.draws is None else [DRAW])]
    if (twice := repeated(named)) is not None:
        raise DataError(f"column {clip(twice)!r} would be written twice; rename the one in the file")
    return columns


def _imputed(plan: CellPlan, name: str, imputed: Imputed[np.ndarray]) -> Iterator[CellColumn]:
    for field in plan.fields(name):
        numbers, style = _guess(plan, name, field, imputed.each_draw(name)), plan.styles.get(field.column)
        fill, marks = (_cells(mask, field) for mask in (imputed.mask[name], marks_of(imputed, name)))
        if field.column in plan.layout.texts:
            numbers, style = spelt(plan.layout.texts[field.column], numbers)
        yield CellColumn(field.column, numbers, fill, style=style, marks=marks)


def _guess(plan: CellPlan, name: str, field: Field, array: np.ndarray) -> np.ndarray:
    """The values of a column of its modality, (K, N): a number, or the most likely class; vectors, (K, N, n)."""
    if plan.layout.is_index(name):
        return array
    elements = _flat(array, 2)[..., field.start : field.stop]
    if field.column in plan.layout.lists or field.column in plan.layout.texts:
        return elements
    return elements.argmax(-1) if field.stop - field.start > 1 else elements[..., 0]


def _cells(mask: np.ndarray, field: Field) -> np.ndarray:
    return mask if mask.ndim == 1 else np.asarray(_flat(mask, 1)[:, field.start : field.stop].any(axis=1))


def _flat(array: np.ndarray, axes: int) -> np.ndarray:
    """Flattens all axes after the first ones, even without rows."""
    return array.reshape(*array.shape[:axes], prod(array.shape[axes:]))


def _masks(plan: CellPlan, name: str, mask: np.ndarray) -> Iterator[CellColumn]:
    """Masks: one for the modality, or one per column if a row is partially observed; vectors for vectors."""
    fields, everywhere = plan.fields(name), np.ones(len(mask), dtype=bool)
    if mask.ndim > 1 and fields[0].column in plan.layout.lists:
        yield CellColumn(fields[0].column + IMPUTED, _flat(mask, 1)[None], everywhere, mask=True)
        return
    for column, cells in [(name, mask)] if mask.ndim == 1 else [(field.column, _cells(mask, field)) for field in fields]:
        yield CellColumn(column + IMPUTED, cells[None].astype(int), everywhere, mask=True)


def _statistics(plan: CellPlan, name: str, imputed: Imputed[np.ndarray]) -> Iterator[CellColumn]:
    """Mean, standard deviation and interval bounds of numeric columns; for classes the probability of the class written."""
    if imputed.statistics is None or not imputed.statistics.of(name):
        # Images in files have none.
        return
    for field in plan.fields(name):
        cells, column = _cells(imputed.mask[name], field), field.column
        if field.classes or plan.layout.is_index(name) or _has_probability(imputed, name, field):
            probability = _probability(plan, name, field, imputed)
            yield CellColumn(column + statistic_suffix("probability"), probability[None], cells, observed="1")
            continue
        listed = column in plan.layout.lists
        for what, suffix, array in statistics_by_level(imputed, name):
            if what == "probability":
                continue
            found = _flat(array, 1)[:, field.start : field.stop]
            own = None if listed or what == "sd" else column
            numbers = found if listed else found[:, 0]
            yield CellColumn(column + suffix, numbers[None], cells | listed, "0" if what == "sd" else "", own)


def _has_probability(imputed: Imputed[np.ndarray], name: str, field: Field) -> bool:
    """Whether a column of a mixed modality is binary: numbers have no probability."""
    assert imputed.statistics is not None
    found = imputed.statistics.probability.get(name)
    return found is not None and not bool(np.isnan(found[:, field.start]).all())


def _probability(plan: CellPlan, name: str, field: Field, imputed: Imputed[np.ndarray]) -> np.ndarray:
    """The probability of the class written, (N,)."""
    assert imputed.statistics is not None
    if plan.layout.is_index(name):
        return np.take_along_axis(imputed.statistics.probability[name], imputed.values[name].astype(int)[:, None], 1)[:, 0]
    mean = _flat(imputed.statistics.mean[name], 1)[:, field.start : field.stop].clip(0, 1)
    written = _guess(plan, name, field, imputed.values[name][None])[0]
    if field.stop - field.start == 1:
        return np.where(written >= 0.5, mean[:, 0], 1 - mean[:, 0])
    return np.take_along_axis(mean, written.astype(int)[:, None], 1)[:, 0] / mean.sum(-1).clip(min=1e-30)
