"""Keeps the metadata of an Arrow schema when columns are added: those of the file, of its columns, and pandas' description of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nbridge.common.json_text import parse_json
from nbridge.data.tables.arrow import pyarrow_of

_PANDAS = b"pandas"
_TYPES = {"bool": ("bool", "bool"), "double": ("float64", "float64"), "int64": ("int64", "int64"), "string": ("unicode", "object")}
"""The names of a type in pandas' description, ``pandas_type`` and ``numpy_type``; others are objects."""
_TEXT = ("object", "str", "string")
_PLAIN = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}
"""The description of column names that are text."""


def with_metadata_of(table: Any, given: Any, *, part: tuple[int, int] | None = None, nullable: bool = False) -> Any:
    """A table with the metadata of a schema.

    Arguments:
        table: Columns of the schema, some of them changed, and new ones.
        given: The schema.
        part: The first row of the table among the rows of the schema, and the one after its last, if it holds a part of them.
        nullable: Whether columns may have nulls that had none.
    """
    pa = pyarrow_of()
    fields = [_like(field, given, nullable=nullable) for field in table.schema]
    metadata = dict(given.metadata or {})
    if _PANDAS in metadata:
        # Descriptions of other shapes, which pandas does not read either, are kept as they are.
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            metadata[_PANDAS] = json.dumps(_described(parse_json(metadata[_PANDAS]), table.schema, given, part)).encode()
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, metadata or None))


def _like(field: Any, given: Any, *, nullable: bool) -> Any:
    if field.name not in given.names:
        return field
    own = given.field(field.name).with_type(field.type)
    return own.with_nullable(own.nullable or nullable)


def _described(pandas: Mapping[str, Any], schema: Any, given: Any, part: tuple[int, int] | None) -> dict[str, Any]:
    """Pandas' description, extended by the new columns of a schema, and restricted to a part of the rows."""
    same = {field.name for field in schema if field.name in given.names and field.type == given.field(field.name).type}
    known = {one.get("field_name") or one["name"]: one for one in pandas["columns"]}
    columns = [known[field.name] if field.name in known and field.name in same else _column(field) for field in schema]
    index = [_cut(one, part) for one in pandas["index_columns"] if isinstance(one, Mapping) or one in schema.names]
    levels = pandas.get("column_indexes") or [_PLAIN]
    if len(levels) > 1 or levels[0]["numpy_type"] not in _TEXT:
        # The names of new columns are no numbers, dates or tuples.
        levels = [_PLAIN]
    return {**pandas, "columns": columns, "index_columns": index, "column_indexes": levels}


def _column(field: Any) -> dict[str, Any]:
    pandas_type, numpy_type = _TYPES.get(str(field.type), (str(field.type), "object"))
    return {"name": field.name, "field_name": field.name, "pandas_type": pandas_type, "numpy_type": numpy_type, "metadata": None}


def _cut(index: Any, part: tuple[int, int] | None) -> Any:
    """An index, of which a range has the numbers of a part of the rows."""
    if part is None or not isinstance(index, Mapping) or index.get("kind") != "range":
        return index
    start, stop = (index["start"] + index["step"] * row for row in part)
    return {**index, "start": start, "stop": stop}
