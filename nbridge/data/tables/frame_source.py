"""The data source of specs whose rows are a data frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbridge.data.blocks import RowReader
from nbridge.data.schema import ColumnsSchema
from nbridge.data.source import Binding, DataSource, are_paths
from nbridge.data.tables.columns import TableFile
from nbridge.data.tables.frames import is_frame, is_split, open_frame
from nbridge.data.tables.rows import CellRows
from nbridge.data.tables.source import Table
from nbridge.errors import DataError, naming


class FrameSource(Table):
    """Rows of a data frame passed from Python, nbridge.train(spec, data=frame): pandas, polars, pyarrow, datasets, or arrays.

    A modality is one or more columns, as in `table`, or a column of lists of numbers, of arrays or of images. None, NaN and
    empty text mark absent values. Rows are identified by position; neither an index nor identifiers are needed.

    Arguments:
        columns: The columns of each modality: a name, a pattern such as lab_*, or a list; by default the column of the same name.
        classes: The ordered classes of categorical columns. Text is categorical; two classes are 0 and 1, more are one-hot, or the class
            index if the column is the whole modality. There they can be omitted: those of the data are then stored with the model.
        missing: Additional placeholders for absent cells, such as -999 or unknown.
    """

    name = "frame"
    in_memory = True
    mask_names = ""

    def __init__(
        self,
        *,
        columns: dict[str, str | tuple[str, ...]] | None = None,
        classes: dict[str, tuple[str | int | float, ...]] | None = None,
        missing: tuple[str | int | float, ...] = (),
    ) -> None:
        super().__init__(path=(), columns=columns, classes=classes, id="", missing=missing)
        self.into_folder, self._known_id = False, ""

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        by_modality = isinstance(rows, Mapping) and not is_frame(rows) and not is_split(rows) and own is not None
        return not are_paths(rows) and (not by_modality or isinstance(own, Table))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> FrameSource:
        if own is not None and not isinstance(own, Table):
            raise DataError("this model was trained from arrays; pass a dict of arrays by modality, or train a model from a data frame")
        found = cls() if own is None else own.bound(cls())
        # Rows are identified by position, but a column of identifiers is no mistyped modality.
        found._given, found._known_id, found.id = open_frame(rows), found.id, ""
        return found

    @contextmanager
    def schema(self) -> Iterator[ColumnsSchema]:
        assert self._given is not None
        yield ColumnsSchema("data", {"source": self.name}, str(self._given.path), from_python=True, tables=[self._given])

    def takes_arrays(self, data: Mapping[str, object], names: Iterable[str]) -> bool:  # noqa: ARG002 (a dict holds columns)
        return False

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002 (rows are in memory)
        assert self._given is not None
        with naming(self._given.path):
            layout = replace(self.layout_of(binding.shapes), id=self._known_id)
            yield CellRows(self._given, layout, tuple(binding.taken))

    def files(self, shapes: Mapping[str, tuple[int, ...]]) -> list[TableFile]:
        """Returns the frame passed from Python.

        Arguments:
            shapes: The shape of a row of each modality, by name.

        Raises:
            DataError: when none was passed.
        """
        if self._given is None:
            raise DataError("the rows of this spec are a data frame: pass it from Python, nbridge.train(spec, data=frame)")
        return super().files(shapes)
