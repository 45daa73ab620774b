"""Damaged Parquet files: bytes, and tables of other types, names and metadata."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import nbridge

from .csv import cells, spec
from .mutations import WORDS, damaged
from .rows import model_of, use

TYPES = (
    pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.uint64(), pa.string(), pa.large_string(), pa.bool_(), pa.date32(),
    pa.timestamp("ns"), pa.decimal128(20, 3), pa.binary(), pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.float32()),
    pa.list_(pa.float64(), 2),    pa.null(),    pa.struct([("a", pa.float32())]), pa.duration("s"), pa.time64("us"),
)  # fmt: skip


@functools.cache
def table() -> pa.Table:
    """The rows of the csv files, typed."""
    names, *rows = cells()
    columns: dict[str, list[Any]] = {name: [row[place] or None for row in rows] for place, name in enumerate(names)}
    for name in ("age", "dose", "x0", "x1"):
        columns[name] = [None if value is None else float(value) for value in columns[name]]
    return pa.table(columns)


def written(rows: pa.Table, **options: Any) -> bytes:
    """A Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, **options)
    return buffer.getvalue()


@functools.cache
def model(folder: Path) -> nbridge.Model:
    """A model of the undamaged rows."""
    path = folder / "base.parquet"
    path.write_bytes(written(table()))
    return model_of(spec(path))


def prepare(folder: Path) -> None:
    """Makes the model."""
    model(folder)


def case(rng: Random, folder: Path) -> None:
    """Uses a damaged table."""
    path = folder / "rows.parquet"
    options = {
        "compression": rng.choice(("snappy", "none", "zstd")),
        "row_group_size": rng.choice((5, 100)),
        "use_dictionary": rng.random() < 0.5,
    }
    if rng.random() < 0.5:
        path.write_bytes(damaged(rng, written(table(), **options)))
    else:
        path.write_bytes(written(changed(rng, table()), **options))
    use(rng, path, spec, model(folder.parent), unchanged)


def changed(rng: Random, rows: pa.Table) -> pa.Table:
    """A table with a column of another type, of another name, of other values, missing or doubled."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(rows.num_columns)
        name, column = rows.column_names[place], rows.column(place)
        match rng.randrange(6):
            case 0:
                rows = rows.remove_column(place) if rows.num_columns > 1 else rows
            case 1:
                rows = rows.append_column(rng.choice((name, "__index_level_0__", rng.choice(WORDS).replace("\ud800", ""))), column)
            case 2:
                rows = rows.rename_columns(
                    [*rows.column_names[:place], rng.choice(("id", "x", "a.b", "")), *rows.column_names[place + 1 :]]
                )
            case 3:
                rows = (
                    rows.take(pa.array([rng.randrange(rows.num_rows) for _ in range(rng.choice((0, 1, 30)))], pa.int64()))
                    if rows.num_rows
                    else rows
                )
            case 4:
                strange = pa.array([rng.choice((None, float("nan"), float("inf"), 1e300, -0.0, 1.5)) for _ in range(rows.num_rows)])
                rows = rows.set_column(place, name, strange)
            case _:
                kind = rng.choice(TYPES)
                try:
                    converted = column.cast(kind)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
                    converted = pa.nulls(rows.num_rows, kind)
                rows = rows.set_column(place, name, converted)
    return rows


def unchanged(before: Path, after: Path) -> None:
    """Values that are there are those of the file."""
    old, new = pq.read_table(before), pq.read_table(after)
    assert old.num_rows == new.num_rows, "another number of rows"
    for name in old.column_names:
        values, completed = old.column(name), new.column(name)
        # A column without any value has the type of what it is filled with.
        empty = all(one is None or one != one for one in values.to_pylist())  # noqa: PLR0124 (NaN)
        assert values.type == completed.type or empty, f"{name}: {values.type} became {completed.type}"
        for one, other in zip(values.to_pylist(), completed.to_pylist(), strict=True):
            assert one is None or one != one or repr(one) == repr(other), f"{name}: {one!r} became {other!r}"  # noqa: PLR0124 (NaN)
