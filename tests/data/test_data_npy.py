"""Folders of NumPy files: what they may hold, and what is wrong with each that doesn't fit, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbridge.data.numpy.npy import NPYFolder
from nbridge.errors import DataError

SHAPES = {"x": (1, 2, 2), "y": (3,)}
NAN = float("nan")


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that fits: five rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    folder = tmp_path / "rows"
    folder.mkdir()
    np.save(folder / "x.npy", np.arange(20.0).reshape(5, 4))
    np.save(folder / "y.npy", np.array([0, NAN, 2, 1, 0]))
    np.save(folder / "notes.npy", np.array(["passed over"]))
    return folder


def test_a_folder_is_read_as_the_archive_of_the_same_arrays_is(rows: Path):
    np.save(rows / "x__present.npy", np.array([1, 1, 0, 1, 1]))
    np.save(rows / "id.npy", np.array(list("abcde")))
    np.save(rows / "labels.npy", np.array([0, NAN, 2, 1, 0]))
    dataset = NPYFolder(path="rows", keys={"y": "labels"}).load(SHAPES)
    batch = dataset.batch.sample()
    assert dataset.ids is not None
    assert dataset.ids.tolist() == list("abcde")
    assert batch.present["x"].tolist() == [True, True, False, True, True]
    assert batch.present["y"].tolist() == [True, False, True, True, True]
    assert batch.values["x"].shape == (5, 1, 2, 2)
    assert batch.values["y"].tolist() == [0, 0, 2, 1, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, bool, ">f8", ">i4", np.int64])
def test_numbers_of_any_type_and_byte_order_are_read(rows: Path, dtype: Any):
    values = np.arange(20).reshape(5, 2, 2) % 3
    np.save(rows / "x.npy", values.astype(dtype))
    found = NPYFolder(path="rows").load(SHAPES).batch.sample().values["x"]
    assert found.reshape(5, 2, 2).tolist() == values.astype(dtype).astype(float).tolist()


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "y.npy").unlink(), "{f}: no file 'y.npy'. Found: notes, x"),
        (lambda f: (f / "y.npy").rename(f / "yy.npy"), "{f}: no file 'y.npy'. Did you mean 'yy'? Found: notes, x, yy"),
        (
            lambda f: np.save(f / "y.npy", np.zeros(6)),
            "{f}: modality 'y': 6 rows, but 'x' has 5; expected one row for each, NaN where it is absent",
        ),
        (
            lambda f: np.save(f / "x.npy", np.zeros((5, 5))),
            "{f}/x.npy: modality 'x': array of shape (5, 5), expected (rows, 1, 2, 2) or (rows, 4)",
        ),
        (
            lambda f: np.save(f / "x.npy", np.array(1.0)),
            "{f}/x.npy: modality 'x': array of shape (), expected (rows, 1, 2, 2) or (rows, 4)",
        ),
        (lambda f: np.save(f / "y.npy", np.array(list("abcde"))), "{f}/y.npy: modality 'y': array of dtype <U1, expected real numbers"),
        (
            lambda f: np.save(f / "x.npy", np.zeros((5, 4), complex)),
            "{f}/x.npy: modality 'x': array of dtype complex128, expected real numbers",
        ),
        (lambda f: np.save(f / "y.npy", np.array([0, 1, 2, 3, 0])), "{f}: modality 'y': row 3 holds 3, expected a class index from 0 to 2"),
        (
            lambda f: np.save(f / "x.npy", np.where(np.arange(20) == 13, np.inf, 0).reshape(5, 4)),
            "{f}: modality 'x': inf in row 3, cell (0, 0, 1): values must be finite (NaN marks absent values)",
        ),
        (lambda f: np.save(f / "y.npy", np.full(5, NAN)), "{f}: modality 'y': present in none of the 5 rows, expected at least one"),
        (lambda f: [np.save(f / f"{n}.npy", np.zeros(s)) for n, s in (("x", (0, 4)), ("y", 0))], "{f}/x.npy: modality 'x': no rows"),
        (lambda f: np.save(f / "y.npy", np.array([None] * 5)), "{f}/y.npy: array holds pickled Python objects, expected numbers or text"),
        (
            lambda f: np.save(f / "x.npy", np.asfortranarray(np.zeros((5, 4)))),
            "{f}/x.npy: Fortran order, expected C order: save np.ascontiguousarray of it",
        ),
        (lambda f: _fill(f / "x.npy", b""), "{f}/x.npy: not an npy file; np.save writes one"),
        (lambda f: _fill(f / "x.npy", b"1,2\n3,4\n"), "{f}/x.npy: not an npy file; np.save writes one"),
        (lambda f: _cut(f / "x.npy", 280), "{f}/x.npy: truncated or damaged npy file (mmap length is greater than file size)"),
        (
            lambda f: np.save(f / "x__present.npy", np.ones(4)),
            "{f}/x__present.npy: array of shape (4,), expected (5,), one boolean per row of 'x'",
        ),
        (lambda f: np.save(f / "x__present.npy", np.arange(5)), "{f}: x__present: row 2 holds 2, expected true or false (1 or 0)"),
        (
            lambda f: np.save(f / "y__present.npy", np.ones(5)),
            "{f}: modality 'y': row 1 is all NaN, but y__present says that it is present",
        ),
        (
            lambda f: np.save(f / "id.npy", np.array([3, 4, 3, 1, 2])),
            "{f}/id.npy: ids: duplicate 3 in row 0 and row 2",
        ),
        (lambda f: np.save(f / "id.npy", np.array(3)), "{f}/id.npy: ids: array of shape (), expected (rows,)"),
        (lambda f: np.save(f / "id.npy", np.arange(4)), "{f}/id.npy: ids: 4 for 5 rows, expected one per row"),
    ],
)
def test_a_folder_that_does_not_fit_is_named(rows: Path, change: Callable[[Path], object], message: str):
    change(rows)
    with refused(message.format(f=rows)):
        NPYFolder(path="rows").load(SHAPES)


def test_every_truncation_is_refused(rows: Path):
    whole = (rows / "x.npy").read_bytes()
    for size in range(0, len(whole), 9):
        (rows / "x.npy").write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"^{re.escape(str(rows / 'x.npy'))}: (not an|truncated or damaged) npy file"):
            NPYFolder(path="rows").load(SHAPES)


def test_options_that_do_not_fit_are_named(rows: Path):
    with refused("keys: 'z' is not a modality. Modalities: x, y"):
        NPYFolder(path="rows", keys={"z": "x"}).load(SHAPES)
    with refused(f"{rows}: no file 'note.npy' for modality 'y'. Did you mean 'notes'? Found: notes, x, y"):
        NPYFolder(path="rows", keys={"y": "note"}).load(SHAPES)
    with refused(f"{rows}: no file 'key.npy'. Found: notes, x, y"):
        NPYFolder(path="rows", id="key").load(SHAPES)
    with refused(f"{rows / 'x.npy'}: a file, expected a folder"):
        NPYFolder(path="rows/x.npy").load(SHAPES)
