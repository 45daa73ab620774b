"""Completed Parquet files and Arrow tables keep the metadata of their schema, and pandas reads the same index and dtypes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import nbridge

ROWS = 24
STAGES = {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}
INDEXES = {
    "text": pd.Index([f"p{row}" for row in range(ROWS)]),
    "named": pd.Index(np.arange(ROWS) * 7, name="patient"),
    "dates": pd.date_range("2024-01-01", periods=ROWS, tz="Europe/Berlin"),
    "range": pd.RangeIndex(5, 5 + 3 * ROWS, 3),
    "two levels": pd.MultiIndex.from_arrays([np.arange(ROWS) // 2, list("ab") * (ROWS // 2)], names=["who", None]),
}


def frame(index: Any = None) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(
        {
            "x": rng.normal(size=ROWS),
            "stage": pd.Categorical.from_codes(np.arange(ROWS) % 2, ["I", "II"], ordered=True),
            "visits": pd.array(np.arange(ROWS), "Int64"),
            "seen": pd.date_range("2020-02-01", periods=ROWS, tz="UTC"),
        },
        index=index,
    )
    made.iloc[3:9, 0], made.iloc[11:14, 1], made.iloc[2, 2] = np.nan, None, pd.NA
    return made


def spec(path: Path) -> dict[str, Any]:
    return {
        "data": {"source": "table", "path": str(path), "classes": {"stage": ["I", "II"]}},
        "modalities": {
            "x": {"shape": 1, "encoder": "mlp", "likelihood": "normal"},
            "stage": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"},
        },
        "training": {"stages": STAGES},
    }


def with_own_metadata(path: Path) -> None:
    """Adds metadata of the file and of a column, as other programs write them."""
    table = parquet.read_table(path)
    place = table.schema.get_field_index("x")
    schema = table.schema.set(place, table.schema.field("x").with_metadata({b"unit": b"mg"}))
    parquet.write_table(table.cast(schema.with_metadata({**schema.metadata, b"study": b"A"})), path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Model:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    frame().to_parquet(path)
    return nbridge.train(spec(path)).model


def same_but_filled(done: pd.DataFrame, given: pd.DataFrame) -> None:
    """The index, the columns, their dtypes and the observed cells of the input."""
    pd.testing.assert_index_equal(done.index, given.index)
    kept = done[list(given.columns)]
    pd.testing.assert_series_equal(kept.dtypes, given.dtypes)
    assert not done[["x", "stage"]].isna().any(axis=None)
    pd.testing.assert_frame_equal(kept.where(given.notna(), given), given, check_freq=False)


@pytest.mark.parametrize("kind", INDEXES)
def test_a_completed_file_has_the_metadata_and_the_index_of_its_input(kind: str, model: nbridge.Model, tmp_path: Path):
    given = frame(INDEXES[kind])
    given.to_parquet(tmp_path / "rows.parquet")
    with_own_metadata(tmp_path / "rows.parquet")
    model.impute(tmp_path / "rows.parquet", tmp_path / "done.parquet", intervals=(0.9,), draws=20)
    done = pd.read_parquet(tmp_path / "done.parquet")
    same_but_filled(done, given)
    new = {"x__imputed": "bool", "stage__imputed": "bool", "x__mean": "float64", "stage__probability": "float64"}
    assert done[list(new)].dtypes.astype(str).to_dict() == new
    schema = parquet.read_schema(tmp_path / "done.parquet")
    assert schema.metadata[b"study"] == b"A"
    assert schema.field("x").metadata[b"unit"] == b"mg"


def test_completed_twice_the_columns_are_described_once(model: nbridge.Model, tmp_path: Path):
    frame(INDEXES["text"]).to_parquet(tmp_path / "rows.parquet")
    model.impute(tmp_path / "rows.parquet", tmp_path / "once.parquet")
    model.impute(tmp_path / "once.parquet", tmp_path / "twice.parquet")
    once, twice = (parquet.read_schema(tmp_path / f"{name}.parquet") for name in ("once", "twice"))
    assert twice.equals(once, check_metadata=True)
    described = [one["field_name"] for one in twice.pandas_metadata["columns"]]
    assert described == [*frame().columns, "__index_level_0__", "x__imputed", "stage__imputed"]


@pytest.mark.parametrize("kind", ["text", "range"])
def test_shards_have_the_index_of_their_rows(kind: str, model: nbridge.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 4)
    given = frame(INDEXES[kind])
    given.to_parquet(tmp_path / "rows.parquet")
    for number in (1, 2, 3):
        model.impute(tmp_path / "rows.parquet", tmp_path / f"{number}.parquet", shard=(number, 3))
    same_but_filled(pd.concat([pd.read_parquet(tmp_path / f"{number}.parquet") for number in (1, 2, 3)]), given)


@pytest.mark.parametrize("names", [[0, 1, 2, 3], pd.MultiIndex.from_product([["a", "b"], ["c", "d"]])])
def test_names_of_columns_that_are_no_text_come_back_as_text(names: Any, tmp_path: Path):
    given = frame()
    given.columns = names
    given.to_parquet(tmp_path / "rows.parquet")
    x, stage, *_ = (str(name) for name in given.columns)
    own = spec(tmp_path / "rows.parquet")
    own["data"] |= {"classes": {stage: ["I", "II"]}, "columns": {"x": [x], "stage": [stage]}}
    nbridge.train(own).model.impute(tmp_path / "rows.parquet", tmp_path / "done.parquet")
    done = pd.read_parquet(tmp_path / "done.parquet")
    assert list(done.columns) == [*map(str, given.columns), "x__imputed", "stage__imputed"]
    assert list(map(str, done.dtypes)) == [*map(str, given.dtypes), "bool", "bool"]


def test_joined_tables_keep_their_own_metadata(tmp_path: Path):
    given = frame().assign(id=[f"p{row}" for row in range(ROWS)])
    left, right = given[["id", "x", "visits"]].set_index("id"), given.loc[5:, ["id", "stage"]].set_index("id")
    left.to_parquet(tmp_path / "left.parquet")
    right.to_parquet(tmp_path / "right.parquet")
    with_own_metadata(tmp_path / "left.parquet")
    own = spec(tmp_path)
    own["data"]["path"] = [str(tmp_path / "left.parquet"), str(tmp_path / "right.parquet")]
    nbridge.train(own).model.impute([tmp_path / "left.parquet", tmp_path / "right.parquet"], tmp_path / "done")
    done = {name: pd.read_parquet(tmp_path / "done" / f"{name}.parquet") for name in ("left", "right")}
    assert parquet.read_schema(tmp_path / "done" / "left.parquet").metadata[b"study"] == b"A"
    assert parquet.read_schema(tmp_path / "done" / "left.parquet").field("x").metadata[b"unit"] == b"mg"
    assert done["left"].index.tolist() == left.index.tolist()
    assert done["right"].index.tolist() == [*right.index, *left.index[:5]]
    assert done["left"]["visits"].dtype == "Int64"
    assert done["right"]["stage"].dtype == given["stage"].dtype


def test_columns_of_lists_keep_metadata_in_files_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model of arrays completes a Parquet file of lists."""
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 4)
    rng = np.random.default_rng(0)
    given = pd.DataFrame({"x": list(rng.normal(size=(ROWS, 3))), "y": rng.normal(size=ROWS), "n": pd.array([1, None] * 12, "Int64")})
    given.index = INDEXES["range"]
    given.iloc[4:9, 1] = np.nan
    given.to_parquet(tmp_path / "rows.parquet")
    part = {"encoder": "mlp", "likelihood": "normal"}
    own = {"modalities": {"x": {"shape": 3, **part}, "y": {"shape": 1, **part}}, "training": {"stages": STAGES}}
    model = nbridge.train(own, {"x": np.stack(given["x"]), "y": given[["y"]].to_numpy()}).model
    with_own_metadata(tmp_path / "rows.parquet")
    model.impute(tmp_path / "rows.parquet", tmp_path / "done.parquet")
    for number in (1, 2):
        model.impute(tmp_path / "rows.parquet", tmp_path / f"{number}.parquet", shard=(number, 2))
    whole, parts = pd.read_parquet(tmp_path / "done.parquet"), [pd.read_parquet(tmp_path / f"{number}.parquet") for number in (1, 2)]
    pd.testing.assert_index_equal(whole.index, given.index)
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    assert whole["n"].dtype == "Int64"
    assert parquet.read_schema(tmp_path / "done.parquet").field("x").metadata[b"unit"] == b"mg"
    model.impute(tmp_path / "rows.parquet", tmp_path / "drawn.parquet", samples=2)
    assert [np.shape(draws) for draws in pd.read_parquet(tmp_path / "drawn.parquet")["y"]] == [(2,)] * ROWS


@pytest.mark.parametrize("batch", [False, True])
def test_a_table_in_memory_keeps_metadata(batch: bool, model: nbridge.Model):
    given = frame(INDEXES["named"])
    table = pa.Table.from_pandas(given)
    table = table.replace_schema_metadata({**table.schema.metadata, b"study": b"A"})
    done = model.impute(table.to_batches()[0] if batch else table, intervals=(0.9,), draws=20)
    assert done.schema.metadata[b"study"] == b"A"
    same_but_filled(done.to_pandas(), given)


def test_a_damaged_description_is_kept_as_it_is(model: nbridge.Model, tmp_path: Path):
    table = pa.Table.from_pandas(frame()).replace_schema_metadata({b"pandas": b"[1", b"study": b"A"})
    parquet.write_table(table, tmp_path / "rows.parquet")
    model.impute(tmp_path / "rows.parquet", tmp_path / "done.parquet")
    assert parquet.read_schema(tmp_path / "done.parquet").metadata == {b"pandas": b"[1", b"study": b"A"}
