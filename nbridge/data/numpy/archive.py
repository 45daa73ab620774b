"""Reads and writes npz archives; pickled objects are never read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import ArrayLike

from nbridge.common.atomic_files import write_atomically, writing
from nbridge.common.memory import check_fits
from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.data.folders import find_file
from nbridge.errors import DataError

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, OverflowError, TokenError, zipfile.BadZipFile, zlib.error)
"""Exceptions raised by reading a damaged archive."""


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an archive, by name.

    Arguments:
        path: The file: absolute, or relative to the current folder, or else to $NBRIDGE_DATA.

    Raises:
        DataError: when it is missing, damaged, not an archive, or holds pickled objects.
    """
    found = find_file(path)
    with opened_npz(found) as archive:
        return {key: read_member(found, archive, key) for key in archive.files}


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
        raise DataError(f"{path}: truncated or damaged npz file ({clip(error, 120)})") from error


def no_array(key: str, archive: NpzFile, modality: str | None = None) -> str:
    """The message for a missing array."""
    of = f" for modality {modality!r}" if modality is not None and modality != key else ""
    return f"no array {key!r}{of}.{did_you_mean(key, archive.files)} Found: {listing(map(clip, archive.files))}"


def read_member(path: Path, archive: NpzFile, key: str, modality: str | None = None) -> np.ndarray:
    """Reads an array of an archive.

    Raises:
        DataError: when it is missing, damaged, holds pickled objects, or is no array.
    """
    if key not in archive.files:
        raise DataError(f"{path}: {no_array(key, archive, modality)}")
    assert archive.zip is not None, "the archive is open"
    member = f"{key}.npy" if f"{key}.npy" in archive.zip.NameToInfo else key
    check_fits(f"{path}: array {key!r}", archive.zip.getinfo(member).file_size)
    try:
        array = archive[key]
    except UNREADABLE as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: array {key!r} holds pickled Python objects, expected numbers or text") from error
        raise DataError(f"{path}: array {key!r} is damaged ({clip(error, 120)})") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {key!r} is not an array; np.savez writes them")
    return array
