"""The seam between formats and models: one class for each format, with four uses.

================= ======================================================== =====================================
use               method of `DataSource`                                   what comes back
================= ======================================================== =====================================
init              `schema`                                                 the columns, arrays or matrices
train             `bind`, then `load`                                      options to keep; all rows
impute, embed     `blocks`                                                 a `RowReader`, block by block
impute            `RowReader.writing`                                      a `RowWriter` of the same format
================= ======================================================== =====================================

`open_data` chooses the format of a path or an object. A format is registered by name (`nbridge.spec.registry`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from nbridge.common.messages import clip, listing
from nbridge.data.blocks import RowReader
from nbridge.data.folders import find_file_or_folder
from nbridge.data.remote import refresh
from nbridge.data.schema import DataSchema
from nbridge.data.split import Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels
from nbridge.data.text_values import TextForm
from nbridge.errors import DataError
from nbridge.spec.columns import ColumnKind
from nbridge.spec.registry import BUILT_IN, installed, resolve

EXPECTED = "expected tables (.csv, .tsv, .csv.gz, .tsv.gz, .parquet), folders of images or texts, or one .npz, .h5mu or .h5ad file"
"""The files that a spec is drafted from."""
Shapes = Mapping[str, tuple[int, ...]]
"""The shape of a row of each modality, by name."""


class DataSource(ABC):
    """Rows in one format.

    Keyword-only arguments of the constructor define its YAML schema. Construction accesses no files.

    Attributes:
        reserved: Columns that define splits (`data.group`, `data.split`) and covariates; column patterns do not match them.
        mixed: The columns of each mixed modality, with their kinds.
        origin: The file or folder as its user named it, for messages; empty for rows in memory.
        name: The registered name of a format whose rows are passed from Python.
        id: The column or array of identifiers.
        in_memory: Whether rows are passed from Python, and returned rather than written.
        into_folder: Whether completed files are written into one folder, under their own names.
        ending: The ending of the files that a model of these data imputes.
        mask_names: Where masks of imputed values are; empty for data frames, which come with a frame of masks on request.
        texts: How the texts of modalities that hold any are read and written.
    """

    reserved: frozenset[str] = frozenset()
    mixed: Mapping[str, Mapping[str, ColumnKind]] = MappingProxyType({})
    origin: str = ""
    name: ClassVar[str] = ""
    id: str = "id"
    in_memory: ClassVar[bool] = False
    into_folder: bool = False
    ending: str = ".npz"
    mask_names: ClassVar[str] = "completed files have columns NAME__imputed"
    texts: Mapping[str, TextForm] = MappingProxyType({})

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:  # noqa: ARG003 (for formats that read rows)
        """Whether rows are in this format, by their type or the name of their file.

        Arguments:
            rows: An object, a path, or a list of paths.
            own: The source that a model was trained from; None if there is no model.
        """
        return False

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> DataSource:
        """This format over given rows.

        Arguments:
            rows: Rows that `reads` accepts.
            own: The source that a model was trained from, whose options bind columns to modalities; None if there is no model.

        Raises:
            DataError: when the options do not apply to this format, or a file does not exist.
        """
        raise NotImplementedError(f"{cls.__name__} reads no other rows")

    def schema(self) -> AbstractContextManager[DataSchema]:
        """What the data hold, for a first spec; open while the context lasts.

        Raises:
            DataError: when they can't be read.
        """
        raise DataError(f"no spec can be drafted from the data source {type(self).__name__}; write one by hand")

    def with_rows(self, given: DataSource) -> DataSource:
        """The source of rows passed from Python, with the options of this one if they apply to such rows.

        Arguments:
            given: The source of these rows, without options.
        """
        return given

    def words(self, columns: Mapping[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        """The columns of each modality as the spec names them: those of mixed modalities, and of others by the options of the source.

        Raises:
            DataError: when both name those of a modality, and not the same.
        """
        found: dict[str, str | tuple[str, ...]] = dict(columns)
        for name, kinds in self.mixed.items():
            given = found.setdefault(name, tuple(kinds))
            if ((given,) if isinstance(given, str) else tuple(given)) != tuple(kinds):
                text = f"modality {name!r}: data.columns lists {clip(listing([given] if isinstance(given, str) else given), 100)}, but its"
                raise DataError(f"{text} likelihood is of {clip(listing(kinds), 100)}; leave it out of data.columns")
        return found

    def takes_arrays(self, data: Mapping[str, object], names: Iterable[str]) -> bool:  # noqa: ARG002 (for formats with columns)
        """Whether a dict passed from Python holds arrays by modality, rather than columns.

        Arguments:
            data: The dict.
            names: The modalities.
        """
        return True

    @abstractmethod
    def load(self, shapes: Shapes) -> Dataset:
        """Reads the requested modalities and no others.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: when the source doesn't offer a modality, or not in this shape, or its data can't be read.
        """

    def bind(self, shapes: Shapes) -> Mapping[str, Any]:  # noqa: ARG002 (for formats with options inferred from data)
        """Options to store with a model in place of those inferred from the data, such as a pattern of columns; none by default.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: as for `load`.
        """
        return {}

    def blocks(self, binding: Binding, scratch: Path) -> AbstractContextManager[RowReader]:  # noqa: ARG002 (for formats that can be imputed)
        """Opens the rows for a model, as a context manager.

        Arguments:
            binding: What the model keeps of its data.
            scratch: A folder for temporary files.

        Raises:
            DataError: when they can't be read, or do not match the binding.
        """
        raise DataError(f"rows of {type(self).__name__} can be trained from, but not imputed; save them as npz")

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: B027 (most formats have nothing to check)
        """Checks where completed rows are to be written, before they are read.

        Arguments:
            target: The file or folder.
            sharded: Whether only some rows are written.

        Raises:
            DataError: when they can't be written there.
        """

    def remarks(self, shapes: Shapes) -> tuple[str, ...]:  # noqa: ARG002 (for sources with warnings)
        """Warnings about the source's files; none by default.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: as for `load`.
        """
        return ()

    def mistakes(self, shapes: Shapes) -> tuple[str, ...]:  # noqa: ARG002 (for formats that find several at once)
        """The errors that prevent loading, one per line, where a format can find several at once; none by default.

        Arguments:
            shapes: The shape of a row of each modality, by name.
        """
        return ()

    def fields(self, shapes: Shapes) -> dict[str, list[Field]]:  # noqa: ARG002 (for formats with columns)
        """The columns of each modality that is made of columns, by the options alone, which are complete once they are bound.

        Arguments:
            shapes: The shape of a row of each modality, by name.
        """
        return {}

    def element_names(self, shapes: Shapes) -> dict[str, list[str]]:
        """The names of the elements of each modality, in the data: columns or variables, or its own name and numbers.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: as for `load`.
        """
        return {name: numbered(name, shape) for name, shape in shapes.items()}

    def class_names(self, shapes: Shapes) -> dict[str, Sequence[str]]:  # noqa: ARG002 (for formats with classes)
        """The ordered classes of modalities that are class indices, where the data name them.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: as for `load`.
        """
        return {}

    @property
    def array_keys(self) -> Mapping[str, str]:
        """The array of modalities with another name, for formats of one array a modality; none by default."""
        return {}

    @property
    def text_classes(self) -> Mapping[str, Sequence[str]]:
        """The ordered classes of modalities whose arrays hold text; none by default."""
        return {}

    def texts_of(self, name: str, shapes: Shapes) -> Iterable[str]:  # noqa: ARG002 (for formats with texts)
        """The texts of a modality, one per row, empty where absent; its vocabulary is made from them.

        Arguments:
            name: The modality.
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: when the format has no texts, or as for `load`.
        """
        at = f"{self.path}: " if isinstance(getattr(self, "path", None), str) else ""  # pyright: ignore[reportAttributeAccessIssue]
        raise DataError(
            f"{at}modality {name!r}: the data source {type(self).__name__} reads no texts; use source: table (csv, Parquet, folders "
            "of .txt), npz, or rows from Python"
        )

    def text_place(self, name: str, row: int, shapes: Shapes) -> str:  # noqa: ARG002 (for formats with columns)
        """The position of a text of `texts_of`, for messages."""
        return f"modality {name!r}: row {row}"

    def array_names(self, names: Iterable[str]) -> dict[str, str]:
        """The array of each modality."""
        return {name: self.array_keys.get(name, name) for name in names}

    def row_labels(self, column: str, shapes: Shapes) -> RowLabels:  # noqa: ARG002 (for sources with columns)
        """The values of a column that is not a modality, one per row, in the order of `load`.

        Arguments:
            column: The column, as `data.group` or `data.split` names it.
            shapes: The shape of a row of each modality, by name.

        Raises:
            NoColumnError: when there is no such column, or it does not hold one value per row.
            DataError: when it can't be read.
        """
        raise NoColumnError(f"no column {column!r}: this data source has none beside its modalities")


@dataclass(frozen=True)
class Field:
    """A column of a modality.

    Arguments:
        column: Its name.
        classes: Its classes; empty for numbers.
        start: Its first element.
        stop: The element after its last.
    """

    column: str
    classes: tuple[str, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Binding:
    """What a model keeps of its data: the format, and its options, which bind columns to modalities.

    Arguments:
        source: The format, by its registered name.
        options: The options of its class, complete once they are bound (`DataSource.bind`).
        shapes: The shape of a row of each modality of the data, by name.
        names: The modalities of the model; all by default.
        texts: How the texts of modalities that hold any are read and written.
    """

    source: str = "memory"
    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    names: tuple[str, ...] = ()
    texts: Mapping[str, TextForm] = field(default_factory=dict)

    @property
    def own(self) -> DataSource:
        """The source that the model was trained from.

        Raises:
            SpecError: when its class cannot be imported.
        """
        source = source_class(self.source)(**self.options)
        source.texts = self.texts
        return source

    @property
    def taken(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the modalities of the model."""
        return {name: self.shapes[name] for name in self.names or self.shapes}


def source_class(name: str) -> type[DataSource]:
    """The class of a format.

    Raises:
        SpecError: when there is none of this name, or it cannot be imported.
    """
    return resolve("datasets", name, DataSource)


def open_data(rows: Any, own: DataSource | None = None) -> DataSource:
    """The source of rows in any format: an object, a path, or a list of paths.

    Arguments:
        rows: The rows; a source is returned unchanged.
        own: The source that a model was trained from, whose options bind columns to modalities; None to look at raw data.

    Raises:
        DataError: when no format reads them, or a model was trained from rows that are bound in another way.
    """
    if isinstance(rows, DataSource):
        return rows
    if are_paths(rows):
        # What a URL names may have changed since an earlier call.
        refresh()
    for kind in _formats(own):
        if kind.reads(rows, own):
            found = kind.over(rows, own)
            if own is not None:
                found.texts = own.texts
            return found
    if are_paths(rows):
        raise DataError(f"{find_file_or_folder(next(iter(paths_of(rows)), ''))}: {EXPECTED}")
    raise DataError(f"rows of type {type(rows).__name__}, expected a path, a data frame, a dict of arrays, or a MuData or AnnData object")


def _formats(own: DataSource | None) -> Iterator[type[DataSource]]:
    """The class of a model's own source, those of installed packages, then all built-in formats."""
    if own is not None and not type(own).__module__.startswith("nbridge."):
        yield type(own)
    yield from (source_class(name) for name in (*installed("datasets"), *BUILT_IN["datasets"]))


def are_paths(rows: object) -> bool:
    """Whether rows are a path or a list of paths."""
    return is_path(rows) or (isinstance(rows, list | tuple) and all(map(is_path, rows)))


def is_path(rows: object) -> bool:
    """Whether rows are a single path."""
    return isinstance(rows, str | os.PathLike)


def check_not_input(target: Path, path: Path) -> None:
    """Checks that the input is not the output.

    Raises:
        DataError: when it is.
    """
    if target.exists() and target.samefile(path):
        raise DataError(f"{target}: is the input file; choose another")


def check_whole(*, sharded: bool) -> None:
    """Checks that all rows are written.

    Raises:
        DataError: when only some are.
    """
    if sharded:
        raise DataError("shard is for one file; joined tables and folders of images are written whole")


def paths_of(rows: Any) -> tuple[str, ...]:
    """Paths as texts; a single one is a list of one."""
    return tuple(map(os.fspath, [rows] if is_path(rows) else rows))


def numbered(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names for elements that have none: ``x``, or ``x[0]``, ``x[1]`` and so on."""
    size = prod(shape)
    return [name] if size == 1 else [f"{name}[{place}]" for place in range(size)]
