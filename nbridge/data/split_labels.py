"""Row labels that define splits: the group of a row, and the part that the data assign it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nbridge.common.messages import clip, listing, quoted
from nbridge.data.ids import identifier_of
from nbridge.data.tables.cells import MISSING
from nbridge.data.texts import check_unicode
from nbridge.errors import DataError

PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "test": "test",
}
"""The part of each accepted value of a split column, ignoring case."""


class NoColumnError(DataError):
    """A column does not exist, or does not hold one value per row."""


@dataclass(frozen=True, eq=False)
class RowLabels:
    """One text label per row.

    Arguments:
        what: Their name in messages: ``column 'patient'``.
        texts: The labels, N of them; empty where a row has none.
        where: Formats the location of a row by its index, for messages.
        origin: The file, for messages; empty if there is none.
        modality: The modality that uses the same column, if any.
        alone: Whether rows without a label are groups of their own; otherwise they are errors.
    """

    what: str
    texts: Sequence[str]
    where: Callable[[int], str] = "row {}".format
    origin: str = ""
    modality: str = ""
    alone: bool = False

    def error(self, key: str, text: str) -> DataError:
        """An error in these labels, with the file, the column and the spec key that names it."""
        return DataError(f"{self.origin}{': ' if self.origin else ''}{self.what} (data.{key}): {text}")


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each row.

    Arguments:
        labels: The labels that name the groups.
        names: The sorted names of the groups.
        codes: The index of each row's group, :math:`(N,)`; ungrouped rows have indices beyond the last name.
    """

    labels: RowLabels
    names: tuple[str, ...]
    codes: np.ndarray

    def name(self, code: int) -> str:
        """The name of a group in messages."""
        return repr(clip(self.names[code])) if code < len(self.names) else "of a row without a label"


def groups_of(labels: RowLabels) -> Groups:
    """Numbers the groups in the order of their names, independently of the row order.

    Raises:
        DataError: for the first row without a group.

    Example:
        >>> groups_of(RowLabels("column 'patient'", ["b", "a", "b"])).codes
        array([1, 0, 1])
    """
    missing = [row for row, text in enumerate(labels.texts) if not text]
    if missing and not labels.alone:
        raise labels.error("group", f"{_without(labels, missing)} no group; expected one in each row: fill it in, or leave the rows out")
    names = tuple(sorted({*labels.texts} - {""}))
    places = {name: place for place, name in enumerate(names)}
    codes = np.array([places.get(text, -1) for text in labels.texts], dtype=np.int64)
    codes[missing] = len(names) + np.arange(len(missing))
    return Groups(labels, names, codes)


def parts_of(labels: RowLabels) -> np.ndarray:
    """The part of each row: ``train``, ``validation`` or ``test``, :math:`(N,)`.

    Raises:
        DataError: when a row has no valid value, no row is for training, or a modality uses the column.

    Example:
        >>> parts_of(RowLabels("column 'fold'", ["Training", "dev", "TEST"])).tolist()
        ['train', 'validation', 'test']
    """
    if labels.modality:
        text = f"modality {labels.modality!r} uses this column as well, which is constant in the training rows; remove it from the modality"
        raise labels.error("split", text)
    if missing := [row for row, text in enumerate(labels.texts) if not text]:
        raise labels.error("split", f"{_without(labels, missing)} no part; expected {_EXPECTED}")
    folded = [text.casefold() for text in labels.texts]
    if (row := next((row for row, text in enumerate(folded) if text not in PART_OF), None)) is not None:
        raise labels.error("split", f"{labels.where(row)} holds {quoted(labels.texts[row])}, expected {_EXPECTED}")
    parts = np.array([PART_OF[text] for text in folded], dtype="<U10")
    if not (parts == "train").any():
        counts = Counter(parts.tolist())
        found = listing(f"{part} {count:,}" for part, count in sorted(counts.items()))
        raise labels.error("split", f"no row for training, expected rows that hold train; found {found}")
    return parts


def check_undivided(groups: Groups, parts: np.ndarray) -> None:
    """Checks that no group has rows in two parts.

    Raises:
        DataError: for the first such group, with a row in each part.
    """
    first: dict[int, int] = {}
    for row, code in enumerate(groups.codes.tolist()):
        other = first.setdefault(code, row)
        if parts[other] != parts[row]:
            where = groups.labels.where
            raise groups.labels.error(
                "group",
                f"group {groups.name(code)} has {where(other)} in {parts[other]} and {where(row)} in {parts[row]}; "
                "put all rows of a group into one part, or leave out data.split or data.group",
            )


def label_texts(values: np.ndarray | Iterable[object]) -> list[str]:
    """Formats values as labels: whole numbers without a decimal point, texts stripped; empty where a value is missing.

    Arguments:
        values: One value per row, an array :math:`(N,)` or any Python objects.

    Example:
        >>> label_texts(np.array([3.0, np.nan])), label_texts([" a", None, b"b"])
        (['3', ''], ['a', '', 'b'])
    """
    if isinstance(values, np.ndarray):
        values = values.astype(str).tolist() if values.dtype.kind in "mM" else values.tolist()
    return [_text(value) for value in values]


def array_labels(what: str, array: np.ndarray, origin: str = "") -> RowLabels:
    """The labels in an array.

    Arguments:
        what: Its name, for messages.
        array: One value per row, :math:`(N,)` or :math:`(N, 1)`.
        origin: The file, for messages.

    Raises:
        NoColumnError: when it has another shape.
        DataError: when it is not text.
    """
    if array.shape[1:] not in ((), (1,)) or not array.ndim:
        prefix = f"{origin}: " if origin else ""
        raise NoColumnError(f"{prefix}{what} is of shape {array.shape}, expected one value for each row, (rows,)")
    check_unicode(array, f"{origin}: {what}" if origin else what)
    return RowLabels(what, label_texts(array.reshape(-1)), origin=origin)


_EXPECTED = "train (or training), validation (or valid, val, dev) or test in each row"
_ABSENT = frozenset((*MISSING, "<NA>", "NaT", "None"))


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = identifier_of(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
    return "" if value is None or text in _ABSENT else text


def _without(labels: RowLabels, missing: Sequence[int]) -> str:
    """Describes the first row without a label, and how many more there are."""
    more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    return f"{labels.where(missing[0])}{more} {'have' if more else 'has'}"
