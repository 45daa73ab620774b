"""The data source of npz archives."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from nbridge.data.arrays import keys_of, to_batch
from nbridge.data.blocks import RowReader
from nbridge.data.column import PRESENT
from nbridge.data.endings import ARCHIVE, has_ending
from nbridge.data.folders import find_file
from nbridge.data.ids import check_ids, check_ids_layout
from nbridge.data.marks import rows_marked_by
from nbridge.data.numpy.archive import no_array, opened_npz, read_member, read_npz
from nbridge.data.numpy.class_texts import are_texts, class_numbers, texts_in
from nbridge.data.numpy.rows import ArrayRows, archive_members
from nbridge.data.schema import ArraysSchema
from nbridge.data.source import Binding, DataSource, check_not_input, is_path
from nbridge.data.split import PARTS, Dataset
from nbridge.data.split_labels import NoColumnError, RowLabels, array_labels
from nbridge.data.text_values import numbered_texts, texts_in_array
from nbridge.errors import DataError, naming


class NPZ(DataSource):
    """Rows of a NumPy archive (``np.savez``), one array per modality.

    NaN marks absent values, as does an optional boolean array ``KEY__present``. ``parts`` reads an archive with its own test part:
    ``train_KEY`` and ``test_KEY`` are the training and the test rows, and a modality with an array in only one part is absent from the
    other.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        keys: The array of each modality, if it has another name.
        id: The array of identifiers; optional under its default name.
        parts: Whether the archive has two arrays of each, ``train_KEY`` and ``test_KEY``.
        classes: The ordered classes of modalities whose array holds text, one per row.
    """

    def __init__(
        self,
        *,
        path: str,
        keys: dict[str, str] | None = None,
        id: str = "id",  # noqa: A002 (a key of the YAML)
        parts: bool = False,
        classes: dict[str, list[str]] | None = None,
    ) -> None:
        self.path = path
        self.keys = keys or {}
        self.id = id
        self.parts = parts
        self.classes: dict[str, Sequence[str]] = dict(classes or {})

    @classmethod
    def reads(cls, rows: object, own: DataSource | None) -> bool:
        return is_path(rows) and (own is not None or has_ending(str(rows), ARCHIVE))

    @classmethod
    def over(cls, rows: Any, own: DataSource | None) -> NPZ:
        found = cls(path=str(rows))
        found.origin = str(rows)
        if own is not None:
            found.keys, found.id = dict(own.array_keys), own.id
            found.classes = dict(own.text_classes)
        return found

    @contextmanager
    def schema(self) -> Iterator[ArraysSchema]:
        path = find_file(self.path)
        yield ArraysSchema(path.stem, {"source": "npz", "path": self.path}, str(path), arrays=read_npz(path))

    @property
    def text_classes(self) -> Mapping[str, Sequence[str]]:
        return self.classes

    @property
    def array_keys(self) -> Mapping[str, str]:
        return self.keys

    def class_names(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[str]]:  # noqa: ARG002 (as listed, or none)
        return {name: tuple(map(str, texts)) for name, texts in self.classes.items()}

    @contextmanager
    def blocks(self, binding: Binding, scratch: Path) -> Iterator[RowReader]:
        path = find_file(self.path)
        with naming(self.origin, path), archive_members(path, scratch) as members:
            names = self.array_names(binding.taken)
            yield ArrayRows(members, names, packed=True, id_key=self.id, classes=self.classes, texts=self.texts)

    def check_output(self, target: Path, *, sharded: bool) -> None:  # noqa: ARG002 (rows can be cut anywhere)
        check_not_input(target, find_file(self.path))

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Reads the arrays of the requested modalities and ignores others.

        Raises:
            DataError: when the file is missing, damaged or not an archive, lacks an array, or an array has another shape or dtype.
        """
        keys = keys_of(shapes, self.keys)
        keys_of(shapes, self.classes, "classes")
        path = find_file(self.path)
        prefixes = [f"{part}_" for part in PARTS] if self.parts else [""]
        with opened_npz(path) as archive, naming(path):
            found = [self._read(path, archive, keys, prefix) for prefix in prefixes]
            marked = [_marked(path, archive, {name: prefix + key for name, key in keys.items()}) for prefix in prefixes]
        ids = [arrays.pop("") for arrays in found if "" in arrays]
        with naming(path):
            batch = to_batch(_one_after_the_other(found) if self.parts else found[0], shapes)
            for array in ids:
                check_ids_layout(array.shape, array.dtype)
            named = check_ids(np.concatenate(ids), len(batch)) if len(ids) == len(found) else None
            part = np.repeat(PARTS, [_rows_of(arrays) for arrays in found]) if self.parts else None
            return Dataset(batch, named, part, origin=str(path), imputed=sum(marked, Counter()))

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:  # noqa: ARG002
        """The values of an array; with `parts`, of its two arrays concatenated."""
        path = find_file(self.path)
        what = f"array {column!r}"
        with opened_npz(path) as archive:
            names = [f"{part}_{column}" for part in PARTS] if self.parts else [column]
            for name in names:
                if name not in archive.files:
                    raise NoColumnError(f"{path}: {no_array(name, archive)}")
            arrays = [read_member(path, archive, name) for name in names]
        found = [array_labels(what, array, str(path)) for array in arrays]
        return replace(found[0], texts=[text for labels in found for text in labels.texts])

    def texts_of(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
        key, path = keys_of(shapes, self.keys)[name], find_file(self.path)
        with opened_npz(path) as archive:
            for prefix in [f"{part}_" for part in PARTS] if self.parts else [""]:
                yield from texts_in_array(read_member(path, archive, prefix + key, name), f"{path}: modality {name!r}")

    def _read(self, path: Path, archive: NpzFile, keys: Mapping[str, str], prefix: str) -> dict[str, np.ndarray]:
        """The arrays of a part by modality, its masks, and its identifiers if it has any."""
        others = [part + "_" for part in PARTS if part + "_" != prefix] if prefix else []
        arrays: dict[str, np.ndarray] = {}
        for name, key in keys.items():
            if prefix + key in archive.files or not any(other + key in archive.files for other in others):
                arrays[name] = self._numbered(path, name, read_member(path, archive, prefix + key, name))
            if prefix + key + PRESENT in archive.files:
                arrays[name + PRESENT] = read_member(path, archive, prefix + key + PRESENT)
        if (self.id != "id" or prefix + self.id in archive.files) and self.id not in keys.values():
            arrays[""] = read_member(path, archive, prefix + self.id)
        return arrays

    def _numbered(self, path: Path, name: str, array: np.ndarray) -> np.ndarray:
        """Class indices, NaN for an empty text."""
        what = f"{path}: modality {name!r}"
        if name in self.texts:
            return numbered_texts(self.texts[name], array, what)
        if not are_texts(array.dtype, array.shape):
            return array
        if name not in self.classes:
            raise DataError(f"{what}: array of dtype {array.dtype}, expected real numbers; list text classes in data.classes")
        return class_numbers(texts_in(array, what), self.classes[name], what)


def _marked(path: Path, archive: NpzFile, keys: Mapping[str, str]) -> Counter[str]:
    """The number of rows, by modality, with values that were imputed before."""
    return Counter(rows_marked_by(keys, lambda key: read_member(path, archive, key) if key in archive.files else None))


def _rows_of(arrays: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(arrays.values())))


def _one_after_the_other(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenates the rows of all parts; a modality without an array in a part is absent from its rows."""
    whole: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for arrays in parts for name in arrays):
        like = next(arrays[name] for arrays in parts if name in arrays)
        # In a part without a mask, presence follows the array.
        fillers = [float(name.removesuffix(PRESENT) in arrays) if name.endswith(PRESENT) else math.nan for arrays in parts]
        missing = [np.full((_rows_of(arrays), *like.shape[1:]), filler) for arrays, filler in zip(parts, fillers, strict=True)]
        whole[name] = np.concatenate([arrays.get(name, absent) for arrays, absent in zip(parts, missing, strict=True)])
    return whole
