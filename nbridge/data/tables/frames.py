"""Adapters between data frames of several libraries and Apache Arrow columns; imputed values go into a copy of the input.

A returned frame has the class of the input, its columns in order with their names and types, and its index; columns in which
nothing was imputed are copied unchanged. None of these libraries is imported here: whoever passes a frame has imported its library.

==================== ==============================================================================================
pandas               a ``DataFrame``; its index is kept but not used, and may repeat
polars               a ``DataFrame``
pyarrow              a ``Table``; frames of any other library (modin, cuDF, or through ``__arrow_c_stream__``) return as one
NumPy                a dict of arrays, rows first: one number, text or vector per row
Hugging Face         a ``datasets.Dataset``: see `nbridge.data.tables.hub_frames`
==================== ==============================================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import narwhals
import numpy as np
from narwhals import dependencies
from numpy.typing import ArrayLike

from nbridge.common.messages import clip, listing
from nbridge.data.column import plain_array
from nbridge.data.names import Names, repeated
from nbridge.data.tables import arrow as arrow_cells
from nbridge.data.tables.arrow import is_number, is_text, pyarrow_of
from nbridge.data.tables.frame_adapter import Frame, converted
from nbridge.data.tables.schema_metadata import with_metadata_of
from nbridge.data.tables.write import Renewed
from nbridge.data.texts import MISSING, normal_text
from nbridge.errors import DataError

FrameLike = Any
"""A data frame: anything that `is_frame` accepts, or a mapping of arrays."""


def is_frame(data: object) -> bool:
    """Whether something is a data frame, excluding mappings of arrays."""
    return _is_pandas_like(data) or _is_hub(data) or _is_streamed(data) or hasattr(data, "__arrow_c_stream__") or _is_lazy(data)


def is_split(data: Mapping[str, object]) -> bool:
    """Whether a mapping holds data frames, such as the splits of a dataset."""
    return any(dependencies.is_into_dataframe(value) or _is_hub(value) or _is_streamed(value) or _is_lazy(value) for value in data.values())


def open_frame(data: FrameLike) -> Frame:
    """Wraps a data frame in its adapter.

    Raises:
        DataError: when it is not a data frame, has duplicate columns, or a MultiIndex.
    """
    if _is_lazy(data):
        raise DataError(f"rows of type {type(data).__name__} are lazy, expected a data frame in memory; load them first")
    if _is_streamed(data) or _is_hub(data):
        from nbridge.data.tables.hub_frames import HubFrame, read_stream

        frame: Frame = HubFrame(read_stream(data) if _is_streamed(data) else data)
    elif dependencies.is_pandas_dataframe(data):
        frame = PandasFrame(data)
    elif dependencies.is_polars_dataframe(data):
        frame = PolarsFrame(data)
    elif _is_pandas_like(data):
        frame = ArrowFrame(narwhals.from_native(data, eager_only=True).to_arrow())
    elif hasattr(data, "__arrow_c_stream__"):
        frame = ArrowFrame(data)
    elif isinstance(data, Mapping):
        frame = ArraysFrame(data)
    else:
        raise DataError(
            f"rows of type {type(data).__name__}, expected a data frame (pandas, polars, pyarrow, datasets) or a dict of arrays"
        )
    if (twice := repeated(frame.columns)) is not None:
        raise DataError(f"{frame.path}: duplicate column {clip(twice)!r}")
    return frame


def _is_pandas_like(data: object) -> bool:
    return dependencies.is_pandas_like_dataframe(data)


def _is_lazy(data: object) -> bool:
    # Queries that can export their result as Arrow are read.
    query = dependencies.is_into_lazyframe(data) and not hasattr(data, "__arrow_c_stream__")
    return query or dependencies.is_polars_lazyframe(data)


def _is_streamed(data: object) -> bool:
    """Whether something is a streaming dataset of Hugging Face."""
    streamed = getattr(sys.modules.get("datasets"), "IterableDataset", None)
    return isinstance(streamed, type) and isinstance(data, streamed)


def _is_hub(data: object) -> bool:
    return not isinstance(data, Mapping) and all(
        hasattr(data, name) for name in ("features", "column_names", "with_format", "select_columns")
    )


class PandasFrame(Frame):
    """A pandas data frame."""

    def __init__(self, frame: Any) -> None:
        if getattr(frame.columns, "nlevels", 1) > 1 or getattr(frame.index, "nlevels", 1) > 1:
            what = "columns" if getattr(frame.columns, "nlevels", 1) > 1 else "rows"
            raise DataError(f"data frame: a MultiIndex of {what}, expected one level; flatten it, or frame.reset_index() for rows")
        self._frame, self.rows = frame, len(frame)
        self.columns = Names(map(str, frame.columns))

    def arrow(self, name: str) -> Any:
        series = self._frame.iloc[:, self.columns.index(name)]
        series = series.sparse.to_dense() if hasattr(series, "sparse") else series
        if series.dtype == object and any(isinstance(value, np.ndarray) and value.ndim > 1 for value in series):
            series = series.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
        return converted(name, lambda pa: pa.array(series, from_pandas=True), series)

    def classes(self, column: str) -> tuple[str, ...]:
        kind = self._frame.dtypes.iloc[self.columns.index(column)]
        return tuple(map(str, kind.categories)) if hasattr(kind, "categories") and hasattr(kind, "ordered") else ()

    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        import pandas as pd

        out = self._frame.copy() if self.every(rows) else self._frame.iloc[rows].copy()
        for name, cells in renewed.items():
            if cells.fill.any():
                place = self.columns.index(name)
                out.isetitem(place, self._filled(name, out.iloc[:, place], cells))
        for name in [name for name in added if name in self.columns]:
            out.isetitem(self.columns.index(name), pd.Series(added[name].to_pylist(), index=out.index))
        new = {name: array.to_pylist() for name, array in added.items() if name not in self.columns}
        out = pd.concat([out, pd.DataFrame(new, index=out.index)], axis=1) if new else out
        out.attrs = dict(self._frame.attrs)
        return out

    def _filled(self, name: str, series: Any, cells: Renewed) -> Any:
        import pandas as pd

        # pandas knows no scalar type of some Arrow types, such as string views.
        arrow = isinstance(series.dtype, pd.ArrowDtype)
        numeric = is_number(series.dtype.pyarrow_dtype) if arrow else pd.api.types.is_numeric_dtype(series.dtype)
        if is_text(cells.values.type) and numeric:
            # An empty column, whose classes are texts.
            series = series.astype(object)
        values, places, kind = cells.values.to_pylist(), np.flatnonzero(cells.fill), series.dtype
        if isinstance(kind, pd.ArrowDtype):
            array = pd.arrays.ArrowExtensionArray(cells.put(self.arrow(name)))
            return pd.Series(array, index=series.index, name=series.name)
        if isinstance(kind, pd.SparseDtype):
            return self._filled(name, series.sparse.to_dense(), cells).astype(kind)
        if isinstance(kind, pd.CategoricalDtype):
            # A class that occurs in no row and not in the dtype must be added as a category.
            by_text = {normal_text(str(one)): one for one in reversed(kind.categories)}
            values = [by_text.get(normal_text(str(value)), value) for value in values]
            series = series.cat.add_categories([value for value in dict.fromkeys(values) if value not in kind.categories])
        if isinstance(kind, np.dtype):
            array = series.to_numpy(copy=True)
            array[places] = _objects(values, series) if kind.kind == "O" else np.array(values, dtype=kind)
        else:
            array = series.array.copy()
            array[places] = pd.array(values, dtype=series.dtype)
        return pd.Series(array, index=series.index, name=series.name, dtype=series.dtype, copy=False)

    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:
        import pandas as pd

        index = self._frame.index if self.every(rows) else self._frame.index[rows]
        labels: list[Hashable] = [self._label(name) for name in columns]
        out = pd.DataFrame(dict(enumerate(columns.values())), index=index)
        out.columns = pd.Index(labels, dtype=object) if len(labels) != len(self.columns) else self._frame.columns
        return out

    def _label(self, name: str) -> Hashable:
        return self._frame.columns[self.columns.index(name)] if name in self.columns else name


def _objects(values: Sequence[Any], like: Iterable[object]) -> np.ndarray:
    """Values as objects; lists become arrays if other values of the column are arrays."""
    array = next((value for value in like if isinstance(value, np.ndarray)), None)
    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        found[place] = np.asarray(value, array.dtype) if array is not None and isinstance(value, list) else value
    return found


class PolarsFrame(Frame):
    """A polars data frame."""

    def __init__(self, frame: Any) -> None:
        self._frame, self.rows, self.columns = frame, frame.height, Names(frame.columns)

    def arrow(self, name: str) -> Any:
        series = self._frame.get_column(name)
        return converted(name, lambda _: series.to_arrow(), series)

    def classes(self, column: str) -> tuple[str, ...]:
        kind = self._frame.schema[column]
        return tuple(kind.categories) if type(kind).__name__ == "Enum" else ()

    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        import polars as pl

        out = self._frame if self.every(rows) else self._frame[rows]
        filled = [self._filled(out.get_column(name), cells) for name, cells in renewed.items() if cells.fill.any()]
        return out.with_columns(*filled, *(pl.Series(name, array) for name, array in added.items()))

    def _filled(self, series: Any, cells: Renewed) -> Any:
        import polars as pl

        kind, values = series.dtype, np.full(len(cells.fill), None, dtype=object)
        values[cells.fill] = np.fromiter(cells.values.to_pylist(), dtype=object, count=int(cells.fill.sum()))
        if kind == pl.Null or (is_text(cells.values.type) and (kind.is_numeric() or kind == pl.Boolean)):
            return pl.Series(series.name, values.tolist())
        if type(kind).__name__ == "Enum":
            known = {normal_text(one): one for one in reversed(kind.categories)}
            values[cells.fill] = [known.get(normal_text(value), value) for value in values[cells.fill]]
        if type(kind).__name__ == "Enum" and (new := set(values[cells.fill]) - set(kind.categories)):
            kind = pl.Enum([*kind.categories, *sorted(new)])
            series = series.cast(kind)
        return pl.Series(series.name, values.tolist(), dtype=kind).zip_with(pl.Series(cells.fill), series)

    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:  # noqa: ARG002 (a polars frame has no index)
        import polars as pl

        return pl.DataFrame(dict(columns))


class ArrowFrame(Frame):
    """A pyarrow table, or one from a library that supports Arrow's C stream interface."""

    path = "table"

    def __init__(self, table: Any) -> None:
        pa = pyarrow_of()
        self._batch = isinstance(table, pa.RecordBatch)
        self._table = table if isinstance(table, pa.Table) else pa.table(table)
        self.rows, self.columns = self._table.num_rows, Names(self._table.column_names)

    def arrow(self, name: str) -> Any:
        return arrow_cells.stored(self._table.column(name))

    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        pa = pyarrow_of()
        out = self._table
        if not self.every(rows):
            columns = [arrow_cells.take(column.combine_chunks(), rows) for column in out.columns]
            out = pa.Table.from_arrays(columns, schema=out.schema)
        for name, cells in renewed.items():
            if cells.fill.any():
                place, field = self.columns.index(name), self._table.schema.field(name)
                array = cells.put(self.arrow(name))
                if isinstance(field.type, pa.BaseExtensionType):
                    array = pa.ExtensionArray.from_storage(field.type, array)
                out = out.set_column(place, field.with_type(array.type), array)
        for name, array in added.items():
            out = out.set_column(self.columns.index(name), name, array) if name in self.columns else out.append_column(name, array)
        return self._as_given(with_metadata_of(out, self._table.schema))

    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:  # noqa: ARG002 (a table has no index)
        return self._as_given(pyarrow_of().table(dict(columns)))

    def _as_given(self, table: Any) -> Any:
        return table.combine_chunks().to_batches()[0] if self._batch else table


class ArraysFrame(Frame):
    """A dict of arrays."""

    path = "arrays"
    # Arrays of text have no null.
    absent = frozenset(MISSING)

    def __init__(self, arrays: Mapping[str, ArrayLike]) -> None:
        if is_split(arrays):
            raise DataError(f"a dict of data frames ({clip(listing(map(str, arrays)), 100)}), expected one of them, or a dict of arrays")
        self._arrays = {str(name): _plain(str(name), array) for name, array in arrays.items()}
        self.columns = Names(self._arrays)
        self.rows = len(next(iter(self._arrays.values()))) if self._arrays and next(iter(self._arrays.values())).ndim else 0
        for name, array in self._arrays.items():
            if array.shape[:1] != (self.rows,):
                raise DataError(f"array {clip(name)!r} of shape {array.shape}, expected {self.rows} rows, as {self.columns[0]!r} has")

    def arrow(self, name: str) -> Any:
        array = self._arrays[name]
        if array.ndim == 1:
            return converted(name, lambda pa: pa.array(array if array.dtype.kind != "U" else array.astype(object), from_pandas=True), array)

        values = np.ascontiguousarray(array).reshape(-1)
        flat = converted(name, lambda pa: pa.array(values), values)
        for size in reversed(array.shape[1:]):
            flat = pyarrow_of().FixedSizeListArray.from_arrays(flat, size)
        return flat

    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        out = {name: array[rows] for name, array in self._arrays.items()}
        for name, cells in renewed.items():
            if cells.fill.any():
                given = out[name]
                if given.ndim > 1:
                    values = arrow_cells.vectors(name, cells.values, str).reshape(-1, *given.shape[1:])
                    out[name][cells.fill] = values.astype(given.dtype)
                    continue
                values = np.array(cells.values.to_pylist(), dtype=None if given.dtype.kind == "U" else given.dtype)
                out[name] = given.astype(np.result_type(given, values)) if given.dtype.kind == "U" else given
                out[name][cells.fill] = values
        return out | {name: _array(array) for name, array in added.items()}

    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:  # noqa: ARG002 (arrays have no index)
        return dict(columns)


def _plain(name: str, array: ArrayLike) -> np.ndarray:
    try:
        return plain_array(array)
    except (TypeError, ValueError) as error:
        reason = clip((str(error).splitlines() or [type(error).__name__])[0], 100)
        raise DataError(f"arrays: array {clip(name)!r}: not an array with rows of one shape ({reason})") from error


def _array(array: Any) -> np.ndarray:
    return arrow_cells.vectors("", array, str) if arrow_cells.is_list(array.type) else array.to_numpy(zero_copy_only=False)
