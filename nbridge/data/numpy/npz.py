"""Reads and writes npz archives; pickled objects are never read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike

from nbridge.common.atomic_files import write_atomically, writing
from nbridge.common.messages import did_you_mean, listing
from nbridge.data.arrays import keys_of, to_batch
from nbridge.data.column import PRESENT
from nbridge.data.folders import find_file
from nbridge.data.ids import check_ids
from nbridge.data.numpy.class_texts import are_texts, class_numbers, texts_in
from nbridge.data.split import PARTS, Dataset, Source
from nbridge.data.split_labels import NoColumnError, RowLabels, array_labels
from nbridge.errors import DataError, naming

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""Exceptions raised by reading a damaged archive."""


class NPZ(Source):
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
        self.classes = classes or {}

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Dataset:
        """Reads the arrays of the requested modalities and ignores others.

        Raises:
            DataError: when the file is missing, damaged or not an archive, lacks an array, or an array has another shape or dtype.
        """
        keys = keys_of(shapes, self.keys)
        keys_of(shapes, self.classes, "classes")
        path = find_file(self.path)
        with opened_npz(path) as archive:
            found = [self._read(path, archive, keys, f"{part}_") for part in PARTS] if self.parts else [self._read(path, archive, keys, "")]
        ids = [arrays.pop("") for arrays in found if "" in arrays]
        with naming(path):
            batch = to_batch(_one_after_the_other(found) if self.parts else found[0], shapes)
            named = check_ids(np.concatenate(ids), len(batch)) if len(ids) == len(found) else None
            part = np.repeat(PARTS, [_rows_of(arrays) for arrays in found]) if self.parts else None
            return Dataset(batch, named, part, origin=str(path))

    def row_labels(self, column: str, shapes: Mapping[str, tuple[int, ...]]) -> RowLabels:  # noqa: ARG002
        """The values of an array; with `parts`, of its two arrays concatenated."""
        path = find_file(self.path)
        what = f"array {column!r}"
        with opened_npz(path) as archive:
            names = [f"{part}_{column}" for part in PARTS] if self.parts else [column]
            for name in names:
                if name not in archive.files:
                    raise NoColumnError(f"{path}: {_no_array(name, archive)}")
            arrays = [_member(path, archive, name) for name in names]
        found = [array_labels(what, array, str(path)) for array in arrays]
        return replace(found[0], texts=[text for labels in found for text in labels.texts])

    def _read(self, path: Path, archive: NpzFile, keys: Mapping[str, str], prefix: str) -> dict[str, np.ndarray]:
        """The arrays of a part by modality, its masks, and its identifiers if it has any."""
        others = [part + "_" for part in PARTS if part + "_" != prefix] if prefix else []
        arrays: dict[str, np.ndarray] = {}
        for name, key in keys.items():
            if prefix + key in archive.files or not any(other + key in archive.files for other in others):
                arrays[name] = self._numbered(path, name, _member(path, archive, prefix + key, name))
            if prefix + key + PRESENT in archive.files:
                arrays[name + PRESENT] = _member(path, archive, prefix + key + PRESENT)
        if (self.id != "id" or prefix + self.id in archive.files) and self.id not in keys.values():
            arrays[""] = _member(path, archive, prefix + self.id)
        return arrays

    def _numbered(self, path: Path, name: str, array: np.ndarray) -> np.ndarray:
        """Class indices, NaN for an empty text."""
        if not are_texts(array.dtype, array.shape):
            return array
        what = f"{path}: modality {name!r}"
        if name not in self.classes:
            raise DataError(f"{what}: array of dtype {array.dtype}, expected real numbers; list text classes in data.classes")
        return class_numbers(texts_in(array, what), self.classes[name], what)


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


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an archive, by name.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when it is missing, damaged, not an archive, or holds pickled objects.
    """
    found = find_file(path)
    with opened_npz(found) as archive:
        return {key: _member(found, archive, key) for key in archive.files}


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Writes an archive atomically: a failure leaves an existing file unchanged.

    Equal arrays give equal bytes.

    Raises:
        DataError: when an array holds objects, or the file can't be written.
    """
    target = Path(path)
    plain = {key: np.asarray(array) for key, array in arrays.items()}
    for key, array in plain.items():
        if array.dtype.hasobject:
            raise DataError(f"{target}: array {key!r} is of dtype {array.dtype}, expected numbers or text")
    with writing(target, DataError):
        write_atomically(target, lambda temporary: _write(temporary, plain))


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    pack_npz(path, {key: partial(np.lib.format.write_array, array=array, allow_pickle=False) for key, array in arrays.items()})


def pack_npz(path: Path, members: Mapping[str, Callable[[IO[bytes]], None]]) -> None:
    """Writes an archive, member by member.

    Arguments:
        path: The file, which is overwritten.
        members: Writers of each array's npy file, by name.
    """
    # Not np.savez: its own parameter names can't be array names, and it writes timestamps.
    with zipfile.ZipFile(path, "w") as archive:
        for key, write in members.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                write(member)


@contextmanager
def opened_npz(path: Path) -> Iterator[NpzFile]:
    """Opens an archive as a context manager.

    Raises:
        DataError: when it can't be read, is damaged or not an archive.
    """
    try:
        # np.load would leave the file open on failure.
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    with file, _archive(path, file) as archive:
        yield archive


def _archive(path: Path, file: IO[bytes]) -> NpzFile:
    if file.read(2) != b"PK":
        raise DataError(f"{path}: not an npz file; np.savez writes one")
    if not zipfile.is_zipfile(file):
        raise DataError(f"{path}: truncated or damaged npz file")
    file.seek(0)
    try:
        return np.load(file, allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or damaged npz file ({error})") from error


def _no_array(key: str, archive: NpzFile, modality: str | None = None) -> str:
    of = f" for modality {modality!r}" if modality is not None and modality != key else ""
    return f"no array {key!r}{of}.{did_you_mean(key, archive.files)} Found: {listing(archive.files)}"


def _member(path: Path, archive: NpzFile, key: str, modality: str | None = None) -> np.ndarray:
    if key not in archive.files:
        raise DataError(f"{path}: {_no_array(key, archive, modality)}")
    try:
        array = archive[key]
    except UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: array {key!r} holds pickled Python objects, expected numbers or text") from error
        raise DataError(f"{path}: array {key!r} is damaged ({error})") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key!r} is not an array; np.savez writes them")
    return array
