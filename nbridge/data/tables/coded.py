"""Columns of classes in mixed modalities: how many classes each has, and the order of ordinal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from nbridge.common.messages import clip
from nbridge.data.texts import exact_number_of
from nbridge.errors import DataError
from nbridge.spec.columns import CLASSES, ColumnKind


@dataclass(frozen=True)
class Coded:
    """A column of classes of a mixed modality, with the number of its classes."""

    modality: str
    classes: int
    ordinal: bool


def coded_columns(mixed: Mapping[str, Mapping[str, ColumnKind]]) -> dict[str, Coded]:
    """The columns of classes of mixed modalities, by name."""
    return {
        column: Coded(name, kind.classes or 2, kind.type == "ordinal")
        for name, kinds in mixed.items()
        for column, kind in kinds.items()
        if kind.type in CLASSES or kind.binary
    }


def check_order(coded: Mapping[str, Coded], classes: Mapping[str, tuple[str, ...]]) -> None:
    """Checks that the listed classes of each column are as many as the spec says, and ordinal numbers ascending.

    Raises:
        DataError: for the first column where they are not.
    """
    for column, found in coded.items():
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
