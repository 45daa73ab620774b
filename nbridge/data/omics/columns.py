"""Writes imputed values into columns of obs: numbers in their dtypes, classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbridge.data.omics.classes import texts_of
from nbridge.data.omics.container import pandas_of
from nbridge.data.omics.layout import Address
from nbridge.data.omics.values import Values
from nbridge.data.output_names import IMPUTED
from nbridge.data.tables.cells import exact_number_of, number_of
from nbridge.data.texts import normal_text


@dataclass(frozen=True)
class FilledColumns:
    """Columns of a data frame, modified in place in the rows with imputed values, (r,); ``classes`` are those of a categorical column."""

    frame: Any
    columns: tuple[str, ...]
    there: bool
    classes: tuple[str, ...]
    rows: np.ndarray

    def fill(self, what: str, suffix: str, values: np.ndarray, cells: np.ndarray) -> None:
        """Writes values into the columns, or into new ones.

        The array is a ``draw``, a statistic or, with empty names, the columns themselves. Values are (r, C), or (r,) of classes; the mask
        of imputed cells is (r, C) or (r, classes).
        """
        values = values.reshape(len(values), -1)
        for place, column in enumerate(self.columns):
            own = cells[:, min(place, cells.shape[1] - 1)]
            statistic = what not in ("", "draw")
            if self.classes and not statistic:
                done = self._classes(column, values[own, place], self.rows[own])
            else:
                done = self._numbers(column, values[own, place], self.rows[own], zeros=what == "sd", statistic=statistic)
            self.frame[column + suffix] = done

    def mark(self, cells: np.ndarray) -> None:
        """Adds a mask column for each, true in the rows where it was imputed."""
        for place, column in enumerate(self.columns):
            flags = np.zeros(len(self.frame), dtype=bool)
            flags[self.rows[cells[:, place]]] = True
            self.frame[column + IMPUTED] = flags

    def probabilities(self, values: np.ndarray) -> Any:
        """Class probabilities, (r, C), as a table of all rows: 1 for the observed class."""
        table = np.zeros((len(self.frame), len(self.classes)), np.float32)
        known = self._numbers_of_classes()
        table[known >= 0, known[known >= 0]] = 1
        table[self.rows] = values
        return pandas_of().DataFrame(table, index=self.frame.index, columns=list(self.classes))

    def _classes(self, column: str, numbers: np.ndarray, rows: np.ndarray) -> Any:
        texts = np.array(self.classes, dtype=object)[numbers.round().astype(int)]
        if not self.there:
            codes = pandas_of().Categorical.from_codes(self._codes(numbers, rows), list(self.classes))
            return pandas_of().Series(codes, index=self.frame.index)
        series = self.frame[column].copy()
        if hasattr(series.dtype, "categories"):
            return self._categories(series, texts, rows)
        if getattr(series.dtype, "kind", "O") in "iu":
            # A float would lose the last digits of large codes.
            series.iloc[rows] = [int(exact_number_of(text) or 0) for text in texts.tolist()]
            return series
        if getattr(series.dtype, "kind", "O") in "bf":
            # Numeric class labels, and booleans.
            return _in_type(series, rows, np.array([number_of(text) for text in texts.tolist()], float))
        series.iloc[rows] = texts
        return series

    def _categories(self, series: Any, texts: np.ndarray, rows: np.ndarray) -> Any:
        spelt = {normal_text(str(value)): value for value in reversed(series.dtype.categories)}
        whole = {str(float(value)): value for value in series.dtype.categories if isinstance(value, int | float)}
        own = [spelt.get(normal_text(text), whole.get(text, text)) for text in texts.tolist()]
        if new := [value for value in dict.fromkeys(own) if value not in series.dtype.categories]:
            series = series.cat.add_categories(new)
        series.iloc[rows] = own
        return series

    def _codes(self, numbers: np.ndarray, rows: np.ndarray) -> np.ndarray:
        codes = np.full(len(self.frame), -1)
        codes[rows] = numbers.round()
        return codes

    def _numbers(self, column: str, values: np.ndarray, rows: np.ndarray, *, zeros: bool, statistic: bool) -> Any:
        if not self.there or zeros:
            series = pandas_of().Series(np.full(len(self.frame), 0.0 if zeros else np.nan), index=self.frame.index)
        elif self.classes:
            series = pandas_of().Series(self._numbers_of_classes().astype(float), index=self.frame.index)
        else:
            series = self.frame[column].astype("float64") if statistic else self.frame[column]
        return _in_type(series.copy(), rows, values)

    def _numbers_of_classes(self) -> np.ndarray:
        """The class index of each row, -1 where missing."""
        codes, texts = texts_of(self.frame[self.columns[0]])
        places = {normal_text(text): place for place, text in enumerate(self.classes)}
        return np.append([places.get(text, -1) for text in texts], -1)[codes]


def filled_columns(
    frame: Any, addresses: Sequence[Address], values: Values | None, classes: tuple[str, ...], rows: np.ndarray
) -> FilledColumns:
    """Creates the columns of a modality in a data frame. The object's values are None if it has no such columns."""
    known = values.classes if values is not None else classes
    return FilledColumns(frame, tuple(one.name for one in addresses), values is not None, known, rows)


def _in_type(series: Any, rows: np.ndarray, values: np.ndarray) -> Any:
    """Writes numbers into some rows of a column, keeping its dtype: integers are rounded."""
    kind = series.dtype.kind
    if kind == "f":
        series.iloc[rows] = values.astype(series.dtype if isinstance(series.dtype, np.dtype) else np.float64)
    else:
        series.iloc[rows] = values.round().astype(bool if kind == "b" else np.int64)
    return series
