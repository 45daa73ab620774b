"""Arrays by modality that are passed from Python, and the data source of specs that name none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.data.blocks import RowReader
from nbridge.data.column import as_array
from nbridge.data.group_split import labels_of
from nbridge.data.numpy.members import ArrayMember
from nbridge.data.numpy.rows import ArrayRows
from nbridge.data.source import Binding, DataSource, Shapes
from nbridge.data.split import Dataset
from nbridge.data.split_labels import RowLabels
from nbridge.errors import DataError


class Memory(DataSource):
    """The source of a spec that names none: arrays are passed from Python."""

    in_memory = True
    mask_names = "imputed arrays come with masks NAME__imputed"

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._classes: Mapping[str, Sequence[str]] = {}

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        return own is not None and isinstance(rows, Mapping)

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> Memory:
        found = cls()
        texts = {} if own is None else own.texts
        found._arrays = {str(name): _array_of(name, array, name in texts) for name, array in rows.items()}
        found._classes = {} if own is None else own.text_classes
        return found

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002 (rows are in memory)
        members = {name: ArrayMember(name, array) for name, array in self._arrays.items()}
        yield ArrayRows(members, self.array_names(binding.taken), classes=self._classes, texts=self.texts)

    def row_labels(self, column: str, shapes: Shapes) -> RowLabels:  # noqa: ARG002 (every array is there)
        return labels_of(self._arrays, column)

    def load(self, shapes: Shapes) -> Dataset:
        """Always raises: there is nothing to load.

        Raises:
            DataError: always, with the two ways to provide rows.
        """
        raise DataError(
            "the spec names no data source: pass arrays from Python, nbridge.train(spec, data={...}) with "
            f"{', '.join(shapes)}, or add one to the spec, such as `data: {{source: npz, path: rows.npz}}`"
        )


def _array_of(name: str, array: Any, texts: bool) -> np.ndarray:
    # NaN among texts in a list would become a text.
    return np.array(array, dtype=object) if texts and isinstance(array, list | tuple) else as_array(f"modality {name!r}", array)
