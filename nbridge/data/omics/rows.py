"""AnnData and MuData as rows of modalities: reads them block by block, and collects imputed values of incomplete observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbridge.common.atomic_files import replacing
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.common.warnings import Finding
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.imputed import Imputed, concatenated, marks_of, select, take
from nbridge.data.marks import IMPUTED
from nbridge.data.omics.container import Omics
from nbridge.data.omics.layout import Address, OmicsLayout
from nbridge.data.omics.marks import marks_in
from nbridge.data.omics.update import Changes, ImputedRows, Target, changes_of
from nbridge.data.omics.values import Values, addresses_of, missing_places, no_element, no_part, values_of
from nbridge.data.omics.write import completed, write_file
from nbridge.errors import DataError, naming


class OmicsRows(RowReader):
    """The observations of an object as rows.

    Raises:
        DataError: when a modality is invalid or has a misspelt name, or none exists.
    """

    noun: ClassVar[str] = "modality"

    def __init__(self, omics: Omics, layout: OmicsLayout, data: Any = None) -> None:
        self._omics, self._layout, self._data = omics, layout, data
        self.names = {name: name for name in layout.shapes}
        with naming(omics.origin):
            self._addresses = {name: addresses_of(omics, name, layout) for name in layout.shapes}
            there = [name for name in layout.shapes if is_there(omics, name, self._addresses)]
            self._values: dict[str, Values] = {name: values_of(omics, name, layout) for name in there}
            if not there:
                asked = ", ".join(f"{name} ({places[0]})" for name, places in self._addresses.items())
                found = listing(omics.parts) if omics.parts else listing(omics.whole.elements)
                raise DataError(f"none of the model's modalities found: {asked}. Found: {found}")
            self._observations = omics.whole.names
            found = {name: marks_in(omics, self._values[name]) for name in there}
            self._marks = {name + IMPUTED: marks for name, marks in found.items() if marks is not None}
        self.keys = tuple(there)
        self.place = lambda name, row, element: self._values[name].place(str(self._observations[row]), element)
        self.findings: tuple[Finding, ...] = ()

    @property
    def marks(self) -> dict[str, str]:
        return {name: name + IMPUTED for name in self.keys if name + IMPUTED in self._marks}

    def layout(self, key: str) -> Layout:
        return (self._marks if key in self._marks else self._values)[key].layout

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002 (all have as many)
        return sum(self.layout(key).dtype.itemsize * prod(self.layout(key).shape[1:]) for key in keys)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        for first in range(start, stop, size):
            last = min(first + size, stop)
            both = {key: self._values[key].block(first, last) for key in keys if key not in self._marks}
            marks = {key: self._marks[key].block(first, last) for key in keys if key in self._marks}
            arrays = {key: array for key, (array, _) in both.items()}
            yield Block(first, arrays | marks, {key: missing for key, (_, missing) in both.items()})

    @property
    def ids(self) -> np.ndarray:
        return self._observations

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:
        assert not output.partial, "these data are written whole"
        out = OmicsWriter()
        yield out
        changes = self._changes(out)
        if target is None:
            out.result = completed(self._data, changes)
            return
        with replacing(target) as temporary:
            write_file(Path(self._omics.origin), temporary, changes)

    def _changes(self, out: OmicsWriter) -> Changes:
        targets = [
            Target(name, self._addresses[name], self._values.get(name), self._layout, out.imputed(name, len(self._observations)))
            for name in self._layout.shapes
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


class OmicsWriter(RowWriter):
    """Collects imputed values of the observations that have any, now or from before."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[np.ndarray, Imputed[np.ndarray]]]] = {}

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        for name in imputed.mask:
            marks = marks_of(imputed, name)
            rows = np.flatnonzero(marks.reshape(len(marks), -1).any(axis=1))
            self._parts.setdefault(name, []).append((block.start + rows, take(select(imputed, [name]), rows)))

    def imputed(self, name: str, total: int) -> ImputedRows:
        """The imputed observations of a modality."""
        parts = self._parts[name]
        rows, flags = np.concatenate([rows for rows, _ in parts]), np.zeros(total, dtype=bool)
        flags[rows] = True
        return ImputedRows(name, rows, flags, concatenated([part for _, part in parts]))
