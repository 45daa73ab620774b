"""AnnData and MuData as rows of modalities: reads them block by block, and collects imputed values of incomplete observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.common.atomic_files import replacing
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.common.warnings import Finding
from nbridge.data.omics.container import Omics, omics_of, opened
from nbridge.data.omics.layout import Address, OmicsLayout
from nbridge.data.omics.update import Changes, Filling, Target, changes_of
from nbridge.data.omics.values import Values, addresses_of, missing_places, no_element, no_part, values_of
from nbridge.data.omics.write import renewed, write_file
from nbridge.data.streaming.blocks import Block, Filled, Layout, Output, RowsIn, RowsOut
from nbridge.data.tables.output_columns import IMPUTED
from nbridge.errors import DataError, naming


class OmicsRows(RowsIn):
    """The observations of an object as rows.

    Arguments:
        omics: The object.
        layout: The addresses of modalities.
        levels: The levels of intervals, used in layer names.

    Raises:
        DataError: when a modality is invalid or has a misspelt name, or none exists.
    """

    noun: ClassVar[str] = "modality"

    def __init__(self, omics: Omics, layout: OmicsLayout, levels: Sequence[float] = ()) -> None:
        self.origin = omics.origin
        self._omics, self._layout, self._levels = omics, layout, tuple(levels)
        with naming(omics.origin):
            self._addresses = {name: addresses_of(omics, name, layout) for name in layout.shapes}
            there = [name for name in layout.shapes if is_there(omics, name, self._addresses)]
            self._values: dict[str, Values] = {name: values_of(omics, name, layout) for name in there}
            if not there:
                asked = ", ".join(f"{name} ({places[0]})" for name, places in self._addresses.items())
                found = listing(omics.parts) if omics.parts else listing(omics.whole.elements)
                raise DataError(f"none of the model's modalities found: {asked}. Found: {found}")
            self._names = omics.whole.names
        self.keys = tuple(there)
        self.place = lambda name, row, element: self._values[name].place(str(self._names[row]), element)
        self.findings: tuple[Finding, ...] = ()

    def layout(self, key: str) -> Layout:
        return self._values[key].layout

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002 (all have as many)
        return sum(self.layout(key).dtype.itemsize * prod(self.layout(key).shape[1:]) for key in keys)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        for first in range(start, stop, size):
            both = {key: self._values[key].block(first, min(first + size, stop)) for key in keys}
            yield Block(first, {key: array for key, (array, _) in both.items()}, {key: missing for key, (_, missing) in both.items()})

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:  # noqa: ARG002 (observations have names)
        yield from (self._names[start : start + size] for start in range(0, rows, size))

    def check_passed(self, key: str) -> None:
        """Does nothing: all other elements are copied unchanged."""

    @contextmanager
    def writing(self, target: Path, output: Output) -> Iterator[RowsOut]:
        assert not output.partial, "these files are written whole"
        out = OmicsOut()
        yield out
        with replacing(target) as temporary:
            write_file(Path(self._omics.origin), temporary, self._changes(out))

    @contextmanager
    def collecting(self, output: Output) -> Iterator[RowsOut]:  # noqa: ARG002 (all rows are written)
        """Collects imputed values for `completed`."""
        self._out = OmicsOut()
        yield self._out

    def completed(self, data: Any) -> Any:
        """A copy of an in-memory object with imputed values."""
        return renewed(data, self._changes(self._out))

    def _changes(self, out: OmicsOut) -> Changes:
        fillings = out.fillings(self._layout.shapes, len(self._names))
        targets = [
            Target(name, self._addresses[name], self._values.get(name), self._layout, filling, self._levels)
            for name, filling in fillings.items()
        ]
        changes = changes_of(self._omics, targets)
        self.findings = changes.findings
        return changes


def is_there(omics: Omics, name: str, addresses: Mapping[str, tuple[Address, ...]]) -> bool:
    """Whether an object has a modality; a missing one is imputed for all observations.

    Raises:
        DataError: when the object can't hold it, has only part of it, or has a similarly named element.
    """
    places = addresses[name]
    claimed = {str(one) for others in addresses.values() for one in others} | {one.part for others in addresses.values() for one in others}
    part = omics.part(places[0].part)
    if part is None:
        spare = [other for other in omics.parts if other not in claimed]
        if not omics.parts or did_you_mean(places[0].part, spare, cutoff=0.8):
            raise DataError(no_part(omics, places[0], name))
        return False
    lacking = missing_places(part, places)
    if not lacking:
        return True
    columns = [Address(places[0].part, "obs", str(column)) for column in part.obs.columns]
    elements = [Address(places[0].part, *element.split("/", 1)) for element in part.elements if "/" in element]
    spare = [one.path for one in (*columns, *elements) if one.slot == lacking[0].slot and str(one) not in claimed]
    no_matrix = bool(omics.parts) and part is omics.whole and lacking[0].slot in ("X", "layers")
    if len(lacking) < len(places) or no_matrix or did_you_mean(lacking[0].path, spare, cutoff=0.8):
        raise DataError(f"{clip(part.where, 400)}: {no_element(part, lacking[0], name)}")
    return False


class OmicsOut(RowsOut):
    """Imputed values, stored only for observations that have any."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Filled]] = {}
        self._rows: dict[str, list[np.ndarray]] = {}

    def write(self, block: Block, done: Mapping[str, Filled]) -> None:
        names = [key.removesuffix(IMPUTED) for key in done if key.endswith(IMPUTED)]
        for name in names:
            mask = done[name + IMPUTED].array
            rows = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
            self._rows.setdefault(name, []).append(block.start + rows)
            for key, filled in done.items():
                if key == name or key.startswith(f"{name}__"):
                    self._parts.setdefault(key, []).append(Filled(filled.array.take(rows, filled.axis), filled.axis))

    def fillings(self, shapes: Mapping[str, tuple[int, ...]], total: int) -> dict[str, Filling]:
        """The imputed values, by modality.

        Arguments:
            shapes: The shape of a row of each modality, by name.
            total: The total number of observations.
        """
        whole = {key: np.concatenate([one.array for one in parts], axis=parts[0].axis) for key, parts in self._parts.items()}
        axes = {key: parts[0].axis for key, parts in self._parts.items()}
        found: dict[str, Filling] = {}
        for name in shapes:
            flags = np.zeros(total, dtype=bool)
            rows = np.concatenate(self._rows[name])
            flags[rows] = True
            figures = {
                key.removeprefix(f"{name}__"): array if axes[key] else array[None]
                for key, array in whole.items()
                if key.startswith(f"{name}__") and key != name + IMPUTED
            }
            draws = whole[name] if axes[name] else whole[name][None]
            found[name] = Filling(rows, flags, whole[name + IMPUTED], draws, figures, drawn=bool(axes[name]))
        return found


@contextmanager
def omics_rows(path: Path, layout: OmicsLayout, levels: Sequence[float]) -> Iterator[OmicsRows]:
    """Opens an .h5mu or .h5ad file as rows, as a context manager.

    Raises:
        DataError: when it can't be read or doesn't match the layout.
    """
    with opened(path) as omics:
        yield OmicsRows(omics, layout, levels)


def object_rows(data: Any, layout: OmicsLayout, levels: Sequence[float]) -> OmicsRows:
    """Wraps a MuData or AnnData object as rows.

    Raises:
        DataError: when it doesn't match the layout.
    """
    return OmicsRows(omics_of(data), layout, levels)
