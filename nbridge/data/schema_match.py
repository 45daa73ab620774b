"""Matches what a source offers against what a spec requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor

from nbridge.common.messages import did_you_mean, listing
from nbridge.errors import DataError


@dataclass(frozen=True)
class Available:
    """One modality of a source.

    Arguments:
        shape: The shape of a row; for classes, one axis of their number.
        classes: Whether rows are class indices.
    """

    shape: tuple[int, ...]
    classes: bool = False

    def serves(self, shape: tuple[int, ...]) -> bool:
        """Whether rows can take this shape: any of the same size; for classes only their own."""
        return shape == self.shape if self.classes else prod(shape) == prod(self.shape)


def check_fields(source: str, available: Mapping[str, Available], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks, before anything is read, that a source offers these modalities in these shapes.

    Raises:
        DataError: for the first modality that it lacks or that can't take its shape.
    """
    for name, shape in shapes.items():
        if name not in available:
            raise DataError(f"modality {name!r}: {source} offers {listing(available)}.{did_you_mean(name, available)}")
        field = available[name]
        if not field.serves(shape):
            what = f"{field.shape[0]} classes" if field.classes else f"{prod(field.shape)} values a row"
            raise DataError(f"modality {name!r}: {source} offers {what}, shape {field.shape}, which can't take the shape {shape}")


def arrange(values: Mapping[str, Tensor], available: Mapping[str, Available], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The requested modalities in the requested shapes; class indices are unchanged."""
    return {name: values[name] if available[name].classes else values[name].reshape(-1, *shape) for name, shape in shapes.items()}
