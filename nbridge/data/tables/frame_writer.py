"""Completes data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from nbridge.data.tables import arrow as arrow_cells
from nbridge.data.tables.frame_adapter import Frame
from nbridge.data.tables.output_columns import CellColumn, CellPlan
from nbridge.data.tables.write import ArrowRowWriter, Renewed


class FrameRowWriter(ArrowRowWriter):
    """Completes a data frame in memory."""

    masks: ClassVar[bool] = False

    def __init__(self, plan: CellPlan, table: Frame) -> None:
        super().__init__(plan, table, 0)
        self._frame = table
        self._parts: list[tuple[np.ndarray, Mapping[str, Renewed], Mapping[str, Any]]] = []
        self._written = 0

    def given(self, start: int, stop: int, columns: Sequence[CellColumn]) -> Any:
        return self.table.read([column.same_as for column in columns if column.same_as in self.plan.kept], start, stop)

    def put(self, given: Any, rows: np.ndarray, renewed: Mapping[str, Renewed], added: Mapping[str, Any]) -> None:  # noqa: ARG002
        self._parts.append((rows + self._written, renewed, added))
        self._written += int(rows[-1]) + 1

    @property
    def result(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] (computed when it is asked for)
        return self._frame.completed(self._rows, self._renewed, self._new_columns)

    @property
    def flags(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] (computed when it is asked for)
        renewed = self._renewed
        values = {column for columns in self.plan.layout.columns.values() for column in columns}
        flags = {name: renewed[name].fill if name in renewed else np.zeros(len(self._rows), dtype=bool) for name in self._frame.columns}
        return self._frame.flags(self._rows, flags | {name: np.full(len(self._rows), name in values) for name in self._new_columns})

    @cached_property
    def _rows(self) -> np.ndarray:
        """The table row of each output row."""
        return np.concatenate([part[0] for part in self._parts])

    @cached_property
    def _renewed(self) -> dict[str, Renewed]:
        """The imputed cells, by column."""
        pa, rows, parts = arrow_cells.pyarrow_of(), self._rows, [part[1] for part in self._parts]
        return {
            name: Renewed(
                rows, np.concatenate([part[name].fill for part in parts]), pa.concat_arrays([part[name].values for part in parts])
            )
            for name in parts[0]
        }

    @cached_property
    def _new_columns(self) -> dict[str, Any]:
        """New columns."""
        pa, parts = arrow_cells.pyarrow_of(), [part[2] for part in self._parts]
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}
