"""What every kind of data frame can do: give its columns as those of Apache Arrow, and come back with cells that were filled in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.tables.arrow import pyarrow_of, stored
from nbridge.data.tables.write import Renewed
from nbridge.errors import DataError


class Frame(ABC):
    """A data frame.

    Attributes:
        noun: What it is called in messages.
        names: The names of its columns, as text.
        rows: The number of its rows.
    """

    noun: ClassVar[str] = "data frame"
    names: tuple[str, ...]
    rows: int

    @abstractmethod
    def arrow(self, name: str) -> Any:
        """A column as an arrow array, null where it is absent.

        Raises:
            DataError: when it can't be one.
        """

    def classes(self, name: str) -> tuple[str, ...]:  # noqa: ARG002 (for frames that declare them)
        """The classes that a column declares, in order; none where it declares none."""
        return ()

    @abstractmethod
    def completed(self, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> Any:
        """A frame of the same kind.

        Arguments:
            rows: The row that each of its rows is of.
            renewed: The cells that are written anew, by column.
            added: New columns, as arrow arrays, which come last, or in the place of one of the same name.
        """

    @abstractmethod
    def flags(self, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> Any:
        """A frame of truth values with the same rows, of the columns named."""

    def every(self, rows: np.ndarray) -> bool:
        """Whether rows are all rows, once each and in order."""
        return len(rows) == self.rows and bool((rows == np.arange(self.rows)).all())


def converted(name: str, convert: Callable[[Any], Any], values: Iterable[object]) -> Any:
    """A column as an arrow array; what can't be one is told by the types that it holds.

    Arguments:
        name: Its name, for messages.
        convert: Gives the array; it is handed the package pyarrow.
        values: What the column holds.

    Raises:
        DataError: when it can't be one.
    """
    pa = pyarrow_of()
    try:
        array = convert(pa)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        rows = [(row, type(value).__name__) for row, value in enumerate(values) if not _absent(value)]
        found = list(dict.fromkeys(kind for _, kind in rows))
        if len(found) > 1:
            other = next(row for row, kind in rows if kind == found[1])
            raise DataError(
                f"column {clip(name)!r} holds values of different types ({', '.join(found[:4])}), expected one of them; row {other} is the "
                f"first of another than {found[0]}"
            ) from error
        reason = clip(str(error).splitlines()[0] if str(error) else type(error).__name__, 100)
        raise DataError(f"column {clip(name)!r} can't be read ({reason})") from error
    return stored(array)


def _absent(value: object) -> bool:
    # NaN differs from itself; what comparing gives of others may be no truth value.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)  # noqa: PLR0124
