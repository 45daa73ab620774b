"""Converts Apache Arrow columns: distinct values to texts, lists to vectors and back.

A vector is a list of numbers, or nested lists of them; all vectors of a column have one shape. Null and NaN mark absent values.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from nbridge.common.messages import clip
from nbridge.errors import DataError

Where = Callable[[int], str]


def pyarrow_of() -> Any:
    """Imports pyarrow when it is first used, because runs on arrays alone need not wait for it."""
    import pyarrow
    import pyarrow.compute

    return pyarrow


def is_list(kind: Any) -> bool:
    """Whether a column holds lists."""
    types = pyarrow_of().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def is_vector(kind: Any) -> bool:
    """Whether a column holds lists of numbers, possibly nested."""
    return is_list(kind) and is_number(value_type(kind))


def value_type(kind: Any) -> Any:
    """The innermost value type of lists."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def flat_type(kind: Any) -> Any:
    """The value type of a dictionary; any other type itself."""
    return kind.value_type if pyarrow_of().types.is_dictionary(kind) else kind


def unfit(kind: Any) -> str:
    """Why a column of this type can't be used; empty if it can."""
    types = pyarrow_of().types
    inner = value_type(kind)
    if types.is_temporal(inner):
        return f"holds dates or times ({clip(kind)}), not numbers; convert them to days or seconds since one of them"
    if is_list(kind) and not is_vector(kind):
        return f"holds lists that are not of numbers ({clip(kind)})"
    single = is_number(kind) or types.is_decimal(kind) or types.is_null(kind) or is_text(kind)
    if not single and not is_vector(kind) and not types.is_dictionary(kind):
        return f"is of type {clip(kind)}, expected numbers, text, truth values, or lists of numbers"
    return unfit(kind.value_type) if types.is_dictionary(kind) else ""


def is_text(kind: Any) -> bool:
    """Whether a column holds text."""
    types = pyarrow_of().types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_number(kind: Any) -> bool:
    """Whether a column holds numbers or booleans."""
    types = pyarrow_of().types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def distinct(array: Any) -> tuple[np.ndarray, list[str]]:
    """The distinct values of a column as text, in order of first occurrence, then an empty text; and the index of each row's among them.

    Example:
        >>> distinct(pyarrow_of().array([2.5, None, 1, 2.5]))
        (array([0, 2, 1, 0], dtype=int32), ['2.5', '1.0', ''])
    """
    plain = array.dictionary_decode() if pyarrow_of().types.is_dictionary(array.type) else array
    encoded = plain.dictionary_encode()
    texts = ["" if value is None else str(value) for value in encoded.dictionary.to_pylist()]
    return encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False), [*texts, ""]


def row_texts(array: Any, change: Callable[[str], str]) -> np.ndarray:
    """The text of each row, (N,), empty for null.

    Arguments:
        array: A column.
        change: Called with each distinct text.
    """
    codes, texts = distinct(array)
    return np.array([*map(change, texts)], dtype=object)[codes]


def stored(array: Any) -> Any:
    """The lists that store a tensor column; other columns unchanged, as the storage of an unknown extension type may not be its value."""
    pa = pyarrow_of()
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.storage if isinstance(array, pa.ExtensionArray) and is_list(array.storage.type) else array


def take(array: Any, rows: np.ndarray) -> Any:
    """Some rows of a column."""
    pa = pyarrow_of()
    # pyarrow's take supports every type but string views.
    plain = array.cast(pa.large_string()) if pa.types.is_string_view(array.type) else array
    return plain.take(pa.array(rows)).cast(array.type) if plain is not array else array.take(pa.array(rows))


# Vectors


def vectors(column: str, array: Any, where: Where) -> np.ndarray:
    """Vectors as an array, :math:`(N, *shape)`, NaN where absent; :math:`(N, 0)` if all are absent and the shape is unknown.

    Arguments:
        column: The name of the column, for messages.
        array: Lists of numbers.
        where: Formats the location of a row, for messages.

    Raises:
        DataError: for the first row whose vector has another shape than the first one.
    """
    if not is_list(array.type):
        return _numbers(array)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(valid)
    if not rows.size:
        size = getattr(array.type, "list_size", 0)
        return np.full((len(array), size), np.nan, np.float32)
    lengths = pyarrow_of().compute.list_value_length(array).to_numpy(zero_copy_only=False)
    size = int(lengths[rows[0]])
    if (wrong := rows[lengths[rows] != size]).size:
        row = int(wrong[0])
        raise DataError(
            f"column {clip(column)!r}: {where(row)} holds {int(lengths[row])} values, but {where(int(rows[0]))} {size}; "
            "lists of one length are vectors of a modality"
        )
    inner = vectors(column, array.flatten(), lambda place: where(int(rows[place // max(1, size)])))
    inner = inner.reshape(len(rows), size, *inner.shape[1:])
    if valid.all():
        return inner
    out = np.full((len(array), *inner.shape[1:]), np.nan, inner.dtype)
    out[rows] = inner
    return out


def _numbers(array: Any) -> np.ndarray:
    """Numbers with NaN for null: float32 if exact."""
    types, kind = pyarrow_of().types, array.type
    small = types.is_boolean(kind) or types.is_float16(kind) or types.is_float32(kind) or (types.is_integer(kind) and kind.bit_width <= 16)
    if types.is_boolean(kind):
        array = array.cast(pyarrow_of().uint8())
    return array.to_numpy(zero_copy_only=False).astype(np.float32 if small else np.float64)


def lists(values: np.ndarray, kind: Any) -> Any:
    """Vectors, :math:`(N, *shape)`, as lists of an Arrow type.

    Example:
        >>> import pyarrow as pa
        >>> lists(np.array([[1.0, 2.4], [0.6, -1.0]]), pa.list_(pa.uint8())).to_pylist()
        [[1, 2], [1, 0]]
    """
    pa = pyarrow_of()
    if not is_list(kind):
        return pa.array(_as_kind(values, kind), kind)
    inner = lists(values.reshape(-1, *values.shape[2:]), kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(inner, type=kind)
    large = pa.types.is_large_list(kind)
    offsets = pa.array(np.arange(len(values) + 1) * values.shape[1], pa.int64() if large else pa.int32())
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(offsets, inner, type=kind)


def list_type(shape: tuple[int, ...], kind: Any) -> Any:
    """The list type of vectors of a shape."""
    for size in reversed(shape):
        kind = pyarrow_of().list_(kind, size)
    return kind


def shaped(values: np.ndarray, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Reshapes vectors, :math:`(N, n)`, to the number of axes of a list type.

    Arguments:
        values: The flat vectors.
        kind: The list type.
        shape: The shape of the column's vectors; if unknown, all axes but the last are of size 1.
    """
    axes = 0
    while is_list(kind):
        axes, kind = axes + 1, kind.value_type
    fitting = shape if len(shape) == axes and prod(shape) == values.shape[1] else (1,) * (axes - 1) + (values.shape[1],)
    return values.reshape(len(values), *fitting)


def _as_kind(values: np.ndarray, kind: Any) -> np.ndarray:
    types = pyarrow_of().types
    if types.is_boolean(kind):
        return values >= 0.5
    if types.is_integer(kind):
        low, high = bounds(kind)
        return np.array([min(max(round(number), low), high) for number in values.tolist()], np.dtype(kind.to_pandas_dtype()))
    return values.astype(kind.to_pandas_dtype())


def bounds(kind: Any) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    bits = kind.bit_width
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if str(kind)[0] == "i" else (0, 2**bits - 1)
