"""A file imputed block by block is the file imputed at once, whatever its kind and wherever it is cut."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from completing import impute_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Script, Started
from pyarrow import parquet
from test_array_completion import LIKELIHOODS, SHAPES, arrays

import nbridge
from nbridge.cli import main as command_line
from nbridge.data.output_names import IMPUTED
from nbridge.errors import DataError
from nbridge.inference.complete import Completed
from nbridge.inference.impute import impute, rows_at_a_time
from nbridge.inference.options import Shard
from nbridge.training.checkpoint import save_model

Arrays = dict[str, np.ndarray]
KINDS = ("stored.npz", "deflated.npz", "folder", "table.parquet")
NAN = float("nan")


def made(likelihoods: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> tuple[nbridge.MultimodalVAE, nbridge.Spec]:
    torch.manual_seed(0)
    part = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {name: {**part, "shape": list(shape), "likelihood": likelihoods[name]} for name, shape in shapes.items()}
    spec = nbridge.Spec.model_validate({"latent_dim": 2, "modalities": modalities, "fusion": {"hidden": [4]}, "bridges": {"hidden": [4]}})
    return nbridge.build_model(spec).eval(), spec


@pytest.fixture(scope="module")
def model() -> nbridge.MultimodalVAE:
    return made(LIKELIHOODS, SHAPES)[0]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows are served at a time, and four are held in memory: files of a few rows have several blocks."""
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 2)
    monkeypatch.setattr("nbridge.inference.complete.BLOCK", 5)


def tabular(array: np.ndarray) -> pa.Array:
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    flat = pa.array(native.reshape(-1))
    return flat if native.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, int(np.prod(native.shape[1:])))


def write(path: Path, rows: Arrays, group: int = 3) -> Path:
    """A file of a kind that its name tells, in groups of so many rows where it has such."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({key: tabular(array) for key, array in rows.items() if array.ndim}), path, row_group_size=group)
    elif path.suffix == ".npz":
        (np.savez_compressed if path.name.startswith("deflated") else np.savez)(path, **rows)
    else:
        path.mkdir()
        for key, array in rows.items():
            np.save(path / f"{key}.npy", array)
    return path


def column(array: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(array.type):
        return column(array.flatten()).reshape(len(array), array.type.list_size, *column(array.flatten()).shape[1:])
    return array.to_numpy(zero_copy_only=False)


def read(path: Path) -> Arrays:
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return {key: column(table[key].combine_chunks()) for key in table.column_names}
    return dict(np.load(path)) if path.is_file() else {file.stem: np.load(file) for file in path.glob("*.npy")}


def same(found: Arrays, expected: Arrays, samples: int | None, table: bool) -> None:
    """Bit for bit; a table holds rows first and lists without further axes, and no arrays that are no columns."""
    assert set(found) == {key for key, array in expected.items() if array.ndim or not table}
    for key, array in found.items():
        other = expected[key]
        if table:
            other = other.astype(other.dtype.newbyteorder("="))
            draws = samples is not None and not key.endswith(IMPUTED) and key in SHAPES
            other = np.moveaxis(other, 0, 1) if draws else other
            lead = other.shape[: 1 + draws]
            other = other.reshape(*lead, -1) if other.ndim > len(lead) else other
        assert array.dtype == other.dtype, key
        assert array.shape == other.shape, key
        assert array.tobytes() == other.tobytes(), key


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@settings(max_examples=8)
@given(rows=arrays(), samples=st.sampled_from([None, 1, 3]), noise=st.booleans(), seed=st.integers(0, 3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_in_blocks_equals_its_arrays_at_once(
    kind: str,
    model: nbridge.MultimodalVAE,
    tmp_path_factory: pytest.TempPathFactory,
    rows: Arrays,
    samples: int | None,
    noise: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    source, target = write(folder / kind, rows), folder / f"out.{kind}"
    told = nbridge.Model(model).impute(source, out=target, samples=samples, noise=noise, seed=seed)
    expected = impute_arrays(model, rows, samples=samples, noise=noise, seed=seed)
    same(read(target), expected, samples, kind == "table.parquet")
    length = len(rows["id"])
    counts = {name: int(expected[name + IMPUTED].reshape(length, -1).any(1).sum()) for name in SHAPES}
    passed = ("id",) if kind == "table.parquet" else ("id", "note")
    assert told == Completed(0, length, length, counts, passed)
    assert leftovers(folder) == []


@settings(max_examples=4)
@given(rows=arrays(), samples=st.sampled_from([None, 2]), number=st.integers(1, 4))
@pytest.mark.parametrize("kind", KINDS)
def test_shards_put_together_are_the_whole(
    kind: str, model: nbridge.MultimodalVAE, tmp_path_factory: pytest.TempPathFactory, rows: Arrays, samples: int | None, number: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    source, whole = write(folder / kind, rows), folder / f"whole.{kind}"
    nbridge.Model(model).impute(source, out=whole, samples=samples, seed=1)
    parts, stop = [], 0
    for part in range(1, number + 1):
        target = folder / f"{part}.{kind}"
        told = nbridge.Model(model).impute(source, out=target, samples=samples, seed=1, shard=(part, number))
        assert told.start == stop
        stop = told.stop
        parts.append(read(target))
    assert stop == len(rows["id"])
    if kind == "table.parquet":
        assert pa.concat_tables([parquet.read_table(folder / f"{part}.{kind}") for part in range(1, number + 1)]).equals(
            parquet.read_table(whole)
        )
    for key, array in read(whole).items():
        pieces = [part[key] for part in parts]
        if not array.ndim:
            assert all(piece == array for piece in pieces)
            continue
        draws = samples is not None and key in SHAPES and kind != "table.parquet"
        assert {piece.dtype for piece in pieces} == {array.dtype}, key
        assert np.array_equal(np.concatenate(pieces, 1 if draws else 0), array), key


def test_batches_cut_between_parts_equal_all_rows_at_once(model: nbridge.MultimodalVAE) -> None:
    batch = nbridge.Batch.complete({"x": torch.randn(7, 3)})
    whole = impute(model, batch, samples=3, seed=5).values
    unit = rows_at_a_time(model, 3)
    assert unit == 2
    pieces = [impute(model, batch.slice(start, start + 4), samples=3, seed=5, first=start).values for start in (0, 4)]
    for name, values in whole.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces], 1), values)
    with pytest.raises(DataError, match=r"^first is 3, expected a multiple of 2 \(rows_at_a_time\)$"):
        impute(model, batch, samples=3, first=3)


def test_no_two_parts_share_their_noise(model: nbridge.MultimodalVAE) -> None:
    batch = nbridge.Batch.complete({"x": torch.zeros(40, 3)}).hide("x")
    draws = torch.cat([impute(model, batch, samples=1, seed=seed).values["x"][0] for seed in range(3)])
    assert len(draws.unique(dim=0)) == 120


@given(rows=st.integers(0, 10**6), unit=st.integers(1, 2000), number=st.integers(1, 50))
def test_shards_are_cut_between_units_and_are_nearly_alike(rows: int, unit: int, number: int) -> None:
    cuts = [Shard(part, number).rows(rows, unit) for part in range(1, number + 1)]
    assert [cuts[0][0], cuts[-1][1]] == [0, rows]
    assert all(one[1] == other[0] for one, other in pairwise(cuts))
    assert all(start % unit == 0 or start == rows for start, _ in cuts)
    units = [-(-(stop - start) // unit) for start, stop in cuts]
    assert max(units) - min(units) <= 1


# Layouts


def whole_rows(number: int = 9) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(number, 3)).astype(np.float32),
        "count": rng.poisson(3, (number, 2)),
        "image": rng.random((number, 2, 2)),
        "label": np.arange(number) % 3,
        "id": np.arange(number),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_lie_column_by_column_serve(save: Callable[..., None], model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    rows = whole_rows()
    rows["x"][4] = NAN
    rows = {key: np.asfortranarray(array) for key, array in rows.items()} | {"extra": np.asfortranarray(np.ones((9, 2)))}
    save(tmp_path / "rows.npz", **rows)
    nbridge.Model(model).impute(tmp_path / "rows.npz", out=tmp_path / "out.npz")
    same(read(tmp_path / "out.npz"), impute_arrays(model, rows), None, False)
    nbridge.Model(model).impute(tmp_path / "rows.npz", out=tmp_path / "last.npz", shard=(2, 2))
    assert np.array_equal(read(tmp_path / "last.npz")["extra"], np.ones((5, 2)))


def test_an_archive_has_the_bytes_that_write_npz_gives(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    rows = {"note": np.array("kept"), **whole_rows()}
    rows["x"][4, 1] = NAN
    np.savez(tmp_path / "rows.npz", **rows)
    nbridge.Model(model).impute(tmp_path / "rows.npz", out=tmp_path / "out.npz", samples=2)
    nbridge.data.numpy.archive.write_npz(tmp_path / "expected.npz", impute_arrays(model, rows, samples=2))
    assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "expected.npz").read_bytes()


def test_other_arrays_of_a_shard_are_cut_where_they_have_its_rows(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    rows = whole_rows() | {"when": np.arange(9).astype("M8[s]"), "scale": np.arange(3.0), "none": np.zeros((0, 2))}
    source = write(tmp_path / "rows", rows)
    nbridge.Model(model).impute(source, out=tmp_path / "out", shard=(2, 3))
    done = read(tmp_path / "out")
    assert done["when"].tolist() == rows["when"][2:6].tolist()
    assert done["id"].tolist() == [2, 3, 4, 5]
    assert np.array_equal(done["scale"], rows["scale"])
    assert done["none"].shape == (0, 2)


def test_a_mask_of_cells_is_one_in_every_shard(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    rows = whole_rows()
    rows["x"][8, 0] = NAN
    source = write(tmp_path / "rows.npz", rows)
    for part in (1, 2):
        nbridge.Model(model).impute(source, out=tmp_path / f"{part}.npz", shard=(part, 2))
    assert [read(tmp_path / f"{part}.npz")["x__imputed"].sum() for part in (1, 2)] == [0, 1]
    assert read(tmp_path / "1.npz")["x__imputed"].shape == (4, 3)


@pytest.mark.parametrize("cut", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)])
def test_null_marks_what_is_absent_from_a_table(cut: pa.DataType, model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    x = [[0.5, 1.0, 2.0], None, [0.5, None, 2.0], [0.0, 0.0, NAN], [1.0, 1.0, 1.0]]
    table = {
        "name": pa.array(["a", None, "c", "d", "e"]),
        "x": pa.array(x, cut),
        "label": pa.array([0, None, 2, 1, None], pa.int8()),
        "count": pa.array([[1, 2], [3, None], None, [4, 5], [6, 7]], pa.list_(pa.int64(), 2)),
        "place": pa.array([{"lat": 1.5}] * 5),
        "visits": pa.array([[1], [], [1, 2, 3], None, [4]]),
        "ward": pa.array(["north", "north", "south", "west", "north"]).dictionary_encode(),
    }
    parquet.write_table(pa.table(table), tmp_path / "rows.parquet", row_group_size=2)
    nbridge.Model(model).impute(tmp_path / "rows.parquet", out=tmp_path / "out.parquet")
    done = parquet.read_table(tmp_path / "out.parquet")
    masks = ["x__imputed", "label__imputed", "count__imputed"]
    columns = ["name", "x", masks[0], "label", masks[1], "count", masks[2], "place", "visits", "ward", "image", "image__imputed"]
    assert done.column_names == columns
    assert [done.schema.field(key).type for key in table] == [column.type for column in table.values()]
    for key in ("name", "place", "visits", "ward"):
        assert done[key].to_pylist() == table[key].to_pylist()
    assert done["label__imputed"].to_pylist() == [False, True, False, False, True]
    assert done["x__imputed"].to_pylist()[1:4] == [[True] * 3, [False, True, False], [False, False, True]]
    assert done["count__imputed"].to_pylist()[1:3] == [[False, True], [True, True]]
    arrays = {
        "x": np.array([row or [NAN] * 3 for row in x], np.float32),
        "label": np.array([0, NAN, 2, 1, NAN]),
        "count": np.array([[1, 2], [3, NAN], [NAN, NAN], [4, 5], [6, 7]]),
    }
    expected = impute_arrays(model, arrays)
    for key in ("x", "label", "count"):
        assert np.array_equal(np.array(done[key].to_pylist(), np.float64), expected[key].astype(np.float64)), key


def test_a_modality_of_one_value_is_a_column_of_numbers(tmp_path: Path) -> None:
    model, _ = made({"age": "normal", "y": "bernoulli"}, {"age": (1,), "y": (2,)})
    parquet.write_table(pa.table({"age": pa.array([1.5, None, 3.0])}), tmp_path / "rows.parquet")
    nbridge.Model(model).impute(tmp_path / "rows.parquet", out=tmp_path / "out.parquet", samples=4)
    done = parquet.read_table(tmp_path / "out.parquet")
    assert done.schema.field("age").type == pa.list_(pa.float64(), 4)
    assert done.schema.field("y").type == pa.list_(pa.list_(pa.float32(), 2), 4)
    assert done["age"].to_pylist()[0] == [1.5] * 4
    assert len(set(done["age"].to_pylist()[1])) == 4


def test_ids_with_equal_hashes_are_no_double(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    assert hash(-1) == hash(-2)
    source = write(tmp_path / "rows.npz", whole_rows() | {"id": np.arange(-9, 0)})
    assert nbridge.Model(model).impute(source, out=tmp_path / "out.npz").passed == ("id",)


# Mistakes


def spoilt(**changes: Any) -> Arrays:
    return {**whole_rows(), **changes}


def at(key: str, row: int, value: float) -> Arrays:
    array = whole_rows()[key].astype(np.float64)
    array[row] = value
    return {key: array}


MISTAKES: dict[str, tuple[Arrays, str]] = {
    "infinite": (at("x", 7, np.inf), "modality 'x': inf in row 7, cell (0,): values must be finite (NaN marks absent values)"),
    "too many classes": (at("label", 8, 3), "modality 'label': row 8 holds 3.0, expected a class index from 0 to 2"),
    "outside the support in two blocks": (
        {"count": np.where(np.arange(9) % 5 == 3, -1, 1)[:, None] * np.ones((9, 2))},
        "modality 'count', row 3: value -1 is outside the support of Poisson, whole numbers from 0 (2 such rows). "
        "Rescale the values or choose another likelihood.",
    ),
    "present without a value": (
        at("x", 6, NAN) | {"x__present": np.ones(9, bool)},
        "modality 'x': row 6 is all NaN, but x__present says that it is present",
    ),
    "present by halves": ({"x__present": np.full(9, 0.5)}, "x__present: row 0 holds 0.5, expected true or false (1 or 0)"),
    "an id twice, in two blocks": ({"id": np.arange(9) % 8}, "ids: duplicate 0 in row 0 and row 8"),
    "no id": ({"id": np.array([*range(8), NAN])}, "ids: row 8 has none, expected an identifier in each row"),
    "one-hot rows of two": (
        {"label": np.where(np.arange(9)[:, None] == 7, 1.0, [[1.0, 0.0, 0.0]])},
        "modality 'label', row 7: expected a class index or a one-hot row, with a single 1 among 0s",
    ),
    "NaN in part of a class": (
        {"label": np.where(np.arange(9)[:, None] == 7, [[NAN, 1.0, 0.0]], [[1.0, 0.0, 0.0]])},
        "modality 'label': row 7 is NaN in part, expected a whole row of class values, or NaN throughout",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_row_in_the_file(mistake: str, kind: str, model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    changes, message = MISTAKES[mistake]
    source = write(tmp_path / kind, spoilt(**changes))
    with pytest.raises(DataError) as caught:
        nbridge.Model(model).impute(source, out=tmp_path / "out", shard=(1, 2))
    assert str(caught.value) == f"{source}: {message}"
    assert [path.name for path in tmp_path.iterdir()] == [kind]


LAYOUTS: dict[str, tuple[Arrays, str]] = {
    "too wide": ({"x": np.ones((9, 4))}, "modality 'x': array of shape (9, 4), expected (rows, 3) or class indices (rows,)"),
    "text": ({"x": np.array(["a"] * 9)}, "modality 'x': array of dtype <U1, expected real numbers"),
    "fewer rows": (
        {"label": np.zeros(8, int)},
        "modality 'label': 8 rows, but 'x' has 9; expected one row for each, NaN where it is absent",
    ),
    "no rows": ({key: array[:0] for key, array in whole_rows().items()}, "modality 'x': no rows"),
    "a short mask": ({"x__present": np.ones(8)}, "x__present: array of shape (8,), expected (9,), one boolean per row of 'x'"),
    "too few ids": ({"id": np.arange(8)}, "ids: 8 for 9 rows, expected one per row"),
    "ids of bytes": ({"id": np.array([b"a"] * 9)}, "ids: dtype |S1, expected integers or text"),
    "pickles": ({"note": np.array([None])}, "array 'note' holds pickled Python objects, expected numbers or text"),
}


@pytest.mark.parametrize("kind", ["rows.npz", "rows"])
@pytest.mark.parametrize("mistake", LAYOUTS)
def test_a_layout_that_does_not_fit_is_told(mistake: str, kind: str, model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    changes, message = LAYOUTS[mistake]
    source = write(tmp_path / kind, spoilt(**changes))
    with pytest.raises(DataError) as caught:
        nbridge.Model(model).impute(source, out=tmp_path / "out.npz")
    assert str(caught.value) == f"{source}: {message}"
    assert [path.name for path in tmp_path.iterdir()] == [kind]


TABLES: dict[str, tuple[dict[str, pa.Array], str]] = {
    "text": ({"x": pa.array(["a", "b"])}, "column 'x' is of type string, expected numbers, or lists of numbers"),
    "lists of text": (
        {"x": pa.array([["a"], ["b"]])},
        "column 'x' is of type list<element: string>, expected numbers, or lists of numbers",
    ),
    "no type": ({"x": pa.nulls(2)}, "column 'x' is of type null, expected numbers, or lists of numbers; leave out a column that holds"),
    "ragged": ({"x": pa.array([[1.0, 2.0, 3.0], [1.0]])}, "column 'x': row 1 holds 1 values, expected 3"),
    "too wide": ({"x": tabular(np.ones((2, 4)))}, "modality 'x': array of shape (2, 4), expected (rows, 3) or class indices (rows,)"),
    "nothing": ({"y": pa.array([1, 2])}, "no column for any modality (x, count, image, label). Found: y"),
    "misspelt": ({"x": tabular(np.ones((2, 3))), "counts": pa.array([1, 2])}, "column 'counts': no such modality. Did you mean 'count'?"),
    "a lone mask": ({"x__present": pa.array([True, True])}, "modality 'x': x__present is given without a column 'x'"),
    "a mask of text": (
        {"x": tabular(np.ones((2, 3))), "x__present": pa.array(["a", "b"])},
        "column 'x__present' is of type string, expected numbers, or lists of numbers",
    ),
    "ids of lists": ({"x": tabular(np.ones((2, 3))), "id": pa.array([[1], [2]])}, "ids: column of type list<element: int64>, expected"),
    "an id that is missing": (
        {"x": tabular(np.ones((2, 3))), "id": pa.array(["a", None])},
        "ids: row 1 has none, expected an identifier in each row",
    ),
}


@pytest.mark.parametrize("mistake", TABLES)
def test_a_table_that_does_not_fit_is_told(mistake: str, model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    columns, message = TABLES[mistake]
    source = tmp_path / "rows.parquet"
    parquet.write_table(pa.table(columns), source)
    with pytest.raises(DataError, match=f"^{re.escape(f'{source}: {message}')}"):
        nbridge.Model(model).impute(source, out=tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_damage_is_told(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    def refused(source: Path, message: str) -> None:
        with pytest.raises(DataError, match=f"^{re.escape(f'{source}: ')}{message}"):
            nbridge.Model(model).impute(source, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert leftovers(tmp_path) == []

    for name in ("rows.npz", "rows.parquet"):
        (tmp_path / name).write_text("x,y")
    refused(tmp_path / "rows.npz", "not an npz file; np.savez writes one$")
    refused(tmp_path / "rows.parquet", r"not a Parquet file, or damaged \(")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no npy file in this folder, expected one NAME.npy a modality$")
    source = write(tmp_path / "short", whole_rows())
    os.truncate(source / "x.npy", 200)
    refused(source, r"array 'x' is damaged \(mmap length is greater than file size\)$")
    source = write(tmp_path / "crc.npz", {**whole_rows(), "note": np.arange(1000)})
    content = bytearray(source.read_bytes())
    content[content.index(np.arange(900, 910).tobytes())] ^= 1
    source.write_bytes(content)
    refused(source, r"array 'note' is damaged \(Bad CRC-32 for file 'note.npy'\)$")
    source = write(tmp_path / "cut.npz", {key: array for key, array in whole_rows().items() if key != "x"})
    with zipfile.ZipFile(source, "a") as archive:
        np.save(tmp_path / "x.npy", whole_rows()["x"])
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-30])
    refused(source, r"array 'x' is damaged \(it ends within row 6\)$")
    source = write(tmp_path / "text.npz", whole_rows())
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("notes.txt", "a")
    refused(source, "'notes.txt' is not an array; np.savez writes them$")
    source = write(tmp_path / "texts", whole_rows())
    (source / "y.npy").write_text("a")
    refused(source, "y.npy is not an npy file; np.save writes one$")
    source = write(tmp_path / "pages.parquet", {"x": np.ones((9, 3))})
    content = source.read_bytes()
    source.write_bytes(content[:4] + b"\xff" * 40 + content[44:])
    refused(source, r"damaged Parquet file \(")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"shard": (5, 4)}, "shard 5/4: expected one from 1/4 to 4/4"),
        ({"shard": (0, 4)}, "shard 0/4: expected one from 1/4 to 4/4"),
        ({"shard": (1, 0)}, "shard 1/0: expected I/N, such as 1/4 for the first of four"),
        ({"out": "rows.npz"}, "rows.npz: is the input file; choose another"),
        ({"out": "no/out.npz"}, "no/out.npz: cannot be written (No such file or directory)"),
        ({"rows": "none.npz"}, "none.npz: no such file in "),
        ({"rows": "folder", "out": "mixed"}, "mixed: the folder contains other files (notes.txt); choose another"),
    ],
)
def test_a_request_that_cannot_be_met_is_told(
    options: dict[str, Any], message: str, model: nbridge.MultimodalVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("rows.npz", "folder", "mixed"):
        write(Path(kind), whole_rows())
    Path("mixed", "notes.txt").touch()
    with pytest.raises(DataError, match=f"^{re.escape(message)}"):
        nbridge.Model(model).impute(**{"rows": "rows.npz", "out": "out.npz", **options})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mixed", "rows.npz"]


# Whole or not at all


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_in_the_middle_leaves_the_older_file_and_nothing_else(
    kind: str, error: Any, model: nbridge.MultimodalVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / kind, whole_rows()), write(tmp_path / f"out.{kind}", whole_rows(3))
    before = contents(tmp_path)

    def progress(title: str, done: int, of: int) -> None:
        if title == "imputing" and done >= 8:
            raise error

    with pytest.raises(DataError if isinstance(error, OSError) else error) as caught:
        nbridge.Model(model).impute(source, out=target, samples=2, progress=progress)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{target}: cannot be written (No space left on device)"
    assert contents(tmp_path) == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_file_is_replaced(kind: str, model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    source, target = write(tmp_path / kind, whole_rows()), write(tmp_path / f"out.{kind}", spoilt(old=np.arange(9)))
    nbridge.Model(model).impute(source, out=target)
    assert "old" not in read(target)
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_older_one(
    model: nbridge.MultimodalVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path / "rows", whole_rows()), write(tmp_path / "out", whole_rows(3))
    before, rename = contents(tmp_path), Path.rename

    def failing(self: Path, other: Path) -> Path:
        if self.name == "arrays":
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        nbridge.Model(model).impute(source, out=target)
    assert contents(tmp_path) == before
    assert leftovers(tmp_path) == []


def test_progress_tells_the_checks_and_then_the_rows(model: nbridge.MultimodalVAE, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    rows = {key: array for key, array in whole_rows().items() if key in ("x", "label")}
    nbridge.Model(model).impute(
        write(tmp_path / "rows.npz", rows), out=tmp_path / "out.npz", shard=(2, 2), progress=lambda *all: told.append(all)
    )
    assert told[:3] == [("checking x", 4, 9), ("checking x", 8, 9), ("checking x", 9, 9)]
    assert told[-2:] == [("imputing", 4, 5), ("imputing", 5, 5)]


# On the command line


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Runs the command in this process, in the temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["nbridge", "impute", "model", *arguments])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        return left.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(("source", "target"), [("rows.npz", "out.npz"), ("rows", "out"), ("rows.parquet", "out.parquet")])
def test_the_command_writes_a_shard_of_every_kind(
    source: str, target: str, call: Callable[..., tuple[object, str, str]], tmp_path: Path
) -> None:
    model, spec = made(LIKELIHOODS, SHAPES)
    save_model(tmp_path / "model", model, spec)
    rows = whole_rows()
    rows["x"][::3] = NAN
    write(tmp_path / source, rows)
    done = call(source, "--out", target, "--samples", "2", "--seed", "3", "--shard", "2/2")
    counts = "imputed x 1, count 0, image 0, label 0; passed through id"
    assert done == (0, f"{target}: 5 rows of 9, starting at row 4; {counts}\n", "")
    expected = impute_arrays(model, rows, samples=2, seed=3)
    half = {key: array[:, 4:] if key in SHAPES else array[4:] for key, array in expected.items()}
    same(read(tmp_path / target), half, 2, target == "out.parquet")


COMMAND: dict[str, tuple[list[str], str]] = {
    "shard of none": (["rows.npz", "--out", "o.npz", "--shard", "0/4"], "--shard 0/4: expected one from 1/4 to 4/4"),
    "shard past the last": (["rows.npz", "--out", "o.npz", "--shard", "5/4"], "--shard 5/4: expected one from 1/4 to 4/4"),
    "no shard": (["rows.npz", "--out", "o.npz", "--shard", "x"], "--shard x: expected I/N, such as 1/4 for the first of four"),
    "of no shards": (["rows.npz", "--out", "o.npz", "--shard", "1/0"], "--shard 1/0: expected I/N, such as 1/4 for the first of four"),
    "an archive to a table": (["rows.npz", "--out", "o.parquet"], "--out o.parquet: expected a file that ends in .npz"),
    "a table to an archive": (["rows.parquet", "--out", "o.npz"], "--out o.npz: expected a file that ends in .parquet"),
    "a folder to a file": (["rows", "--out", "o.npz"], "--out o.npz: a file, expected a folder like rows"),
    "a folder to itself": (
        ["rows", "--out", "rows", "--overwrite"],
        "--out rows: this is the input folder; choose another path",
    ),
    "a folder that exists": (["rows", "--out", "old"], "--out old: exists already. Use --overwrite to replace it."),
}


@pytest.mark.parametrize("mistake", COMMAND)
def test_a_command_that_cannot_be_met_costs_one_line(mistake: str, call: Callable[..., tuple[object, str, str]], tmp_path: Path) -> None:
    arguments, message = COMMAND[mistake]
    for name in ("rows.npz", "rows.parquet", "rows", "old"):
        write(tmp_path / name, whole_rows())
    before = contents(tmp_path)
    assert call(*arguments) == (2, "", f"{message}\n")
    assert contents(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stored.npz", "folder", "table.parquet"])
def test_memory_does_not_grow_with_the_file(kind: str, tmp_path: Path) -> None:
    model, spec = made({"x": "normal", "label": "categorical"}, {"x": (3,), "label": (3,)})
    save_model(tmp_path / "model", model, spec)
    code = (
        "import sys, nbridge; from pathlib import Path\n"
        "for source in sys.argv[1:]:\n"
        "    nbridge.load('model').impute(source, out=source.replace('rows.', 'out.'), samples=1)\n"
        "    print(next(line.split()[1] for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')))"
    )
    files, rng = [], np.random.default_rng(0)
    # Few numbers to fill in, and 32 MB beside them that pass through; then five times as much.
    for rows in (4_000, 20_000):
        x = rng.normal(size=(rows, 3)).astype(np.float32)
        x[::4] = NAN
        wide = rng.random((rows, 2000), np.float32)
        files.append(write(tmp_path / f"{rows}rows.{kind}", {"x": x, "label": np.zeros(rows, int), "wide": wide}, rows))
    exit_code, output, errors = Started(Script(code), "script", *files, folder=tmp_path).ended()
    assert exit_code == 0, errors
    few, many = (int(line) / 1024 for line in output.split())
    assert many < few + 64, "mebibytes, of 128 more"
