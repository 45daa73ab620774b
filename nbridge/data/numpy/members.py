"""An array in an npy file or in an npz archive member, read some rows at a time and never whole into memory."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile

import numpy as np

from nbridge.common.messages import clip
from nbridge.data.numpy.archive import UNREADABLE
from nbridge.errors import DataError

_PIECE = 2**20


class Header(NamedTuple):
    """The header of an npy file: shape, Fortran order, dtype."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype


class Member(ABC):
    """An array in a file."""

    def __init__(self, key: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self.key, self.dtype, self.shape = key, dtype, shape

    @abstractmethod
    def rows(self, start: int, stop: int) -> np.ndarray:
        """Reads rows ``start`` to ``stop`` (exclusive).

        Raises:
            DataError: when the file is damaged.
        """

    @abstractmethod
    def open(self) -> IO[bytes]:
        """Opens the npy file at its first byte."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the npy file.

        Raises:
            DataError: when it is damaged.
        """
        with _reporting_damage(self.key):
            file = self.open()
        with file:
            while True:
                with _reporting_damage(self.key):
                    piece = file.read(_PIECE)
                if not piece:
                    return
                yield piece

    def copy_to(self, file: IO[bytes]) -> None:
        """Copies the npy file unchanged."""
        for piece in self.pieces():
            file.write(piece)


class NpyWording(NamedTuple):
    """The errors of an npy file: what is named, and what is said of it if it is damaged, holds objects, or is another kind of file."""

    what: str
    damaged: str
    objects: str
    foreign: str


class FileMember(Member):
    """An array in an npy file, whose header is checked against the size of the file.

    Rows are read by seeking, not memory-mapping: mapped pages count as process memory, and a truncated file would crash the process.

    Attributes:
        path: As given.
        by_columns: Whether the array is in Fortran order.

    Raises:
        DataError: when it is damaged, no npy file, or holds pickled objects.
    """

    def __init__(self, key: str, path: Path, wording: NpyWording | None = None) -> None:
        self.path = path
        self._wording = wording or NpyWording(f"array {key!r}", "is damaged", "holds", f"{path.name} is")
        try:
            mapped = np.lib.format.open_memmap(path, mode="r")
        except UNREADABLE as error:
            raise DataError(self._damage(error)) from error
        super().__init__(key, mapped.dtype, mapped.shape)
        self.by_columns = mapped.ndim > 1 and not mapped.flags.c_contiguous
        self._offset, self._size = mapped.offset, path.stat().st_size

    def rows(self, start: int, stop: int) -> np.ndarray:
        start, stop, _ = slice(start, stop).indices(self.shape[0] if self.shape else 1)
        rows, width = max(0, stop - start), prod(self.shape[1:])
        # In Fortran order each element of a row is a span of the file.
        firsts = [start + element * self.shape[0] for element in range(width)] if self.by_columns else [start * width]
        count, size = rows if self.by_columns else rows * width, self.dtype.itemsize
        try:
            same = self.path.stat().st_size == self._size
            spans = [np.fromfile(self.path, self.dtype, count, offset=self._offset + first * size) for first in firsts if count * size]
        except UNREADABLE as error:
            raise DataError(f"{self._wording.what} cannot be read ({_reason(error)})") from error
        if not same or any(len(span) < count for span in spans):
            raise DataError(f"{self._wording.what} has changed since it was opened")
        found = np.concatenate(spans, dtype=self.dtype) if len(spans) > 1 else spans[0] if spans else np.empty(rows * width, self.dtype)
        return found.reshape((rows, *self.shape[1:]) if self.shape else (), order="F" if self.by_columns else "C")

    def whole(self) -> np.ndarray:
        """Reads all rows."""
        return self.rows(0, self.shape[0] if self.shape else 1)

    def open(self) -> IO[bytes]:
        return self.path.open("rb")

    def _damage(self, error: BaseException) -> str:
        """Describes why the file can't be opened."""
        what = self._wording
        if "Python objects" in str(error):
            return f"{what.what} {what.objects} pickled Python objects, expected numbers or text"
        try:
            with self.path.open("rb") as file:
                magic = file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
        except OSError as unreadable:
            return f"{what.what} cannot be read ({unreadable.strerror})"
        return f"{what.what} {what.damaged} ({_reason(error)})" if magic else f"{what.foreign} not an npy file; np.save writes one"


class ArchiveMember(Member):
    """An array in an npz archive, stored or deflated, read sequentially; seeking back restarts."""

    def __init__(self, key: str, archive: ZipFile, name: str, header: Header) -> None:
        self._archive, self._name = archive, name
        self._stream: IO[bytes] | None = None
        self._row = 0
        super().__init__(key, header.dtype, header.shape)

    def rows(self, start: int, stop: int) -> np.ndarray:
        stop = min(stop, self.shape[0])
        shape = (max(0, stop - start), *self.shape[1:])
        width = self.dtype.itemsize * prod(self.shape[1:])
        stream = self._at(start)
        with _reporting_damage(self.key):
            content = stream.read(shape[0] * width)
        if len(content) < shape[0] * width:
            raise DataError(f"array {self.key!r} is damaged (it ends within row {start + len(content) // width})")
        self._row = stop
        return np.frombuffer(content, self.dtype).reshape(shape) if content else np.empty(shape, self.dtype)

    def open(self) -> IO[bytes]:
        return self._archive.open(self._name)

    def _at(self, row: int) -> IO[bytes]:
        """The byte stream, positioned at the first byte of a row."""
        stream = self._stream
        if stream is None or row < self._row:
            if stream is not None:
                stream.close()
            with _reporting_damage(self.key):
                stream, self._row = self.open(), 0
                read_header(stream)
        distance = (row - self._row) * self.dtype.itemsize * prod(self.shape[1:])
        with _reporting_damage(self.key):
            stream.seek(distance, 1)
        self._stream, self._row = stream, row
        return stream


class NpyWriter:
    """An npy file written sequentially.

    Arguments:
        axis: The axis of rows: 0, or 1 after an axis of draws.
    """

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...], axis: int) -> None:
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        self._path, self._shape, self._axis = path, shape, axis
        self._offset, self._width, self._row = mapped.offset, dtype.itemsize * prod(shape[axis + 1 :]), 0
        del mapped
        self._file = path.open("rb+")

    def write(self, array: np.ndarray) -> None:
        """Writes the next rows."""
        for number, draw in enumerate(product(*map(range, self._shape[: self._axis]))):
            self._file.seek(self._offset + (number * self._shape[self._axis] + self._row) * self._width)
            self._file.write(array[draw].tobytes())
        self._row += array.shape[self._axis]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def move_to(self, file: IO[bytes]) -> None:
        """Copies the whole npy file and deletes it."""
        with self._path.open("rb") as source:
            shutil.copyfileobj(source, file, _PIECE)
        self._path.unlink()


class ArrayMember(Member):
    """An array in memory."""

    def __init__(self, key: str, array: np.ndarray) -> None:
        super().__init__(key, array.dtype, array.shape)
        self._array = array

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop] if self.shape else self._array

    def open(self) -> IO[bytes]:
        raise NotImplementedError("an array in memory has no file")


def archive_member(archive: ZipFile, name: str, scratch: Path) -> Member:
    """Opens an array of an archive.

    Arguments:
        archive: The archive, which must stay open while the array is read.
        name: The name of the member.
        scratch: A temporary npy file to which an array in Fortran order is extracted, since its rows are not contiguous in the stream.

    Raises:
        DataError: when it is damaged, not an array, or holds pickled objects.
    """
    key = name.removesuffix(".npy")
    with _reporting_damage(key), archive.open(name) as stream:
        header = read_header(stream)
    if header is None:
        raise DataError(f"{key!r} is not an array; np.savez writes them")
    _check_plain(key, header.dtype)
    if min(header.shape, default=0) < 0 or header.dtype.itemsize * prod(header.shape) > archive.getinfo(name).file_size:
        raise DataError(f"array {key!r} is damaged (its header says {clip(header.shape)}, but the archive holds fewer bytes)")
    member = ArchiveMember(key, archive, name, header)
    if not header.by_columns or len(header.shape) < 2:
        return member
    with scratch.open("xb") as file:
        member.copy_to(file)
    return FileMember(key, scratch)


def read_header(file: IO[bytes]) -> Header | None:
    """Reads the header of an npy file, leaving it at the first value; None if it is not an npy file."""
    if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
        return None
    # Version 3 differs from 2 only in UTF-8 field names, which these arrays don't have.
    old = tuple(file.read(2)) == (1, 0)
    return Header(*(np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0)(file))


def _check_plain(key: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise DataError(f"array {key!r} holds pickled Python objects, expected numbers or text")


@contextmanager
def _reporting_damage(key: str) -> Iterator[None]:
    """Reports the exceptions of a damaged file as one-line errors."""
    try:
        yield
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"array {key!r} is damaged ({clip(error, 120)})") from error


def _reason(error: BaseException) -> str:
    return clip((str(error).splitlines() or [type(error).__name__])[0], 100)
