"""Reads the values of a modality in an AnnData or MuData object, some observations at a time: variables of a matrix, or columns of obs.

Missing values are explicit in the object: the part lacks the observation, a cell is NaN, or a category is NaN or an empty text. Zeros are
values, including those that a sparse matrix does not store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.blocks import Layout
from nbridge.data.name_patterns import matching
from nbridge.data.names import repeated
from nbridge.data.omics.classes import check_classes, class_codes, found_classes, is_numeric
from nbridge.data.omics.container import Omics, Part
from nbridge.data.omics.layout import FLAG, Address, OmicsLayout, address_of, parse_address
from nbridge.data.tables.layout import expand
from nbridge.errors import DataError, naming


@dataclass(frozen=True)
class Place:
    """Formats the location of a cell of a modality."""

    name: str
    address: Address
    labels: tuple[str, ...]

    def __call__(self, observation: str, element: int) -> str:
        label = f", {clip(self.labels[element])!r}" if element < len(self.labels) else f", element {element}"
        return f"modality {self.name!r} ({self.address}{label}), observation {clip(observation)!r}"


@dataclass(frozen=True, eq=False)
class Values(ABC):
    """A modality at one address, or at several columns of obs, with the names of its elements and its classes, if it has any.

    The row of each observation in the part, (N,), is -1 where the part lacks it.
    """

    name: str
    addresses: tuple[Address, ...]
    part: Part
    rows: np.ndarray
    labels: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The dtype and the shape of all rows."""

    @abstractmethod
    def own(self, rows: np.ndarray) -> np.ndarray:
        """The values of rows of the part."""

    def block(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Values of observations and a mask of missing ones, of the same shape; masked values are undefined."""
        rows = self.rows[start:stop]
        there = rows >= 0
        values = self.own(rows[there])
        array = np.zeros((len(rows), *values.shape[1:]), values.dtype)
        array[there] = values
        missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)
        missing[~there] = True
        return array, missing

    @property
    def place(self) -> Place:
        """Formats the location of a cell."""
        return Place(self.name, self.addresses[0], self.labels)


@dataclass(frozen=True, eq=False)
class Matrix(Values):
    """The variables at ``columns`` of X or of a layer, or an array of obsm; ``by_rows`` is the same in a format with fast row access."""

    value: Any
    by_rows: Any
    columns: np.ndarray

    @property
    def layout(self) -> Layout:
        return Layout(np.dtype(self.value.dtype), (len(self.rows), len(self.columns)))

    @property
    def every(self) -> bool:
        """Whether the model knows all columns of the matrix."""
        return len(self.columns) == self.value.shape[1]

    def own(self, rows: np.ndarray) -> np.ndarray:
        some = self.by_rows[rows]
        if hasattr(some, "toarray"):
            return some.toarray() if self._in_order else some[:, self.columns].toarray()
        return np.asarray(some if self._in_order else some[:, self.columns])

    @property
    def _in_order(self) -> bool:
        return self.every and bool((self.columns == np.arange(len(self.columns))).all())


@dataclass(frozen=True, eq=False)
class Columns(Values):
    """Columns of obs: numbers side by side, (n, C), or the class indices of one column, (n,); ``missing`` marks those without a value."""

    numbers: np.ndarray
    missing: np.ndarray

    @property
    def layout(self) -> Layout:
        return Layout(self.numbers.dtype, (len(self.rows), *self.numbers.shape[1:]))

    def own(self, rows: np.ndarray) -> np.ndarray:
        return self.numbers[rows]

    def block(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        array, missing = super().block(start, stop)
        rows = self.rows[start:stop]
        missing[rows >= 0] |= self.missing[rows[rows >= 0]]
        return array, missing


def addresses_of(omics: Omics, name: str, layout: OmicsLayout) -> tuple[Address, ...]:
    """The addresses of a modality, with column patterns expanded.

    Raises:
        DataError: when nothing has its name, an address is invalid, or several addresses are not columns of one obs.
    """
    if name not in layout.keys:
        return (address_of(name, omics.parts, list(omics.whole.obs.columns)),)
    asked = tuple(parse_address(text) for text in layout.keys[name])
    if len(asked) == 1 and (asked[0].slot != "obs" or "*" not in asked[0].name):
        return asked
    if {(address.part, address.slot) for address in asked} != {(asked[0].part, "obs")}:
        raise DataError(
            f"keys: modality {name!r} has the addresses {listing(map(str, asked))}, expected one, or several columns of one obs"
        )
    part = omics.part(asked[0].part)
    known = [] if part is None else [str(column) for column in part.obs.columns]
    with naming(omics.origin):
        columns = expand(name, [address.name for address in asked], known, layout.reserved)
        return tuple(Address(asked[0].part, "obs", column) for column in columns)


def values_of(omics: Omics, name: str, layout: OmicsLayout) -> Values:
    """Opens a modality of an object.

    Raises:
        DataError: when it does not exist, or holds invalid values.
    """
    addresses = addresses_of(omics, name, layout)
    part = omics.part(addresses[0].part)
    if part is None:
        raise DataError(f"{omics.origin}: {no_part(omics, addresses[0], name)}")
    lacking = missing_places(part, addresses)
    if lacking:
        raise DataError(f"{part.where}: {no_element(part, lacking[0], name)}")
    rows = omics.rows_of(part)
    if addresses[0].slot == "obs":
        return _columns(part, rows, name, addresses, layout)
    return _matrix(part, rows, name, addresses[0], layout)


def missing_places(part: Part, addresses: Sequence[Address]) -> list[Address]:
    """The addresses that a part lacks."""
    columns = set(part.obs.columns) if addresses[0].slot == "obs" else ()
    return [one for one in addresses if (one.name not in columns if one.slot == "obs" else one.path not in part.elements)]


def no_part(omics: Omics, address: Address, name: str) -> str:
    """The message for a missing modality of a MuData object."""
    if not omics.parts:
        return (
            f"{omics.where} has no modalities, but modality {name!r} has the address {str(address)!r}; write keys: "
            f"{{{name}: {address.path}}}, or wrap it: mudata.MuData({{{address.part!r}: adata}})"
        )
    near = did_you_mean(address.part, omics.parts)
    return f"no modality {clip(address.part)!r} for modality {name!r}.{near} Found: {listing(omics.parts)}"


def no_element(part: Part, address: Address, name: str) -> str:
    """The message for a missing address in a part."""
    known = [f"obs/{column}" for column in part.obs.columns] if address.slot == "obs" else [*part.elements]
    shown = [one for one in known if not one.startswith(("obsp/", "raw/"))]
    at = [one for one in shown if one.startswith(address.slot)]
    found = clip(listing(shown), 300)
    return f"no {address.path} for modality {name!r}.{did_you_mean(address.path, at)} Found: {found}"


def _matrix(part: Part, rows: np.ndarray, name: str, address: Address, layout: OmicsLayout) -> Matrix:
    value, labels = _numeric(part, address, name)
    if address.slot == "obsm":
        known = labels
    else:
        known = tuple(part.variables.tolist())
        if value.shape[1] != len(known):
            raise DataError(f"{part.where}: {address.path} has {value.shape[1]} columns for {len(known)} variables")
    asked = layout.variables.get(name, ())
    with naming(part.where):
        columns = np.arange(value.shape[1]) if not asked else _chosen(part, name, asked, known, address)
        size = prod(layout.shapes[name])
        if len(columns) != size:
            picked = "" if len(columns) == value.shape[1] else " that data.variables picks"
            raise DataError(
                f"{len(columns):,} variables of {address}{picked}, but the shape of modality {name!r} is {layout.shapes[name]}; "
                f"write shape: {len(columns)}, or choose variables (data.variables)"
            )
    by_rows = value.tocsr() if hasattr(value, "tocsr") else value
    return Matrix(name, (address,), part, rows, tuple(known[column] for column in columns) if known else (), (), value, by_rows, columns)


def _numeric(part: Part, address: Address, name: str) -> tuple[Any, tuple[str, ...]]:
    """A numeric matrix, and the names of its columns if it is a data frame."""
    value = part.read(address.path)
    labels: tuple[str, ...] = ()
    if hasattr(value, "columns"):
        labels, value = tuple(map(str, value.columns)), value.to_numpy()
    if getattr(value, "ndim", 0) == 1:
        value = np.asarray(value)[:, None]
    kind = getattr(getattr(value, "dtype", None), "kind", "?")
    if getattr(value, "ndim", 0) != 2 or kind not in "buif" or not (isinstance(value, np.ndarray) or hasattr(value, "tocsr")):
        shape = tuple(getattr(value, "shape", ()))
        held = f"{type(value).__name__} of dtype {getattr(value, 'dtype', 'unknown')}" + (f" and shape {shape}" if shape else "")
        raise DataError(
            f"{part.where}: {address.path}: {held}, expected a matrix of real numbers, a row an observation, for modality {name!r}"
        )
    return value, labels


def _chosen(part: Part, name: str, asked: Sequence[str], known: Sequence[str], address: Address) -> np.ndarray:
    """The positions of the requested variables, by name, pattern, or boolean column of var."""
    if not known:
        raise DataError(f"variables: modality {name!r} at {address} has unnamed columns; leave its variables out")
    places = {variable: place for place, variable in enumerate(known)}
    found: list[int] = []
    lacking: list[str] = []
    for word in asked:
        if word in places:
            found.append(places[word])
        elif word.startswith(FLAG) and address.slot != "obsm":
            found += _flagged(part, name, word.removeprefix(FLAG)).tolist()
        else:
            named = matching(word, known)
            found += [places[variable] for variable in named]
            lacking += [] if named else [word]
    if lacking:
        many = f" ({len(lacking):,} of {len(asked):,} are missing)" if len(asked) > 1 else ""
        shown = clip(listing(known[:10]), 200) + (f", and {len(known) - 10:,} more" if len(known) > 10 else "")
        raise DataError(f"no variable {clip(lacking[0])!r} for modality {name!r}{many}.{did_you_mean(lacking[0], known)} Found: {shown}")
    if (twice := repeated(found)) is not None:
        raise DataError(f"variables: modality {name!r}: duplicate variable {clip(known[twice])!r}")
    return np.array(found, dtype=np.int64)


def _flagged(part: Part, name: str, column: str) -> np.ndarray:
    """The positions of the variables for which a column of var is true."""
    if column not in part.var.columns:
        flags = [str(one) for one in part.var.columns]
        raise DataError(f"no column {clip(column)!r} in var for modality {name!r}.{did_you_mean(column, flags)} Found: {listing(flags)}")
    flags = part.var[column]
    if flags.isna().any() or not flags.isin([True, False]).all():
        raise DataError(f"var/{column} of modality {name!r} holds {flags.dtype}, expected true and false to pick variables by")
    return np.flatnonzero(flags.to_numpy().astype(bool))


def _columns(part: Part, rows: np.ndarray, name: str, addresses: tuple[Address, ...], layout: OmicsLayout) -> Columns:
    shape, columns = layout.shapes[name], [address.name for address in addresses]
    if name in layout.variables:
        raise DataError(f"variables: modality {name!r} at {addresses[0]} has no variables; name its columns in keys")
    index = len(columns) == 1 and len(shape) == 1 and shape[0] > 1
    listed = layout.classes.get(name, ())
    if index or listed or (len(columns) == 1 and not is_numeric(part.obs[columns[0]])):
        classes = listed or found_classes(part, name, columns[0], shape)
        with naming(part.where):
            check_classes(name, columns[0], classes, shape)
            codes = class_codes(part, columns[0], classes)
        # Missing values have no class index.
        numbers, missing = np.where(np.isnan(codes), 0, codes).astype(np.int64), np.isnan(codes)
        if not index:
            numbers, missing = numbers[:, None], missing[:, None]
        return Columns(name, addresses, part, rows, (columns[0],), classes, numbers, missing)
    for column in columns:
        if not is_numeric(part.obs[column]):
            raise DataError(
                f"{part.where}: obs/{column} holds {part.obs[column].dtype}, expected numbers; make classes a separate modality"
            )
    if len(columns) != prod(shape):
        raise DataError(
            f"{part.where}: modality {name!r}: {len(columns)} columns of obs, but its shape is {shape}; write shape: {len(columns)}"
        )
    numbers = np.stack([part.obs[column].astype("float64").to_numpy(dtype=np.float64, na_value=np.nan) for column in columns], axis=1)
    return Columns(name, addresses, part, rows, tuple(columns), (), numbers, np.isnan(numbers))
