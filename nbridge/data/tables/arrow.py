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
    codes, values = distinct_values(array)
    return codes, ["" if value is None or value != value else str(value) for value in values]  # noqa: PLR0124 (NaN differs from itself)


def distinct_values(array: Any) -> tuple[np.ndarray, list[Any]]:
    """The distinct values of a column, in order of first occurrence, then None; and the index of each row's among them."""
    plain = array.dictionary_decode() if pyarrow_of().types.is_dictionary(array.type) else array
    encoded = plain.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False), [*values, None]


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


Message = Callable[[int, int, int, int], str]
"""The error for a list of another length than expected: of its row, its length, the first row that is not null, and the length expected."""


def dense(array: Any, message: Message, size: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers, or lists of one length, as an array, :math:`(N, *shape)`, and where they are null; None if nowhere.

    Arguments:
        array: An Arrow array of numbers, or of lists of them.
        message: The error for a list of another length.
        size: The length of the lists; by default that of the first one.

    Raises:
        DataError: for the first row with a list of another length.
    """
    if not is_list(array.type):
        if not array.null_count:
            return array.to_numpy(zero_copy_only=False), None
        zero = np.dtype(array.type.to_pandas_dtype()).type(0)
        return array.fill_null(zero).to_numpy(zero_copy_only=False), array.is_null().to_numpy(zero_copy_only=False)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(valid)
    lengths = pyarrow_of().compute.list_value_length(array).to_numpy(zero_copy_only=False)
    width = int(lengths[rows[0]] if rows.size else getattr(array.type, "list_size", 0)) if size is None else size
    if (wrong := rows[lengths[rows] != width]).size:
        raise DataError(message(int(wrong[0]), int(lengths[wrong[0]]), int(rows[0]), width))
    at = rows.repeat(max(1, width))
    flat, null = dense(array.flatten(), lambda row, length, first, expected: message(int(at[row]), length, int(at[first]), expected))
    shape = (width, *flat.shape[1:])
    flat, null = flat.reshape(len(rows), *shape), None if null is None else null.reshape(len(rows), *shape)
    if valid.all():
        return flat, null
    numbers, missing = np.zeros((len(array), *shape), flat.dtype), np.ones((len(array), *shape), dtype=bool)
    numbers[rows], missing[rows] = flat, False if null is None else null
    return numbers, missing


def with_nan(numbers: np.ndarray, null: np.ndarray | None) -> np.ndarray:
    """Numbers with NaN for null: float32 if exact, or unchanged if none is null."""
    return numbers if null is None else np.where(null, np.float32(np.nan), numbers)


def vectors(column: str, array: Any, where: Where) -> np.ndarray:
    """Vectors as an array of floats, :math:`(N, *shape)`, NaN where absent; :math:`(N, 0)` if all are absent and the shape is unknown.

    Raises:
        DataError: for the first row whose vector has another shape than the first one.
    """

    def message(row: int, length: int, first: int, expected: int) -> str:
        return (
            f"column {clip(column)!r}: {where(row)} holds {length} values, but {where(first)} {expected}; "
            "lists of one length are vectors of a modality"
        )

    numbers = with_nan(*dense(array, message))
    return numbers.astype(np.result_type(numbers, np.float32), copy=False)


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
    if types.is_integer(kind) and values.dtype.kind == "f":
        low, high = bounds(kind)
        return np.array([min(max(round(number), low), high) for number in values.tolist()], np.dtype(kind.to_pandas_dtype()))
    return values.astype(kind.to_pandas_dtype())


def bounds(kind: Any) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    bits = kind.bit_width
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if str(kind)[0] == "i" else (0, 2**bits - 1)
