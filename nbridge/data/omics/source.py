"""Data sources for multi-omics: .h5mu and .h5ad files, and MuData and AnnData objects passed from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from nbridge.common.memory import free_bytes
from nbridge.common.messages import listing
from nbridge.data.arrays import keys_of, to_batch
from nbridge.data.blocks import RowReader
from nbridge.data.column import PRESENT
from nbridge.data.endings import ending_among
from nbridge.data.folders import find_file
from nbridge.data.omics.container import ENDINGS, Omics, copied, is_omics, is_omics_file, omics_of, opened
from nbridge.data.omics.layout import OmicsLayout
from nbridge.data.omics.rows import OmicsRows
from nbridge.data.omics.split_columns import obs_labels
from nbridge.data.omics.values import Values, values_of
from nbridge.data.schema import OmicsSchema
from nbridge.data.source import Binding, DataSource, check_not_input, is_path
from nbridge.data.split import Dataset
from nbridge.data.split_labels import RowLabels
from nbridge.errors import CellError, DataError, naming
from nbridge.spec.option_types import Classes, Words

COPIES = 3
"""Copies of the values held in memory while reading: as stored, as selected, and in float32."""

T = TypeVar("T", bound="H5MU")


class H5MU(DataSource):
    """Observations of an .h5mu file (MuData) or an .h5ad file (AnnData): matrices, layers, embeddings, and columns of obs.

    A modality defaults to the X of the file's modality of the same name, or else the obs column of that name; see `keys`. An observation
    that a modality of the file lacks is absent, as are NaN, NA and empty categories; zeros are values. Rows are identified by obs_names.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        keys: Addresses of modalities: MODALITY, MODALITY/layers/NAME, MODALITY/obsm/NAME, MODALITY/obs/COLUMN, obsm/NAME, obs/COLUMN (or
            several columns, or a pattern of them); in an .h5ad file X, layers/NAME, obsm/NAME, obs/COLUMN.
        variables: The variables of a matrix: names, patterns such as "HLA-*", or var/COLUMN for a boolean column of var, such as
            var/highly_variable; all by default. Their names are stored with the model.
        classes: The ordered classes of modalities in columns of obs; by default those of the data, which are stored with the model.
    """

    def __init__(self, *, path: str, keys: Words | None = None, variables: Words | None = None, classes: Classes | None = None) -> None:
        self.path = path
        self.keys = {name: _tuple(words) for name, words in (keys or {}).items()}
        self.variables = {name: _tuple(words) for name, words in (variables or {}).items()}
        self.classes = {name: tuple(map(str, texts)) for name, texts in (classes or {}).items()}
        self._given: Omics | None = None
        self._data: Any = None
        self.ending = ending_among(path, ENDINGS)

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:  # noqa: ARG003 (its files have endings of their own)
        return is_path(rows) and is_omics_file(str(rows))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> H5MU:
        path = find_file(rows)
        if own is not None and not isinstance(own, H5MU):
            what = "no modality addresses: this model was not trained from such a file (data: {source: h5mu})"
            raise DataError(f"{rows}: {what}")
        found = H5MU(path=str(rows)) if own is None else own.bound(H5MU(path=str(rows)))
        found.origin, found.ending = str(rows), ending_among(path, ENDINGS)
        return found

    def bound(self, other: T) -> T:
        """Another source of such data, with the addresses, variables and classes of this one."""
        other.keys, other.variables, other.classes, other.reserved = self.keys, self.variables, self.classes, self.reserved
        return other

    @contextmanager
    def schema(self) -> Iterator[OmicsSchema]:
        with self.opened() as omics:
            path = Path(self.path)
            source = {"source": self.name or self.ending[1:], **({} if self.in_memory else {"path": self.path})}
            yield OmicsSchema(path.stem or "data", source, omics.origin, from_python=self.in_memory, omics=omics)

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002 (values are read on demand)
        with naming(self.origin or "rows", self.path or None), self.opened() as omics:
            yield OmicsRows(omics, self.layout_of(binding.shapes).of(binding.taken), self._data)

    def check_output(self, target: Path, *, sharded: bool) -> None:
        if sharded:
            raise DataError(f"{self.origin}: {self.ending} files are written whole; leave the shard out")
        check_not_input(target, find_file(self.path))

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Reads the requested modalities and nothing else of the file.

        Raises:
            DataError: when the file is missing, damaged or of another kind, lacks an element, or holds invalid values; or when dense
                values would not fit into memory.
        """
        layout = self.layout_of(shapes)
        with self.opened() as omics, naming(omics.origin):
            values = {name: values_of(omics, name, layout) for name in shapes}
            ids = omics.whole.names
            _check_memory(values)
            arrays: dict[str, ArrayLike] = {}
            for name, one in values.items():
                arrays[name], missing = one.block(0, len(ids))
                arrays[name + PRESENT] = ~missing.reshape(len(ids), -1).all(axis=1)
            places, origin = {name: one.place for name, one in values.items()}, omics.origin

            def place(name: str, row: int, element: int) -> str:
                return f"{origin}: {places[name](str(ids[row]), element)}"

            try:
                batch = to_batch(arrays, shapes)
            except CellError as error:
                raise error.at(place) from error
        return Dataset(batch, ids, origin=origin, place=place)

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Resolves all addresses, variables and classes to the names that the file has now."""
        layout = self.layout_of(shapes)
        with self.opened() as omics, naming(omics.origin):
            values = {name: values_of(omics, name, layout) for name in shapes}
        matrices = {name: one.labels for name, one in values.items() if one.addresses[0].slot != "obs" and one.labels}
        addresses = {name: tuple(map(str, one.addresses)) for name, one in values.items()}
        return {
            "keys": {name: words[0] if len(words) == 1 else words for name, words in addresses.items()},
            "variables": matrices,
            "classes": {name: one.classes for name, one in values.items() if one.classes},
        }

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:
        """The values of a column of obs, ``COLUMN`` or ``MODALITY/obs/COLUMN``."""
        addresses = {column, f"obs/{column}"}
        owner = next((name for name in shapes if addresses & {*self.keys.get(name, (name,))}), "")
        with self.opened() as omics:
            return replace(obs_labels(omics, column), modality=owner)

    @contextmanager
    def opened(self) -> Iterator[Omics]:
        """Opens the object as a context manager.

        Raises:
            DataError: when it can't be read.
        """
        if self._given is not None:
            yield self._given
            return
        found = find_file(self.path)
        if not is_omics_file(found):
            raise DataError(f"{found}: expected a file that ends in {' or '.join(ENDINGS)}")
        with opened(found) as omics:
            yield omics

    def with_rows(self, given: DataSource) -> DataSource:
        """The same modalities of an object in memory, instead of the file."""
        if not isinstance(given, H5MU):
            return given
        other = copy(self)
        other._given, other._data = given._given, given._data
        return other

    def class_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[str]]:  # noqa: ARG002 (as listed, or none)
        return dict(self.classes)

    def layout_of(self, shapes: Mapping[str, tuple[int, ...]]) -> OmicsLayout:
        """The addresses of modalities according to the spec.

        Raises:
            DataError: when an option refers to no modality.
        """
        for option, named in (("keys", self.keys), ("variables", self.variables), ("classes", self.classes)):
            keys_of(shapes, named, option)
        reserved = frozenset(column.rpartition("/")[2] for column in self.reserved)
        return OmicsLayout(shapes, self.keys, self.variables, self.classes, reserved)

    def element_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
        layout = self.layout_of(shapes)
        with self.opened() as omics, naming(omics.origin):
            values = {name: values_of(omics, name, layout) for name in shapes}
        return {name: list(one.labels) or [f"{name}[{place}]" for place in range(prod(shapes[name]))] for name, one in values.items()}

    def mistakes(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
        """The errors that prevent loading: the first of each modality, one per line."""
        lines: list[str] = []
        try:
            layout = self.layout_of(shapes)
            with self.opened() as omics:
                for name in shapes:
                    try:
                        values_of(omics, name, layout)
                    except DataError as error:
                        lines.append(str(error) if str(error).startswith(omics.origin) else f"{omics.origin}: {error}")
        except DataError as error:
            return (str(error),)
        return tuple(dict.fromkeys(lines))


class MuDataSource(H5MU):
    """Observations of a MuData or AnnData object that is passed from Python: nbridge.train(spec, data=mdata).

    Modalities have the same addresses as in files: see `h5mu`.

    Arguments:
        keys: Addresses of modalities: MODALITY, MODALITY/layers/NAME, MODALITY/obsm/NAME, MODALITY/obs/COLUMN, obsm/NAME, obs/COLUMN (or
            several columns, or a pattern of them); in AnnData X, layers/NAME, obsm/NAME, obs/COLUMN.
        variables: The variables of a matrix: names, patterns such as "HLA-*", or var/COLUMN for a boolean column of var, such as
            var/highly_variable; all by default. Their names are stored with the model.
        classes: The ordered classes of modalities in columns of obs; by default those of the data, which are stored with the model.
    """

    name = "mudata"
    in_memory = True
    mask_names = "obs of the copy has NAME__imputed"

    def __init__(self, *, keys: Words | None = None, variables: Words | None = None, classes: Classes | None = None) -> None:
        super().__init__(path="", keys=keys, variables=variables, classes=classes)

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:  # noqa: ARG003 (such objects are of classes of their own)
        return is_omics(rows)

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> MuDataSource:
        if own is not None and not isinstance(own, H5MU):
            raise DataError("this model was not trained from MuData or AnnData, in memory or in files (data: {source: h5mu})")
        found = cls() if own is None else own.bound(cls())
        data = copied(rows) if rows.is_view else rows
        found._given, found._data = omics_of(data), data
        found.origin = found._given.origin
        return found

    @contextmanager
    def opened(self) -> Iterator[Omics]:
        """Returns the object passed from Python.

        Raises:
            DataError: when none was passed.
        """
        if self._given is None:
            raise DataError("the rows of this spec are a MuData or AnnData object: pass it from Python, nbridge.train(spec, data=mdata)")
        yield self._given


def _tuple(words: str | tuple[str, ...]) -> tuple[str, ...]:
    return (words,) if isinstance(words, str) else tuple(words)


def _check_memory(values: Mapping[str, Values]) -> None:
    """Checks that dense values fit into memory.

    Raises:
        DataError: when they don't.
    """
    sizes = {name: prod(one.layout.shape) * max(4, one.layout.dtype.itemsize) * COPIES for name, one in values.items()}
    if (needed := sum(sizes.values())) > (free := free_bytes()):
        largest = max(sizes, key=lambda name: sizes[name])
        rows, width = values[largest].layout.shape[:2]
        raise DataError(
            f"dense values would take {needed / 1e9:,.1f} GB, most of them modality {largest!r} ({rows:,} observations of {width:,} "
            f"variables), and {free / 1e9:,.1f} GB are free; choose fewer, such as variables: {{{largest}: var/highly_variable}} "
            f"({listing(values)})"
        )
