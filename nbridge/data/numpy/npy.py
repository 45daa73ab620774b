"""Folders of npy files, one per modality, of any size, with rows read on demand; pickled objects are never read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.messages import did_you_mean, listing
from nbridge.data.arrays import check_same_rows, keys_of
from nbridge.data.blocks import RowReader
from nbridge.data.column import PRESENT, check_layout
from nbridge.data.endings import ARRAY, files_ending
from nbridge.data.folders import find_folder, is_folder
from nbridge.data.ids import check_ids
from nbridge.data.marks import rows_marked_by
from nbridge.data.numpy.members import FileMember, Member, NpyWording
from nbridge.data.numpy.rows import ArrayRows, folder_members
from nbridge.data.source import Binding, DataSource, check_not_input, is_path
from nbridge.data.split import Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels, array_labels
from nbridge.data.streaming.store import Store, even_blocks
from nbridge.data.streaming.stored_rows import open_rows
from nbridge.errors import DataError, naming


class NPYFolder(DataSource):
    """Rows of npy files (``np.save``) in a folder, one file per modality, which may be larger than memory.

    NaN marks absent values, as does an optional boolean file ``KEY__present.npy``. Two passes over the files determine presence and check
    every value; rows are then read as training requests them.

    Arguments:
        path: The folder: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        keys: The file of each modality, without its ending, if it has another name.
        id: The file of identifiers, without its ending; optional under its default name.
    """

    def __init__(self, *, path: str, keys: dict[str, str] | None = None, id: str = "id") -> None:  # noqa: A002 (a key of the YAML)
        self.path = path
        self.keys = keys or {}
        self.id = id
        self.ending = ""
        self.classes: Mapping[str, Sequence[str]] = {}

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        return own is not None and is_path(rows) and is_folder(str(rows))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> NPYFolder:
        found = cls(path=str(rows))
        found.origin = str(rows)
        if own is not None:
            found.keys, found.id, found.classes = dict(own.array_keys), own.id, own.text_classes
        return found

    @property
    def array_keys(self) -> Mapping[str, str]:
        return self.keys

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:  # noqa: ARG002 (files are read where they are)
        path = find_folder(self.path)
        with naming(self.origin, path):
            yield ArrayRows(folder_members(path), self.array_names(binding.taken), id_key=self.id, classes=self.classes, texts=self.texts)

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: ARG002 (rows can be cut anywhere)
        check_not_input(target, find_folder(self.path))
        if target.is_dir() and (other := [file.name for file in target.iterdir() if file.suffix != ARRAY]):
            raise DataError(f"{target}: the folder contains other files ({sorted(other)[0]}); choose another")

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Opens the files of the requested modalities and ignores others.

        Raises:
            DataError: when the folder or a file is missing, or a file is damaged, not an array, or has another shape or dtype.
        """
        keys = keys_of(shapes, self.keys)
        folder = find_folder(self.path)
        arrays = {name: _open(folder, key, name) for name, key in keys.items()}
        for name, array in arrays.items():
            with naming(array.path):
                check_layout(name, array.shape, array.dtype, shapes[name])
        with naming(folder):
            check_same_rows({name: array.shape[0] for name, array in arrays.items()})
        masks = {name: _mask(folder, key, arrays[name].shape[0]) for name, key in keys.items() if _file(folder, key + PRESENT).is_file()}
        rows = open_rows(NPYStore(folder, shapes, arrays, masks))
        with naming(folder):
            marked = rows_marked_by(keys, lambda key: _open(folder, key).whole() if _file(folder, key).is_file() else None)
        return Dataset(rows, self._ids(folder, len(rows)) if self.id not in keys.values() else None, imputed=marked)

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:  # noqa: ARG002
        """The values of a file ``COLUMN.npy``."""
        folder = find_folder(self.path)
        if not _file(folder, column).is_file():
            raise NoColumnError(f"{folder}: {_no_file(folder, column)}")
        array = _open(folder, column)
        if array.shape[1:] not in ((), (1,)):
            raise NoColumnError(f"{array.path}: array of shape {array.shape}, expected one value for each row, (rows,)")
        return array_labels(f"array {column!r}", array.whole(), str(array.path))

    def _ids(self, folder: Path, rows: int) -> np.ndarray | None:
        if self.id == "id" and not _file(folder, "id").is_file():
            return None
        array = _open(folder, self.id)
        with naming(array.path):
            return check_ids(array.whole(), rows)


class NPYStore(Store):
    """The arrays of a folder, of equal length."""

    def __init__(
        self, folder: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Member], masks: Mapping[str, np.ndarray]
    ) -> None:
        rows = next(iter(arrays.values())).shape[0]
        super().__init__(folder, shapes, even_blocks(rows, shapes))
        self._arrays, self._masks = arrays, masks

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._arrays[name].rows(start, stop)

    def mask(self, name: str) -> np.ndarray | None:
        return self._masks.get(name)


def _file(folder: Path, key: str) -> Path:
    """The file of an array, ignoring the case of its ending."""
    plain = folder / f"{key}{ARRAY}"
    return plain if plain.exists() else next((file for file in files_ending(folder, ARRAY) if file.stem == key), plain)


def _no_file(folder: Path, key: str, modality: str | None = None) -> str:
    found = [file.stem for file in files_ending(folder, ARRAY)]
    of = f" for modality {modality!r}" if modality is not None and modality != key else ""
    return f"no file '{key}.npy'{of}.{did_you_mean(key, found)} Found: {listing(found)}"


def _open(folder: Path, key: str, modality: str | None = None) -> FileMember:
    """Opens an array after checking its header and file size; its rows are not read."""
    path = _file(folder, key)
    if not path.is_file():
        raise DataError(f"{folder}: {_no_file(folder, key, modality)}")
    array = FileMember(key, path, NpyWording(f"{path}:", "truncated or damaged npy file", "array holds", f"{path}:"))
    if array.by_columns:
        raise DataError(f"{path}: Fortran order, expected C order: save np.ascontiguousarray of it")
    return array


def _mask(folder: Path, key: str, rows: int) -> np.ndarray:
    array = _open(folder, key + PRESENT)
    if array.shape != (rows,):
        raise DataError(f"{array.path}: array of shape {array.shape}, expected ({rows},), one boolean per row of {key!r}")
    return array.whole()
