"""What changes in an AnnData or MuData object once modalities are imputed, part by part and element by element.

A part that lacked observations has all of them then, its own first. ``obs`` of the whole gets ``NAME__imputed``, true where anything was
filled in, and where single cells were, ``NAME__imputed`` beside the matrix tells which. K draws are ``NAME__draw_0`` and on beside the
matrix, which holds the first; figures of intervals are ``NAME__mean``, ``NAME__sd``, ``NAME__lower`` and ``NAME__upper`` (with several
levels ``NAME__lower_0.9``), and ``NAME__probability`` in ``obsm`` for classes. Beside X and layers they are layers, beside an array of obsm
arrays of obsm, and beside a column of obs columns, by its name. A modality that lacks nothing has none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding
from nbridge.data.omics.columns import filled_columns
from nbridge.data.omics.container import Omics, Part, pandas_of
from nbridge.data.omics.layout import Address, OmicsLayout, told_of
from nbridge.data.omics.pad import Cells, grown, grown_frame, mask_of, paired, placed, with_own_types, with_type
from nbridge.data.omics.values import Matrix, Values
from nbridge.data.tables.output_columns import IMPUTED
from nbridge.errors import DataError


@dataclass(frozen=True)
class Filling:
    """What was filled in of a modality.

    Arguments:
        rows: The observations in which something was, (r,).
        flags: Whether something was, of all observations, (N,).
        mask: Which of those rows, (r,), or which of their cells, (r, ...).
        values: The values, draws first, (K, r, ...).
        figures: Figures of intervals, levels first, by name.
        drawn: Whether the values are draws, and no point estimate.
    """

    rows: np.ndarray
    flags: np.ndarray
    mask: np.ndarray
    values: np.ndarray
    figures: Mapping[str, np.ndarray]
    drawn: bool

    def cells(self, width: int) -> np.ndarray:
        """Which cells were filled in, (r, width)."""
        flat = _flat(self.mask)
        return np.broadcast_to(flat, (len(flat), width))

    def every(self, levels: Sequence[float]) -> Iterator[tuple[str, np.ndarray]]:
        """Draws and figures, (r, ...), each with the ending of its name."""
        yield from ((f"__draw_{place}", draw) for place, draw in enumerate(self.values if self.drawn else ()))
        for what, figure in self.figures.items():
            several = len(figure) > 1
            yield from ((f"__{what}_{levels[place]:g}" if several else f"__{what}", one) for place, one in enumerate(figure))


@dataclass(frozen=True)
class Target:
    """A modality to write.

    Arguments:
        name: Its name.
        addresses: Where it lies.
        values: What the object has of it; None where it has nothing.
        layout: The places of modalities.
        filling: What was filled in.
        levels: The levels of intervals.
    """

    name: str
    addresses: tuple[Address, ...]
    values: Values | None
    layout: OmicsLayout
    filling: Filling
    levels: tuple[float, ...]

    @property
    def width(self) -> int:
        """The number of its elements."""
        return prod(self.layout.shapes[self.name])


@dataclass(frozen=True)
class Changes:
    """What changes.

    Arguments:
        elements: By part, and by path inside of it, the elements to put in the place of those there, or beside them; None for those that
            cannot be kept.
        gained: By part, the names of the observations that it gets.
        made: The parts that are new.
        names: The names of all observations.
        findings: What could not be kept as it was, a line a part.
    """

    elements: Mapping[str, Mapping[str, Any]]
    gained: Mapping[str, np.ndarray]
    made: tuple[str, ...]
    names: np.ndarray
    findings: tuple[Finding, ...] = ()


@dataclass
class _Growing:
    """A part while it changes.

    Arguments:
        name: Its name.
        part: The part; None where it is new.
        names: The names of all observations.
        rows: For each of them its row in the part, -1 where it lacks it.
        variables: The names of the variables of a new part.
        elements: What has changed.
        partly: What the model knows some variables of.
        columns: The columns of obs that were written beside others.
    """

    name: str
    part: Part | None
    names: np.ndarray
    rows: np.ndarray
    variables: tuple[str, ...]
    elements: dict[str, Any] = field(default_factory=dict)
    partly: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)

    @cached_property
    def gained(self) -> np.ndarray:
        """The names of the observations that it gets."""
        return self.names[self.rows < 0]

    @cached_property
    def size(self) -> int:
        """Its rows, before it gets any."""
        return int((self.rows >= 0).sum())

    @cached_property
    def positions(self) -> np.ndarray:
        """For each observation its row, once the part has them all."""
        return np.where(self.rows >= 0, self.rows, self.size + np.cumsum(self.rows < 0) - 1)

    @cached_property
    def var_names(self) -> np.ndarray:
        """The names of its variables."""
        return np.array(self.variables) if self.part is None else self.part.variables

    @cached_property
    def obs(self) -> Any:
        """Its data frame of observations, with those that it gets."""
        if self.part is not None:
            return grown_frame(self.part.obs, self.gained)
        return pandas_of().DataFrame(index=pandas_of().Index(self.names.astype(object)))

    @property
    def described(self) -> Any:
        """The same once it is filled in, in the types that columns had."""
        return self.obs if self.part is None else with_own_types(self.obs, self.part.obs)


def changes_of(omics: Omics, targets: Sequence[Target]) -> Changes:
    """What changes in an object.

    Arguments:
        omics: The object.
        targets: The modalities.

    Raises:
        DataError: when there is no place for a modality.
    """
    growing: dict[str, _Growing] = {}
    for target in targets:
        name = target.addresses[0].part
        if name not in growing:
            part = omics.part(name)
            rows = np.full(len(omics.whole.names), -1) if part is None else omics.rows_of(part)
            same = [other for other in targets if other.addresses[0].part == name]
            growing[name] = _Growing(name, part, omics.whole.names, rows, _new_variables(same) if part is None else ())
        if len(target.filling.rows):
            _change(growing[name], target)
    whole = growing.setdefault("", _Growing("", omics.whole, omics.whole.names, np.arange(len(omics.whole.names)), ()))
    for target in targets:
        whole.obs[target.name + IMPUTED] = target.filling.flags
    for one in growing.values():
        _forget(one, targets)
    findings = tuple(finding for one in growing.values() if (finding := _grow_others(one)) is not None)
    elements = {name: {**one.elements, "obs": one.described} for name, one in growing.items()}
    for name, one in growing.items():
        if one.part is None:
            elements[name]["var"] = pandas_of().DataFrame(index=pandas_of().Index(one.var_names.astype(object)))
    made = tuple(name for name, one in growing.items() if one.part is None)
    gained = {name: one.gained for name, one in growing.items() if len(one.gained)}
    return Changes(elements, gained, made, omics.whole.names, findings)


def _new_variables(targets: Sequence[Target]) -> tuple[str, ...]:
    """The variables of a part that the object lacks: those of the modalities that lie in it."""
    found: dict[str, None] = {}
    for target in targets:
        names = target.layout.variables.get(target.name, ())
        if target.addresses[0].slot in ("X", "layers") and len(names) != target.width:
            raise DataError(f"modality {target.name!r}: not here, and the model does not know the names of its variables")
        found |= dict.fromkeys(names if target.addresses[0].slot in ("X", "layers") else ())
    return tuple(found)


def _change(growing: _Growing, target: Target) -> None:
    """Puts what was filled in of a modality into the elements of its part."""
    filling, address = target.filling, target.addresses[0]
    rows = growing.positions[filling.rows]
    if address.slot == "obs":
        cells, figures = filling.cells(target.width), list(filling.every(target.levels))
        frames = filled_columns(growing.obs, target.addresses, target.values, target.layout.classes.get(target.name, ()), rows)
        frames.fill("", filling.values[0], cells)
        for ending, values in figures:
            if ending == "__probability":
                growing.elements[f"obsm/{target.name}{ending}"] = frames.probabilities(values)
            else:
                frames.fill(ending, values, cells)
                growing.columns |= {one.name + ending for one in target.addresses}
        if filling.mask.ndim > 1 and target.width > 1:
            frames.mark(cells)
            growing.columns |= {one.name + IMPUTED for one in target.addresses}
        return
    _change_matrix(growing, target, Cells(rows, _columns(growing, target), filling.cells(target.width)))


def _change_matrix(growing: _Growing, target: Target, cells: Cells) -> None:
    filling, address, gained = target.filling, target.addresses[0], len(growing.gained)
    value = target.values.value if isinstance(target.values, Matrix) else _nothing(growing, target)
    beside = f"{'obsm' if address.slot == 'obsm' else 'layers'}/{target.name}"
    if len(cells.columns) < value.shape[1]:
        growing.partly.append(f"other variables of {address.path}")
    growing.elements[address.path] = _as_before(growing, address.path, placed(value, gained, cells, _flat(filling.values[0])))
    if filling.mask.ndim > 1:
        mask = mask_of((growing.size + gained, value.shape[1]), cells)
        growing.elements[beside + IMPUTED] = mask.toarray() if address.slot == "obsm" else mask
    for ending, values in filling.every(target.levels):
        drawn = ending.startswith("__draw_")
        dtype = value.dtype if drawn else np.result_type(value.dtype, np.float32)
        base = with_type(value, dtype, zeros=ending == "__sd")
        growing.elements[beside + ending] = placed(base, gained, cells, _flat(values))


def _as_before(growing: _Growing, path: str, matrix: Any) -> Any:
    """A matrix as the table that it was, where it was one."""
    if growing.part is None or path not in growing.part.elements or not path.startswith("obsm/"):
        return matrix
    before = growing.part.read(path)
    if not hasattr(before, "columns"):
        return matrix
    table = grown_frame(before, growing.gained)
    for place, column in enumerate(table.columns):
        table[column] = matrix[:, place]
    return with_own_types(table, before)


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), prod(values.shape[1:]))


def _columns(growing: _Growing, target: Target) -> np.ndarray:
    """The places of a modality's elements among the columns of its matrix."""
    if isinstance(target.values, Matrix):
        return target.values.columns
    if target.addresses[0].slot == "obsm":
        return np.arange(target.width)
    places = {name: place for place, name in enumerate(growing.var_names.tolist())}
    names = target.layout.variables.get(target.name, ())
    if lacking := [name for name in names if name not in places]:
        raise DataError(f"modality {target.name!r}: not here, and there is no variable {clip(lacking[0])!r} to write it to")
    if len(names) != target.width:
        raise DataError(f"modality {target.name!r}: not here, and the model does not know the names of its variables")
    return np.array([places[name] for name in names])


def _nothing(growing: _Growing, target: Target) -> np.ndarray:
    """A matrix that the part lacks, of no observed value."""
    width = target.width if target.addresses[0].slot == "obsm" else len(growing.var_names)
    return np.full((growing.size, width), np.nan, np.float32)


def _forget(growing: _Growing, targets: Sequence[Target]) -> None:
    """Leaves out what an earlier imputation wrote beside modalities, where it is not written anew."""
    names = {target.name for target in targets} | {address.name for target in targets for address in target.addresses}
    for path in growing.part.elements if growing.part is not None else ():
        if told_of(path.partition("/")[2]) in names:
            growing.elements.setdefault(path, None)
    written = {target.name + IMPUTED for target in targets} | growing.columns
    growing.obs.drop(columns=[one for one in growing.obs if told_of(one) in names and one not in written], inplace=True)


def _grow_others(growing: _Growing) -> Finding | None:
    """Gives all other elements of a part the observations that it gets, and tells what that changes."""
    gained, part = len(growing.gained), growing.part
    if not gained or part is None:
        return None
    unknown, lost = list(growing.partly), []
    for path in part.elements:
        if path in growing.elements:
            continue
        value = part.read(path)
        if hasattr(value, "columns"):
            growing.elements[path] = grown_frame(value, growing.gained)
        else:
            growing.elements[path] = paired(value, gained) if path.startswith("obsp/") else grown(value, gained)
        (unknown if growing.elements[path] is not None else lost).append(path)
    told = f"{part.where}: gets {gained:,} observations, of which {listing([*unknown, 'obs'])} know nothing (NaN; obsp has no edges)"
    left = f"; left out, because no rows can be added: {listing(lost)}" if lost else ""
    return Finding("slot", growing.name, told + left, {"gained": gained, "unknown": unknown, "lost": lost})
