"""Rows of named arrays, in a folder of npy files, an npz archive or memory, read and written block by block."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import IO, ClassVar

import numpy as np

from nbridge.common.atomic_files import replace_folder, replacing, scratch_beside
from nbridge.data.blocks import Block, Layout, Output, RowReader, RowWriter
from nbridge.data.endings import ARRAY, files_ending, parquet_files
from nbridge.data.ids import check_ids_layout
from nbridge.data.imputed import Imputed
from nbridge.data.numpy.archive import opened_npz, pack_npz
from nbridge.data.numpy.class_texts import are_texts, class_numbers, filled_texts, text_type, texts_in
from nbridge.data.numpy.members import FileMember, Member, NpyWriter, archive_member
from nbridge.data.output_names import named_arrays
from nbridge.data.text_values import TextForm, numbered_texts, written_texts
from nbridge.errors import DataError

_NUMBER = np.dtype(np.float64)


class ArrayRows(RowReader):
    """Named arrays; text classes are read as indices and written back as text.

    Arguments:
        packed: Whether they are in an archive, not a folder.
        id_key: The array of identifiers; None if there is none.
        classes: The ordered classes of text arrays, by modality.
        texts: How the texts of modalities that hold any are read and written.
    """

    noun: ClassVar[str] = "array"

    def __init__(
        self,
        members: Mapping[str, Member],
        names: Mapping[str, str],
        *,
        packed: bool = False,
        id_key: str | None = None,
        classes: Mapping[str, Sequence[str]] | None = None,
        texts: Mapping[str, TextForm] | None = None,
    ) -> None:
        self.members, self.names, self.packed, self.id_key = members, names, packed, id_key
        self.keys = tuple(members)
        listed = {names[name]: texts for name, texts in (classes or {}).items() if name in names}
        # Numeric arrays stay numeric.
        self._classes = {
            key: texts for key, texts in listed.items() if key not in members or are_texts(members[key].dtype, members[key].shape)
        }
        forms = {names[name]: form for name, form in (texts or {}).items() if name in names}
        # So do arrays of token numbers.
        self._texts = {key: form for key, form in forms.items() if key not in members or members[key].dtype.kind in "USO"}

    def layout(self, key: str) -> Layout:
        member = self.members[key]
        if key in self._texts:
            return Layout(_NUMBER, (*member.shape[:1], self._texts[key].length))
        return Layout(_NUMBER, member.shape[:1]) if key in self._classes else Layout(member.dtype, member.shape)

    def row_bytes(self, keys: Iterable[str], rows: int) -> int:  # noqa: ARG002
        return sum(self.members[key].dtype.itemsize * prod(self.members[key].shape[1:]) for key in keys)

    def blocks(self, keys: Iterable[str], start: int, stop: int, size: int) -> Iterator[Block]:
        keys = tuple(keys)
        for first in range(start, stop, size):
            arrays = {key: self.members[key].rows(first, min(first + size, stop)) for key in keys}
            texts = {key: array for key, array in arrays.items() if key in self._classes or key in self._texts}
            yield Block(first, arrays | {key: self._numbers(key, array, first) for key, array in texts.items()}, table=_Texts(texts))

    def _numbers(self, key: str, array: np.ndarray, first: int) -> np.ndarray:
        what = f"array {key!r}"
        if key in self._texts:
            return numbered_texts(self._texts[key], array, what, first)
        return class_numbers(texts_in(array, what), self._classes[key], what, first)

    def identifiers(self, key: str, rows: int, size: int) -> Iterator[np.ndarray]:
        check_ids_layout(self.members[key].shape, self.members[key].dtype, rows)
        return (block.arrays[key] for block in self.blocks([key], 0, rows, size))

    def check_passed(self, key: str) -> None:
        # Archives have checksums.
        for _ in self.members[key].pieces() if self.packed else ():
            pass

    @contextmanager
    def writing(self, target: Path | None, output: Output) -> Iterator[RowWriter]:
        if target is None:
            yield ArrayWriter(self, output, self._classes, self._texts)
            return
        with scratch_beside(target) as folder:
            files = _Files(folder, self, output, self._classes, self._texts)
            try:
                yield files
            finally:
                files.close()
            if self.packed:
                with replacing(target) as temporary:
                    pack_npz(temporary, files.writers())
            else:
                replace_folder(target, _unpacked(folder / "arrays", files.writers()))


@dataclass(frozen=True)
class _Texts:
    """The original texts of some rows, by array."""

    arrays: Mapping[str, np.ndarray]

    def slice(self, start: int, count: int) -> _Texts:
        """Selects some of the rows."""
        return _Texts({key: array[start : start + count] for key, array in self.arrays.items()})


class ArrayWriter(RowWriter):
    """Completes arrays in memory."""

    def __init__(
        self, rows: ArrayRows, output: Output, classes: Mapping[str, Sequence[str]], texts: Mapping[str, TextForm] = MappingProxyType({})
    ) -> None:
        self.members, self.output, self._names, self._classes, self._texts = rows.members, output, rows.names, classes, texts
        self._parts: dict[str, list[tuple[np.ndarray, int]]] = {}

    def write(self, block: Block, imputed: Imputed[np.ndarray]) -> None:
        for key, array, axis in self._arrays(block, imputed):
            self.put(key, array, axis)

    def put(self, key: str, array: np.ndarray, axis: int) -> None:
        """Adds the next rows of an array, which are on one of its axes."""
        self._parts.setdefault(key, []).append((array, axis))

    @property
    def result(self) -> dict[str, np.ndarray]:  # pyright: ignore[reportIncompatibleVariableOverride] (computed when it is asked for)
        passed = {key: self.members[key].rows(0, sys.maxsize) for key in self.output.passed}
        return {**passed, **{key: self._narrow(key, _joined(parts)) for key, parts in self._parts.items()}}

    def _narrow(self, key: str, array: np.ndarray) -> np.ndarray:
        """Texts in an array as wide as the longest of them; any other array unchanged."""
        return np.array(array.tolist(), dtype=self._kind(key)) if key in self._texts else array

    def _kind(self, key: str) -> str:
        return self.members[key].dtype.kind if key in self.members else "U"

    def _arrays(self, block: Block, imputed: Imputed[np.ndarray]) -> Iterator[tuple[str, np.ndarray, int]]:
        """The arrays to write, with the axis of their rows; imputed classes as texts, with the same width in all blocks."""
        yield from ((key, block.arrays[key], 0) for key in self.needs)
        of = {key: name for name, key in self._names.items()}
        for key, array, axis in named_arrays(imputed, self._names):
            if key in self._classes:
                classes, given = self._classes[key], block.table.arrays.get(key)
                dtype = text_type(self.members[key].dtype if key in self.members else None, classes)
                yield key, filled_texts(given, array, imputed.mask[of[key]], classes, dtype), axis
            elif key in self._texts:
                given = block.table.arrays.get(key)
                yield key, written_texts(self._texts[key], given, array, imputed.mask[of[key]], self._kind(key)), axis
            else:
                yield key, array, axis


class _Files(ArrayWriter):
    """Writes npy files for arrays imputed block by block, and for unchanged ones only if some of their rows are left out."""

    def __init__(
        self, folder: Path, rows: ArrayRows, output: Output, classes: Mapping[str, Sequence[str]], texts: Mapping[str, TextForm]
    ) -> None:
        super().__init__(rows, output, classes, texts)
        self._folder, self._files = folder, dict[str, NpyWriter]()
        self.needs = tuple(key for key in output.passed if output.partial and rows.members[key].shape[:1] == (output.total,))

    def put(self, key: str, array: np.ndarray, axis: int) -> None:
        if key not in self._files:
            shape = list(array.shape)
            shape[axis] = self.output.stop - self.output.start
            self._files[key] = NpyWriter(self._folder / f"{len(self._files)}.npy", array.dtype, tuple(shape), axis)
        self._files[key].write(array)

    def close(self) -> None:
        """Closes all files."""
        for file in self._files.values():
            file.close()

    def writers(self) -> dict[str, Callable[[IO[bytes]], None]]:
        """The writers of each array's npy file, for one use: unchanged arrays come first."""
        passed = {key: self.members[key].copy_to for key in self.output.passed}
        return {**passed, **{key: file.move_to for key, file in self._files.items()}}


@contextmanager
def archive_members(path: Path, scratch: Path) -> Iterator[dict[str, Member]]:
    """Opens the arrays of an npz archive, by name.

    Arguments:
        path: The file.
        scratch: A folder for arrays that must be extracted.

    Raises:
        DataError: when it is damaged, not an archive, or holds anything but arrays.
    """
    with opened_npz(path) as archive:
        assert archive.zip is not None, "the archive is open"
        names = enumerate(archive.zip.namelist())
        members = [archive_member(archive.zip, name, scratch / f"{number}.npy") for number, name in names]
        yield {member.key: member for member in members}


def folder_members(path: Path) -> dict[str, Member]:
    """Opens the arrays of a folder of npy files, by name.

    Raises:
        DataError: when it has none, or one is damaged.
    """
    try:
        files = [file for file in files_ending(path, ARRAY) if file.is_file()]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
    if not files and (parts := parquet_files(path)):
        raise DataError(f"a folder of {len(parts)} Parquet files; impute them one at a time, such as {parts[0].name}")
    if not files:
        raise DataError("no npy file in this folder, expected one NAME.npy a modality")
    return {file.stem: FileMember(file.stem, file) for file in files}


def _unpacked(folder: Path, writers: Mapping[str, Callable[[IO[bytes]], None]]) -> Path:
    folder.mkdir()
    for key, write in writers.items():
        with (folder / f"{key}.npy").open("xb") as file:
            write(file)
    return folder


def _joined(parts: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """Joins the blocks of an array, in their dtype and byte order, on the axis of rows."""
    first, axis = parts[0]
    return np.concatenate([array for array, _ in parts], axis, dtype=first.dtype)
