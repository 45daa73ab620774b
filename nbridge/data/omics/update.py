"""Computes the changes to an AnnData or MuData object after imputation, part by part and element by element.

A part that lacked observations gets them after its own. The top-level ``obs`` gets ``NAME__imputed``, true where anything was imputed; if
single cells were imputed, a mask ``NAME__imputed`` is stored next to the matrix. K draws are ``NAME__draw_0`` and so on next to the matrix,
which holds the first; interval statistics are ``NAME__mean``, ``NAME__sd``, ``NAME__lower`` and ``NAME__upper`` (``NAME__lower_0.9`` with
several levels), and ``NAME__probability`` in ``obsm`` for classes. They are layers for X and layers, obsm arrays for an obsm array, and
columns named after it for a column of obs. A modality without imputed values gets none of them.
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
from nbridge.data.imputed import Imputed
from nbridge.data.omics.columns import filled_columns
from nbridge.data.omics.container import Omics, Part, pandas_of
from nbridge.data.omics.layout import Address, OmicsLayout
from nbridge.data.omics.pad import Cells, grown, grown_frame, mask_of, paired, placed, with_own_types, with_type
from nbridge.data.omics.values import Matrix, Values
from nbridge.data.output_names import IMPUTED, draw_suffix, owner_of, statistics_by_level
from nbridge.errors import DataError


@dataclass(frozen=True)
class ImputedRows:
    """The observations of a modality with imputed values, (r,); ``flags`` marks them among all observations, (N,)."""

    name: str
    rows: np.ndarray
    flags: np.ndarray
    imputed: Imputed[np.ndarray]

    @property
    def mask(self) -> np.ndarray:
        """Which of the rows, (r,), or of their cells, (r, ...), were imputed."""
        return self.imputed.mask[self.name]

    @property
    def values(self) -> np.ndarray:
        """The values, draws first, (K, r, ...)."""
        return self.imputed.each_draw(self.name)

    def cells(self, width: int) -> np.ndarray:
        """Which cells were imputed, (r, width)."""
        flat = _flat(self.mask)
        return np.broadcast_to(flat, (len(flat), width))

    def beside(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Draws and statistics, (r, ...): ``draw`` or the statistic, the suffix of its name, and the array."""
        yield from (("draw", draw_suffix(number), draw) for number, draw in enumerate(() if self.imputed.draws is None else self.values))
        yield from statistics_by_level(self.imputed, self.name)


@dataclass(frozen=True)
class Target:
    """A modality to write. Its values are those of the object, None if it has none."""

    name: str
    addresses: tuple[Address, ...]
    values: Values | None
    layout: OmicsLayout
    done: ImputedRows

    @property
    def width(self) -> int:
        """The number of its elements."""
        return prod(self.layout.shapes[self.name])


@dataclass(frozen=True)
class Changes:
    """Changes to an object: elements to replace or add by part and path, None for those that cannot be kept, and new parts.

    The names of added observations, ``gained``, are by part, and ``findings`` warn about what could not be preserved.
    """

    elements: Mapping[str, Mapping[str, Any]]
    gained: Mapping[str, np.ndarray]
    made: tuple[str, ...]
    names: np.ndarray
    findings: tuple[Finding, ...] = ()


@dataclass
class _Growing:
    """The state of a part, None if new, during an update.

    The row of each observation in the part is -1 where the part lacks it; ``partly`` are matrices with variables unknown to the model.
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
        """The names of added observations."""
        return self.names[self.rows < 0]

    @cached_property
    def size(self) -> int:
        """The number of rows before any are added."""
        return int((self.rows >= 0).sum())

    @cached_property
    def positions(self) -> np.ndarray:
        """The row of each observation in the completed part."""
        return np.where(self.rows >= 0, self.rows, self.size + np.cumsum(self.rows < 0) - 1)

    @cached_property
    def var_names(self) -> np.ndarray:
        """The names of its variables."""
        return np.array(self.variables) if self.part is None else self.part.variables

    @cached_property
    def obs(self) -> Any:
        """Its data frame of observations, including added ones."""
        if self.part is not None:
            return grown_frame(self.part.obs, self.gained)
        return pandas_of().DataFrame(index=pandas_of().Index(self.names.astype(object)))

    @property
    def described(self) -> Any:
        """The completed data frame, with the original column dtypes."""
        return self.obs if self.part is None else with_own_types(self.obs, self.part.obs)


def changes_of(omics: Omics, targets: Sequence[Target]) -> Changes:
    """Computes the changes to an object.

    Raises:
        DataError: when a modality can't be stored.
    """
    growing: dict[str, _Growing] = {}
    for target in targets:
        name = target.addresses[0].part
        if name not in growing:
            part = omics.part(name)
            rows = np.full(len(omics.whole.names), -1) if part is None else omics.rows_of(part)
            same = [other for other in targets if other.addresses[0].part == name]
            growing[name] = _Growing(name, part, omics.whole.names, rows, _new_variables(same) if part is None else ())
        if len(target.done.rows):
            _change(growing[name], target)
    whole = growing.setdefault("", _Growing("", omics.whole, omics.whole.names, np.arange(len(omics.whole.names)), ()))
    for target in targets:
        whole.obs[target.name + IMPUTED] = target.done.flags
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
    """The variable names of a missing part, from the modalities stored in it."""
    found: dict[str, None] = {}
    for target in targets:
        names = target.layout.variables.get(target.name, ())
        if target.addresses[0].slot in ("X", "layers") and len(names) != target.width:
            raise DataError(f"modality {target.name!r}: not in this object, and the model has no names for its variables")
        found |= dict.fromkeys(names if target.addresses[0].slot in ("X", "layers") else ())
    return tuple(found)


def _change(growing: _Growing, target: Target) -> None:
    """Writes the imputed values of a modality into the elements of its part."""
    done, address = target.done, target.addresses[0]
    rows = growing.positions[done.rows]
    if address.slot == "obs":
        cells = done.cells(target.width)
        frames = filled_columns(growing.obs, target.addresses, target.values, target.layout.classes.get(target.name, ()), rows)
        frames.fill("", "", done.values[0], cells)
        for what, suffix, values in done.beside():
            if what == "probability":
                growing.elements[f"obsm/{target.name}{suffix}"] = frames.probabilities(values)
            else:
                frames.fill(what, suffix, values, cells)
                growing.columns |= {one.name + suffix for one in target.addresses}
        if done.mask.ndim > 1 and target.width > 1:
            frames.mark(cells)
            growing.columns |= {one.name + IMPUTED for one in target.addresses}
        return
    _change_matrix(growing, target, Cells(rows, _columns(growing, target), done.cells(target.width)))


def _change_matrix(growing: _Growing, target: Target, cells: Cells) -> None:
    done, address, gained = target.done, target.addresses[0], len(growing.gained)
    value = target.values.value if isinstance(target.values, Matrix) else _nothing(growing, target)
    beside = f"{'obsm' if address.slot == 'obsm' else 'layers'}/{target.name}"
    if len(cells.columns) < value.shape[1]:
        growing.partly.append(f"other variables of {address.path}")
    growing.elements[address.path] = _as_before(growing, address.path, placed(value, gained, cells, _flat(done.values[0])))
    if done.mask.ndim > 1:
        mask = mask_of((growing.size + gained, value.shape[1]), cells)
        growing.elements[beside + IMPUTED] = mask.toarray() if address.slot == "obsm" else mask
    for what, suffix, values in done.beside():
        dtype = value.dtype if what == "draw" else np.result_type(value.dtype, np.float32)
        base = with_type(value, dtype, zeros=what == "sd")
        growing.elements[beside + suffix] = placed(base, gained, cells, _flat(values))


def _as_before(growing: _Growing, path: str, matrix: Any) -> Any:
    """Restores a data frame, if the matrix was one."""
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
    """The positions of a modality's elements among the columns of its matrix."""
    if isinstance(target.values, Matrix):
        return target.values.columns
    if target.addresses[0].slot == "obsm":
        return np.arange(target.width)
    places = {name: place for place, name in enumerate(growing.var_names.tolist())}
    names = target.layout.variables.get(target.name, ())
    if lacking := [name for name in names if name not in places]:
        raise DataError(f"modality {target.name!r}: not in this object, and there is no variable {clip(lacking[0])!r} to write it to")
    if len(names) != target.width:
        raise DataError(f"modality {target.name!r}: not in this object, and the model has no names for its variables")
    return np.array([places[name] for name in names])


def _nothing(growing: _Growing, target: Target) -> np.ndarray:
    """A new matrix for the part, without observed values."""
    width = target.width if target.addresses[0].slot == "obsm" else len(growing.var_names)
    return np.full((growing.size, width), np.nan, np.float32)


def _forget(growing: _Growing, targets: Sequence[Target]) -> None:
    """Removes elements from an earlier imputation that are not rewritten."""
    names = {target.name for target in targets} | {address.name for target in targets for address in target.addresses}
    for path in growing.part.elements if growing.part is not None else ():
        if owner_of(path.partition("/")[2]) in names:
            growing.elements.setdefault(path, None)
    written = {target.name + IMPUTED for target in targets} | growing.columns
    growing.obs.drop(columns=[one for one in growing.obs if owner_of(one) in names and one not in written], inplace=True)


def _grow_others(growing: _Growing) -> Finding | None:
    """Pads all other elements of a part with the added observations, and returns a warning about what is then missing."""
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
    text = f"{part.where}: gets {gained:,} observations, unknown in {listing([*unknown, 'obs'])} (NaN; obsp has no edges)"
    left = f"; left out, because no rows can be added: {listing(lost)}" if lost else ""
    return Finding("slot", growing.name, text + left, {"gained": gained, "unknown": unknown, "lost": lost})
