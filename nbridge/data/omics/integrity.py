"""Checks HDF5 files and sparse matrices before compiled code reads them, which trusts them.

A damaged file can crash the HDF5 library, or make it loop or allocate memory without end. A process of its own, limited in time and memory,
therefore reads the structure, the attributes and the texts of a file first. Numbers are not read: their sizes and indices are checked.
"""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from math import prod
from os import environ, pathsep
from pathlib import Path
from typing import Any

import numpy as np

from nbridge.common.memory import check_fits, free_bytes
from nbridge.common.messages import clip
from nbridge.errors import DataError

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError, OverflowError, SystemError)
"""Exceptions that h5py raises for damaged files."""
CPU_SECONDS = 5
"""Processor time for checking a file; one more second for each megabyte."""
_MEMORY, _CHUNK = 2**31, 2**30
"""Memory of the process that checks a file, and the size from which a compressed chunk is checked, in bytes."""
_DEEPEST = 100
_TEXTS = 4096
_DEFLATE, _MOST_DEFLATED = 1, 1032
"""HDF5's number of the filter, and the most bytes that one deflated byte holds."""
_REFUSED = 3


def check_file(path: Path) -> None:
    """Checks the structure of an HDF5 file in a process of its own, once for each version of the file.

    Raises:
        DataError: when the file is damaged, has cycles of links, or refers to other files.
    """
    status = path.stat()
    if found := _mistake(path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns):
        raise DataError(f"{path}: {found}")


@lru_cache(maxsize=256)
def _mistake(path: Path, _: int, size: int, __: int) -> str:
    """What is wrong with a file; empty if nothing is."""
    seconds = CPU_SECONDS + size // 10**6
    variables = {"PYTHONPATH": pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command, limit = [sys.executable, "-P", "-m", __name__, str(path), str(seconds)], 60 + 20 * seconds
    try:
        done = subprocess.run(command, env={**environ, **variables}, capture_output=True, check=False, timeout=limit)  # noqa: S603
    except subprocess.TimeoutExpired:
        return "damaged HDF5 file (reading it does not end)"
    if done.returncode > 0 and done.returncode != _REFUSED:
        raise RuntimeError(f"{path} cannot be checked: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace") if done.returncode >= 0 else "damaged HDF5 file (reading it crashes, or does not end)"


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Context manager around uses of h5py that reports its exceptions for damaged files as a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        # A failure of the file system has a number.
        if getattr(error, "errno", None) is not None:
            raise
        raise DataError(f"{where}: damaged HDF5 file ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    """The first line of an exception's message, or its type."""
    lines = str(error.args[0] if error.args else "").splitlines()
    return clip(lines[0] if lines and lines[0] else type(error).__name__, 160)


def open_hdf5(path: Path) -> Any:
    """Opens an HDF5 file.

    Raises:
        DataError: when it is damaged, locked, or no HDF5 file.
    """
    import h5py

    try:
        return h5py.File(path, "r")
    except DAMAGE as error:
        usual = f"not an HDF5 file, as {path.suffix} files are, or damaged"
        known = {"truncated": "truncated HDF5 file", "lock": "another program has it open for writing; close it there"}
        raise DataError(f"{path}: {next((text for word, text in known.items() if word in str(error)), usual)}") from error


def check_element(what: str, element: Any) -> None:
    """Checks the declared sizes of an element of a file before it is read.

    Raises:
        DataError: when it would not fit into memory, or the arrays of a sparse matrix do not match.
    """
    found: list[Any] = [element]
    with reading(what):
        if is_group := hasattr(element, "visititems"):
            element.visititems(lambda _, inner: found.append(inner))
        needed = sum(prod(inner.shape) * inner.dtype.itemsize for inner in found if getattr(inner, "shape", None))
        form = str(element.attrs.get("encoding-type", "") or element.attrs.get("h5sparse_format", ""))[:3]
        shape = np.asarray(element.attrs.get("shape", element.attrs.get("h5sparse_shape", ())))
        arrays = {name: element.get(name) for name in ("data", "indices", "indptr")} if is_group else {}
    check_fits(what, needed)
    if is_group and form in ("csr", "csc"):
        if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any():
            raise DataError(f"{what}: damaged sparse matrix of shape {clip(shape.tolist())}, expected two sizes")
        if lacking := [name for name, array in arrays.items() if getattr(array, "shape", None) is None]:
            raise DataError(f"{what}: damaged sparse matrix without {lacking[0]}")
        _check_arrays(what, **arrays, major=int(shape[0 if form == "csr" else 1]))


def check_sparse(what: str, value: Any) -> None:
    """Checks that the indices of a sparse matrix are within its shape; compiled code would read or write memory elsewhere.

    Raises:
        DataError: when they are not.
    """
    if value.format == "coo":
        for places, size in zip((value.row, value.col), value.shape, strict=True):
            _check_range(what, "a coordinate", places, size)
    elif value.format in ("csr", "csc", "bsr"):
        sizes = [axis // size for axis, size in zip(value.shape, getattr(value, "blocksize", (1, 1)), strict=True)]
        major, minor = sizes[::-1] if value.format == "csc" else sizes
        _check_arrays(what, value.data, value.indices, value.indptr, major)
        if value.indptr[0] != 0 or value.indptr[-1] != len(value.indices) or (value.indptr[1:] < value.indptr[:-1]).any():
            raise DataError(f"{what}: damaged sparse matrix, its indptr must rise from 0 to its {len(value.indices):,} values")
        _check_range(what, "an index", value.indices, minor)


def _check_arrays(what: str, data: Any, indices: Any, indptr: Any, major: int) -> None:
    """Checks the shapes and dtypes of the arrays of a sparse matrix with ``major`` rows, or columns if it is stored by columns."""
    for name, array in (("indices", indices), ("indptr", indptr)):
        if array.dtype.kind not in "iu" or len(array.shape) != 1:
            raise DataError(
                f"{what}: damaged sparse matrix, its {name} are {array.dtype} of shape {array.shape}, expected a list of integers"
            )
    if data.shape[:1] != indices.shape or indptr.shape != (major + 1,):
        found = (
            f"{clip(data.shape)} values for {clip(indices.shape)} indices, and indptr of shape {indptr.shape} for {major:,} rows or columns"
        )
        raise DataError(f"{what}: damaged sparse matrix, {found}")


def _check_range(what: str, name: str, places: np.ndarray, size: int) -> None:
    if len(places) and not 0 <= (bad := places.min() if places.min() < 0 else places.max()) < size:
        raise DataError(f"{what}: damaged sparse matrix, {name} is {bad}, expected 0 to {size - 1}")


# In the process that checks a file


def _inspect(path: Path) -> None:
    """Reads the structure of a file.

    Raises:
        DataError: when it is damaged, no tree, or refers to other files.
    """
    import h5py
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue] (a compiled module)

    free, seen = free_bytes(), set[tuple[int, int]]()
    with open_hdf5(path) as file:
        left: list[tuple[str, Any]] = [("", file)]
        while left:
            name, element = left.pop()
            info = h5o.get_info(element.id)
            known = (info.fileno, info.addr) in seen
            seen.add((info.fileno, info.addr))
            if isinstance(element, h5py.Group):
                inner = list(_inside(name, element))
                # A matrix can have two names, but groups of groups would have cycles, or grow exponentially.
                if known and any(isinstance(one, h5py.Group) for _, one in inner):
                    raise DataError(f"{clip(name, 100)}: a link to a group that is elsewhere in the file, expected a tree of groups")
                if name.count("/") > _DEEPEST:
                    raise DataError(f"{clip(name, 100)}: nested more than {_DEEPEST} levels deep")
                left += [] if known else inner
            if not known:
                with _naming(name):
                    _check_attributes(element, path.stat().st_size)
                    if isinstance(element, h5py.Dataset):
                        _check_dataset(element, free)


def _inside(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    import h5py

    for key in group:
        path = f"{name}/{key}"
        with _naming(path):
            if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                raise DataError("a link to another file, which is not followed")
            yield path, group[key]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{clip(name or '/', 100)}: {error}") from error
    except DAMAGE as error:
        raise DataError(f"{clip(name or '/', 100)}: damaged HDF5 file ({reason_of(error)})") from error


def _check_attributes(element: Any, size: int) -> None:
    for key in element.attrs:
        held = element.attrs.get_id(key)
        with suppress(TypeError):  # of a type that NumPy lacks
            if prod(held.shape or ()) * held.dtype.itemsize > size:
                raise DataError(f"attribute {clip(key)!r} is larger than the file")
            _ = element.attrs[key]


def _check_dataset(data: Any, free: float) -> None:
    if data.external or data.is_virtual:
        raise DataError("its values are in another file, which is not read")
    if data.chunks is not None:
        _check_chunks(data)
    try:
        texts = data.dtype.hasobject and data.shape is not None
    except TypeError:
        return
    if texts and data.size * 16 > free:
        raise DataError(f"{data.size:,} texts, more than fit into memory")
    total = 0
    for start in range(0, len(data) if texts and data.shape else 0, _TEXTS):
        total += sum(map(_length, data[start : start + _TEXTS].flat))
        if total > free:
            raise DataError(f"its texts would take more than the {free / 1e9:,.1f} GB that are free")


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _check_chunks(data: Any) -> None:
    """Checks that no compressed chunk holds more than its size; small ones can't hold much."""
    pipeline, size = data.id.get_create_plist(), prod(data.chunks) * data.dtype.itemsize
    deflated = _DEFLATE in (pipeline.get_filter(number)[0] for number in range(pipeline.get_nfilters()))
    large: list[Any] = []
    data.id.chunk_iter(partial(_keep, large, _CHUNK / _MOST_DEFLATED))
    for chunk in large if deflated else ():
        _, content = data.id.read_direct_chunk(chunk.chunk_offset)
        if not chunk.filter_mask and len(zlib.decompressobj().decompress(content, size + 1)) > size:
            raise DataError(f"a compressed chunk holds more than its {size:,} bytes")


def _keep(large: list[Any], most: float, chunk: Any) -> None:
    if chunk.size > most:
        large.append(chunk)


def _limit(seconds: int) -> None:
    """Limits this process; where the system can't, the caller's time limit is the only one."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        most = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _main(arguments: Iterable[str]) -> int:
    name, seconds = arguments
    import h5py  # noqa: F401 (before memory is limited)

    _limit(int(seconds))
    try:
        with reading(name):
            _inspect(Path(name))
    except DataError as error:
        sys.stdout.write(str(error).removeprefix(f"{name}: "))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
