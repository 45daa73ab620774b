"""Columns of classes in mixed modalities: how many classes each has, and the order of ordinal ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nbridge.common.messages import clip
from nbridge.data.classes import some_classes
from nbridge.data.texts import exact_number_of
from nbridge.errors import DataError
from nbridge.spec.columns import CLASSES, ColumnKind


@dataclass(frozen=True)
class Coded:
    """A column of classes of a mixed modality, with the number of its classes, 0 if it is unknown."""

    modality: str
    classes: int
    ordinal: bool


def coded_columns(mixed: Mapping[str, Mapping[str, ColumnKind]]) -> dict[str, Coded]:
    """The columns of classes of mixed modalities, by name."""
    return {
        column: Coded(name, kind.classes or (2 if kind.binary else 0), kind.type == "ordinal")
        for name, kinds in mixed.items()
        for column, kind in kinds.items()
        if kind.type in CLASSES or kind.binary
    }


def wrong_number(what: str, column: Coded, classes: Sequence[str]) -> DataError:
    """The error for a column with another number of classes than the spec says, or of which it says none."""
    has = f"{what} has {len(classes)} classes ({clip(some_classes(classes), 100)})"
    but = f"modality {column.modality!r} has a column of {column.classes}" if column.classes else "the spec does not say how many"
    return DataError(f"{has}, but {but}; write classes: {len(classes)}, or list the classes in data.classes")


def check_order(mixed: Mapping[str, Mapping[str, ColumnKind]], classes: Mapping[str, tuple[str, ...]]) -> None:
    """Checks that listed classes are of columns of classes, as many as the spec says, and ordinal numbers ascending.

    Raises:
        DataError: for the first column where they are not.
    """
    for name, kinds in mixed.items():
        for column, kind in kinds.items():
            if column in classes and kind.type not in (*CLASSES, "bernoulli"):
                text = f"classes: column {clip(column)!r} is {kind.type} in modality {name!r}"
                raise DataError(f"{text}; make it categorical, ordinal or bernoulli, or remove its classes")
    for column, found in coded_columns(mixed).items():
        if not (listed := classes.get(column)):
            continue
        if len(listed) != found.classes:
            expected = f"modality {found.modality!r} has a column of {found.classes}"
            raise DataError(f"classes: column {clip(column)!r} has {len(listed)} classes, but {expected}")
        numbers = [exact_number_of(text) for text in listed]
        for number, (one, other) in enumerate(pairwise(numbers)):
            if found.ordinal and one is not None and other is not None and one > other:
                pair = f"{clip(listed[number])} before {clip(listed[number + 1])}"
                raise DataError(f"classes: column {clip(column)!r}: ordinal levels out of order, {pair}; list them from lowest to highest")
