"""Damaged and hostile .h5ad and .h5mu files, and sparse matrices in memory: one line, before any compiled code trusts them."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from omics import adata, observations, spec_of, study, write
from scipy import sparse

import nbridge
from nbridge.common import memory
from nbridge.data.omics import integrity
from nbridge.data.omics.source import H5MU
from nbridge.errors import DataError

ROWS = 40
SHAPES = {"X": (5,), "log": (5,), "stage": (3,)}
GENES = tuple(f"g{place}" for place in range(5))


def cells(kind: str = "csr") -> anndata.AnnData:
    rng = np.random.default_rng(0)
    x = rng.poisson(1, (ROWS, 5)).astype(np.float32)
    stored = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](x)
    found = adata(stored, observations(ROWS), list(GENES), obs=pd.DataFrame({"stage": pd.Categorical(rng.choice(list("abc"), ROWS))}))
    found.layers["log"] = np.log1p(x)
    return found


def load(path: Path) -> Any:
    return H5MU(path=str(path), keys={"log": "layers/log"}).load(SHAPES)


def put(file: Any, path: str, value: Any = None, **options: Any) -> None:
    """Replaces a dataset and keeps its attributes."""
    attributes = dict(file[path].attrs)
    del file[path]
    data = file.create_dataset(path, data=value, **options)
    data.attrs.update(attributes)


def each(path: str, place: int, value: int) -> Callable[[Any], None]:
    return lambda file: file[path].__setitem__(place, value)


def shaped(*shape: Any) -> Callable[[Any], None]:
    return lambda file: file["X"].attrs.__setitem__("shape", np.array(shape))


def bomb(file: Any) -> None:
    """A chunk of 800 bytes that holds two megabytes."""
    put(file, "layers/log", shape=(ROWS, 5), dtype="f4", chunks=(ROWS, 5), compression="gzip")
    file["layers/log"].id.write_direct_chunk((0, 0), zlib.compress(np.random.default_rng(0).bytes(2**21)))


def laughs(file: Any) -> None:
    """Groups that hold the one before ten times."""
    below = file.create_group("uns/0")
    for level in range(1, 30):
        group = file.create_group(f"uns/{level}")
        for place in range(10):
            group[str(place)] = below
        below = group


def deep(file: Any) -> None:
    group = file["uns"]
    for _ in range(2000):
        group = group.create_group("a")


def soft(file: Any) -> None:
    file["layers/a"], file["layers/b"] = h5py.SoftLink("/layers/b"), h5py.SoftLink("/layers/a")


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "index too high": (each("X/indices", 3, 10**6), "X: damaged sparse matrix, an index is 1000000, expected 0 to 4"),
    "index below 0": (each("X/indices", 3, -7), "X: damaged sparse matrix, an index is -7, expected 0 to 4"),
    "indptr falls": (each("X/indptr", 3, 10**6), "X: damaged sparse matrix, its indptr must rise from 0 to its"),
    "indptr starts late": (each("X/indptr", 0, 2), "X: damaged sparse matrix, its indptr must rise from 0 to its"),
    "indptr ends late": (each("X/indptr", ROWS, 10**9), "X: damaged sparse matrix, its indptr must rise from 0 to its"),
    "indptr too short": (lambda file: put(file, "X/indptr", file["X/indptr"][:10]), "and indptr of shape (10,) for 40 rows"),
    "indptr of fractions": (lambda file: put(file, "X/indptr", file["X/indptr"][...] + 0.5), "its indptr are float64"),
    "indices of two axes": (lambda file: put(file, "X/indices", file["X/indices"][...][None]), "expected a list of integers"),
    "too few values": (lambda file: put(file, "X/data", file["X/data"][:9]), "X: damaged sparse matrix, (9,) values for"),
    "no indptr": (lambda file: file.__delitem__("X/indptr"), "X: damaged sparse matrix without indptr"),
    "no shape": (lambda file: file["X"].attrs.__delitem__("shape"), "X: damaged sparse matrix of shape"),
    "rows that no memory holds": (shaped(2**62, 5), "for 4,611,686,018,427,387,904 rows"),
    "columns that are not there": (shaped(ROWS, 10**10), "X has 10000000000 columns for 5 variables"),
    "a shape of fractions": (shaped(40.5, np.inf), "expected two sizes"),
    "rows by columns": (lambda file: file["X"].attrs.__setitem__("encoding-type", "csc_matrix"), "for 5 rows or columns"),
    "dense rows missing": (lambda file: put(file, "layers/log", np.zeros((7, 5))), "layers/log is of shape (7, 5) for 40 observations"),
    "dense shape lies": (
        lambda file: put(file, "layers/log", shape=(2**60, 5), dtype="f4", chunks=(8, 5)), "layers/log would take 23,058,430,092.1 GB"
    ),
    "names without end": (
        lambda file: put(file, "obs/_index", shape=(10**10,), dtype=h5py.string_dtype(), chunks=(8,)), "more than fit into memory"
    ),
    "codes too high": (each("obs/stage/codes", 2, 100), "obs can't be read (codes need to be between"),
    "codes below": (each("obs/stage/codes", 2, -5), "obs can't be read (codes need to be between"),
    "a compression bomb": (bomb, "/layers/log: a compressed chunk holds more than its 800 bytes"),
    "a group in itself": (lambda file: file["uns"].__setitem__("me", file["uns"]), "/uns/me: a link to a group that is elsewhere"),
    "the root in a layer": (lambda file: file["layers"].__setitem__("me", file["/"]), "/layers/me: a link to a group"),
    "groups of groups": (laughs, "a link to a group that is elsewhere in the file, expected a tree of groups"),
    "soft links in a circle": (soft, "/layers/a: damaged HDF5 file"),
    "groups a thousand deep": (deep, "nested more than 100 levels deep"),
    "a link to a file": (lambda file: file["layers"].__setitem__("x", h5py.ExternalLink("/etc/passwd", "x")), "a link to another file"),
    "values of a file": (
        lambda file: file.create_dataset("layers/x", shape=(ROWS, 5), dtype="u1", external=[("/etc/passwd", 0, 200)]),
        "/layers/x: its values are in another file, which is not read",
    ),
    "no variables": (lambda file: file.__delitem__("var"), "var"),
    "a column that is not there": (lambda file: file["obs"].attrs.__setitem__("column-order", ["no"]), "obs can't be read"),
    "modalities that are none": (lambda file: file.__setitem__("mod", np.zeros(3)), "damaged HDF5 file"),
    "an axis of text": (lambda file: (file.create_group("mod"), file.attrs.update({"axis": "x"})), "damaged HDF5 file"),
}  # fmt: skip


def assert_one_line(error: DataError, path: Path) -> None:
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, name: str):
    change, message = HOSTILE[name]
    path = write(tmp_path / "a.h5ad", cells())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        load(path)
    assert_one_line(error.value, path)


def test_a_matrix_stored_by_columns_is_checked_by_columns(tmp_path: Path):
    path = write(tmp_path / "a.h5ad", cells("csc"))
    assert len(load(path).batch) == ROWS
    with h5py.File(path, "r+") as file:
        file["X/indices"][3] = ROWS
    with pytest.raises(DataError, match="an index is 40, expected 0 to 39"):
        load(path)


def test_a_matrix_may_have_two_names(tmp_path: Path):
    path = write(tmp_path / "a.h5ad", cells())
    with h5py.File(path, "r+") as file:
        file["layers/same"] = file["X"]
        file["layers/also"] = h5py.SoftLink("/X")
    found = H5MU(path=str(path), keys={"one": "layers/same", "two": "layers/also"}).load({"X": (5,), "one": (5,), "two": (5,)}).batch
    assert all((found.values[name] == found.values["X"]).all() for name in ("one", "two"))


def _coo() -> Any:
    found = sparse.coo_matrix(np.eye(ROWS, 5))
    found.row = np.full_like(found.row, ROWS)
    return found


def _high(kind: Any) -> Any:
    found = kind(np.ones((ROWS, 5)))
    found.indices[7] = 10**6
    return found


@pytest.mark.parametrize("make", [partial(_high, sparse.csr_matrix), partial(_high, sparse.csc_matrix), partial(_high, sparse.csr_array)])
def test_a_matrix_in_memory_is_checked_as_one_in_a_file(make: Callable[[], Any]):
    data = cells()
    data.layers["counts"] = np.zeros((ROWS, 5))
    data._layers["counts"] = make()  # no checks of anndata's own
    spec = spec_of({"counts": 5}, {"counts": "normal"}, keys={"counts": "layers/counts"}, variables={"counts": GENES})
    with pytest.raises(DataError, match="layers/counts: damaged sparse matrix, an index is 1000000, expected 0 to"):
        nbridge.Model.from_spec(spec).impute(data)
    with pytest.raises(DataError, match="damaged sparse matrix"):
        nbridge.init(data)


def test_coordinates_are_checked():
    with pytest.raises(DataError, match=r"^x: damaged sparse matrix, a coordinate is 40, expected 0 to 39$"):
        integrity.check_sparse("x", _coo())
    for kind in ("csr", "csc", "coo", "bsr", "lil", "dok", "dia"):
        integrity.check_sparse("x", sparse.random(12, 6, 0.3).asformat(kind))
        integrity.check_sparse("x", sparse.csr_matrix((12, 6)).asformat(kind))


def test_a_file_is_checked_once_while_it_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.h5ad", cells())
    load(path)
    monkeypatch.setattr(integrity.subprocess, "run", lambda *_, **__: pytest.fail("checked again"))
    load(path)


def test_what_fits_no_memory_is_refused_from_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.h5ad", cells())
    load(path)
    monkeypatch.setattr(memory, "free_bytes", lambda: 100.0)
    with pytest.raises(DataError, match=r"a\.h5ad: obs would take 0\.0 GB, and 0\.0 GB are free"):
        load(path)


def test_a_loop_in_the_library_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An object of a global heap that has no number and no size is read for ever."""
    path = write(tmp_path / "a.h5ad", cells())
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 16] = bytes(16)
    path.write_bytes(content)
    monkeypatch.setattr(integrity, "CPU_SECONDS", 1)
    with pytest.raises(DataError, match=r"a\.h5ad: damaged HDF5 file \(reading it crashes, or does not end\)$"):
        load(path)


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_give_rows_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    monkeypatch.setattr(integrity, "CPU_SECONDS", 1)
    path, drawn = write(tmp_path / "a.h5mu", study()), random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(drawn.choice([1, 8])):
        place = drawn.randrange(len(content) // 2)
        content[place : place + 8] = drawn.choice([bytes(8), b"\xff" * 8, drawn.randbytes(8)])
    path.write_bytes(content)
    try:
        H5MU(path=str(path), variables={"rna": "var/highly_variable"}).load({"rna": (4,), "prot": (3,), "stage": (3,), "age": (1,)})
    except DataError as error:
        assert_one_line(error, path)
