"""NumPy archives: rows in, results out. Pickled objects are never read."""

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
"""What reading a damaged archive raises."""


class NPZ(Source):
    """Rows of a NumPy archive (``np.savez``), one array a modality.

    NaN marks what is absent, and so does an optional array ``KEY__present`` of truth values. With ``parts`` an archive that comes with a
    test part of its own is read as it is: ``train_KEY`` and ``test_KEY`` are the rows to learn from and those to test on, and a modality
    that only one part has an array of is absent from the other.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.
        keys: The array of each modality, where it bears another name.
        id: The array of identifiers; a file may do without one of the default name.
        parts: Whether the archive has two arrays of each, ``train_KEY`` and ``test_KEY``.
        classes: Of modalities whose array holds text, one a row, the classes in the order of their numbers.
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
        """Reads the arrays of the modalities asked for; others of the file are passed over.

        Raises:
            DataError: when the file is missing, damaged or no archive, lacks an array, or holds one that doesn't fit.
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
        """The values of an array; with `parts` those of its two arrays, one after the other."""
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
        """The arrays of a part by modality, its masks, and under no name its identifiers, if it has any."""
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
        """Classes by their number, NaN in the place of an empty text."""
        if not are_texts(array.dtype, array.shape):
            return array
        what = f"{path}: modality {name!r}"
        if name not in self.classes:
            raise DataError(f"{what}: array of dtype {array.dtype}, expected real numbers; of classes that are text data.classes lists all")
        return class_numbers(texts_in(array, what), self.classes[name], what)


def _rows_of(arrays: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(arrays.values())))


def _one_after_the_other(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of all parts; what a part has no array of is absent from its rows."""
    whole: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for arrays in parts for name in arrays):
        like = next(arrays[name] for arrays in parts if name in arrays)
        # A part without a mask has what it has an array of.
        fillers = [float(name.removesuffix(PRESENT) in arrays) if name.endswith(PRESENT) else math.nan for arrays in parts]
        missing = [np.full((_rows_of(arrays), *like.shape[1:]), filler) for arrays, filler in zip(parts, fillers, strict=True)]
        whole[name] = np.concatenate([arrays.get(name, absent) for arrays, absent in zip(parts, missing, strict=True)])
    return whole


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of an archive, by name.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when it is missing, damaged, no archive, or holds pickled objects.
    """
    found = find_file(path)
    with opened_npz(found) as archive:
        return {key: _member(found, archive, key) for key in archive.files}


def write_npz(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Writes an archive whole or not at all: a failure leaves an older file of this name as it was.

    The same arrays give the same bytes.

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
        path: The file, which is written over.
        members: What writes the npy file of each array, by name.
    """
    # Not np.savez: its own arguments can't be names of arrays, and the clock goes into its bytes.
    with zipfile.ZipFile(path, "w") as archive:
        for key, write in members.items():
            with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:
                write(member)


@contextmanager
def opened_npz(path: Path) -> Iterator[NpzFile]:
    """An archive, until the end of the block.

    Raises:
        DataError: when it can't be read, is damaged or no archive.
    """
    try:
        # Not np.load's to open: it would leave the file open when it fails.
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
        raise DataError(f"{path}: {key!r} is no array; np.savez writes them")
    return array
