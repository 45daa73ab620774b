"""Parquet: columns and lists as modalities, and what is wrong with each that doesn't fit, in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nbridge.data.tables import parquet as source
from nbridge.data.tables.parquet import Parquet
from nbridge.errors import DataError

SHAPES = {"x": (2, 2), "y": (3,)}
NAN = float("nan")
LISTS = [[1.0, 2, 3, 4], None, [5.0, NAN, None, 8]]
TABLE: dict[str, Any] = {"x": LISTS, "y": [0, 2, None], "g_1": [1, 2, 3], "g_10": [4.5, None, 6], "g_2": [True, False, None]}


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return write(tmp_path / "rows.parquet")


def write(path: Path, group: int = 2, **columns: Any) -> Path:
    pq.write_table(
        pa.table({name: column for name, column in {**TABLE, **columns}.items() if column is not None}), path, row_group_size=group
    )
    return path


def test_lists_and_numbers_are_read_and_null_and_nan_mark_what_is_absent(path: Path):
    batch = Parquet(path="rows.parquet").load(SHAPES).batch.sample()
    assert batch.present["x"].tolist() == [True, False, True]
    assert batch.values["x"].tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 0], [0, 8]]]
    assert batch.cells["x"].flatten(1).tolist() == [[True] * 4, [False] * 4, [True, False, False, True]]
    assert (batch.values["y"].tolist(), batch.present["y"].tolist()) == ([0, 2, 0], [True, True, False])


def test_columns_are_named_by_pattern_in_the_order_of_the_file_or_one_by_one(path: Path):
    found = Parquet(path="rows.parquet", columns={"z": "g_*"}).load({"z": (3,)}).batch.sample()
    assert found.values["z"].tolist() == [[1, 4.5, 1], [2, 0, 0], [3, 6, 0]]
    assert found.cells["z"].tolist() == [[True] * 3, [True, False, True], [True, True, False]]
    found = Parquet(path="rows.parquet", columns={"z": ("g_2", "g_1")}).load({"z": (1, 2)}).batch.sample()
    assert found.values["z"].flatten(1).tolist() == [[1, 1], [0, 2], [0, 3]]
    found = Parquet(path="rows.parquet", columns={"z": "g_1"}).load({"z": (1,)}).batch.sample()
    assert found.values["z"].tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.uint8(), 2), pa.list_(pa.int32()), pa.large_list(pa.float64()), pa.list_(pa.bool_()), pa.list_(pa.float32(), 2)]
)
@pytest.mark.parametrize("group", [1, 2, 100])
def test_lists_of_every_kind_are_read(tmp_path: Path, kind: Any, group: int):
    write(tmp_path / "rows.parquet", group, x=pa.array([[False, True], None, [True, True]], pa.list_(pa.bool_())).cast(kind))
    found = Parquet(path=str(tmp_path / "rows.parquet")).load({"x": (2,)}).batch.sample()
    assert found.values["x"].tolist() == [[0, 1], [0, 0], [1, 1]]
    assert found.present["x"].tolist() == [True, False, True]
    assert not found.cells


def test_files_of_a_folder_follow_each_other_by_name(tmp_path: Path):
    for name, label in (("b", 1), ("a", 0), ("c", 2)):
        write(tmp_path / f"{name}.parquet", y=[label] * 3, id=[f"{name}{i}" for i in range(3)])
    (tmp_path / "_metadata.parquet").write_text("passed over")
    (tmp_path / "notes.txt").write_text("passed over")
    dataset = Parquet(path=str(tmp_path)).load(SHAPES)
    assert dataset.ids is not None
    assert dataset.ids.tolist() == ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"]
    assert dataset.batch.sample().values["y"].tolist() == [0] * 3 + [1] * 3 + [2] * 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": None}, "no column 'x'. Found: y, g_1, g_10, g_2"),
        ({"x": None, "xs": LISTS}, "no column 'x'. Did you mean 'xs'? Found: y, g_1, g_10, g_2, xs"),
        ({"y": ["a", "b", "c"]}, "modality 'y': column 'y' of type string, expected numbers, or lists of numbers"),
        ({"x": [["a"], ["b"], ["c"]]}, "modality 'x': column 'x' of type list<element: string>, expected numbers, or lists of numbers"),
        ({"x": [[1, 2, 3, 4], [1, 2, 3], None]}, "modality 'x': row 1 holds 3 values, expected 4, or null where it is absent"),
        ({"x": [[1, 2, 3, 4], None, []]}, "modality 'x': row 2 holds 0 values, expected 4, or null where it is absent"),
        ({"x": [1.0, 2, 3]}, "modality 'x': one column of numbers for a shape of (2, 2), expected 4 columns, or one of lists of 4"),
        ({"y": [0, 2, 4]}, "modality 'y': row 2 holds 4, expected a class index from 0 to 2"),
        ({"y": pa.array([None] * 3, pa.int8())}, "modality 'y': present in none of the 3 rows, expected at least one"),
        ({"id": [4, 4, 5]}, "ids: duplicate 4 in row 0 and row 1"),
        ({"id": ["a", None, "b"]}, "ids: row 1 has none, expected an identifier in each row"),
    ],
)
def test_a_file_that_does_not_fit_is_named(path: Path, columns: dict[str, Any], message: str):
    write(path, **columns)
    with refused(f"{path}: {message}"):
        Parquet(path="rows.parquet").load(SHAPES)


def test_options_that_do_not_fit_are_named(path: Path):
    refusals = [
        ({"z": "x"}, "columns: 'z' is not a modality. Modalities: x, y"),
        ({"y": "g*x"}, f"{path}: no column 'g*x' for modality 'y'. Found: x, y, g_1, g_10, g_2"),
        ({"y": ("g_1", "g_3")}, f"{path}: no column 'g_3' for modality 'y'. Did you mean 'g_2'? Found: x, y, g_1, g_10, g_2"),
        ({"y": ("g_1", "g_*")}, "columns: modality 'y': duplicate column 'g_1'"),
        ({"y": ("g_1", "g_2")}, f"{path}: modality 'y': 2 columns, expected 3, one for each element of the shape (3,)"),
        ({"y": ("g_1", "x", "g_2")}, f"{path}: modality 'y': column 'x' holds lists, expected one column of lists, or several of numbers"),
    ]
    for columns, message in refusals:
        with refused(message):
            Parquet(path="rows.parquet", columns=columns).load(SHAPES)
    with refused(f"{path}: no column 'key'. Found: x, y, g_1, g_10, g_2"):
        Parquet(path="rows.parquet", id="key").load(SHAPES)


def test_a_mistake_in_a_folder_names_the_file_and_the_row_in_it(tmp_path: Path):
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", x=[[1, 2, 3, 4], None, [1]])
    with refused(f"{tmp_path / 'b.parquet'}: modality 'x': row 2 holds 1 values, expected 4, or null where it is absent"):
        Parquet(path=str(tmp_path)).load(SHAPES)
    write(tmp_path / "b.parquet", y=None, why=[0, 1, 2])
    with refused(f"{tmp_path / 'b.parquet'}: no column 'y'. Found: x, g_1, g_10, g_2, why"):
        Parquet(path=str(tmp_path)).load(SHAPES)
    write(tmp_path / "b.parquet", y=[[0.0, 1, 0]] * 3)
    with refused(f"{tmp_path / 'b.parquet'}: column 'y' of type list<element: double>, but int64 in a.parquet"):
        Parquet(path=str(tmp_path)).load(SHAPES)


def test_what_is_missing_empty_or_damaged_is_named(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hint = f"in {tmp_path}; set NBRIDGE_DATA to the folder that holds your data, or write an absolute path"
    with refused(f"none.parquet: no such file or folder {hint}"):
        Parquet(path="none.parquet").load(SHAPES)
    (tmp_path / "folder").mkdir()
    with refused(f"{tmp_path / 'folder'}: no file *.parquet in this folder"):
        Parquet(path="folder").load(SHAPES)
    whole = path.read_bytes()
    for size in (0, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: not a parquet file, or truncated or damaged \([^\n]+\)$"):
            Parquet(path="rows.parquet").load(SHAPES)
    pq.write_table(pa.table(TABLE).slice(0, 0), path)
    with refused(f"{path}: no rows"):
        Parquet(path="rows.parquet").load(SHAPES)


def test_a_file_that_is_damaged_within_is_told_when_it_is_opened(path: Path):
    whole = bytearray(path.read_bytes())
    whole[4:120] = bytes(116)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: "):
        Parquet(path="rows.parquet").load(SHAPES)


def test_row_groups_larger_than_memory_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "LIMIT", 2 * 7 * 4)
    with refused(f"{path}: row group 0 holds 2 rows, too many to read at once; write the file again with row groups of 1 rows or so"):
        Parquet(path="rows.parquet").load(SHAPES)


def test_whole_numbers_beside_nulls_in_another_row_group_are_one_modality(tmp_path: Path):
    write(tmp_path / "rows.parquet", 1, y=[2, None, 1])
    rows = Parquet(path=str(tmp_path / "rows.parquet")).load({"y": (3,)}).batch
    assert rows.sample().values["y"].dtype == rows.slice(1, 2).values["y"].dtype
    assert np.asarray(rows.sample().values["y"]).tolist() == [2, 0, 1]
