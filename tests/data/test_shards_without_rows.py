"""Shards of which some have no row: each is a file with the columns of the whole, and all of them together are the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from completing import impute_rows
from pyarrow import parquet

import nbridge

ROWS = 7
SHARDS = 5
OPTIONS: dict[str, dict[str, Any]] = {"estimate": {}, "draws": {"samples": 2}, "intervals": {"intervals": (0.5, 0.9)}}


def trained(source: dict[str, Any], shapes: dict[str, tuple[int, str]], data: Any = None) -> nbridge.MultimodalVAE:
    modalities = {name: {"shape": shape, "encoder": "mlp", "likelihood": kind} for name, (shape, kind) in shapes.items()}
    training = {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}
    document = {"latent_dim": 2, "modalities": modalities, "training": training, **({"data": source} if source else {})}
    return nbridge.train(document, data=data).model


def columns(rows: int = 40) -> dict[str, list[Any]]:
    rng = np.random.default_rng(0)
    return {
        "id": [f"r{row}" for row in range(rows)],
        "a": rng.normal(size=rows).round(2).tolist(),
        "b": rng.normal(size=rows).round(2).tolist(),
        "kind": [("u", "v", "w")[row % 3] for row in range(rows)],
        "flag": [row % 2 for row in range(rows)],
    }


def with_holes() -> dict[str, list[Any]]:
    """Rows observed in part, rows that lack a modality, and a modality that no row has."""
    cells = {name: list(values[:ROWS]) for name, values in columns().items()}
    cells["a"][1] = cells["b"][2] = cells["a"][3] = cells["b"][3] = cells["kind"][0] = None
    return {**cells, "flag": [None] * ROWS, "note": ["x"] * ROWS}


@pytest.fixture(scope="module")
def of_tables(tmp_path_factory: pytest.TempPathFactory) -> nbridge.MultimodalVAE:
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    write(path, columns())
    source = {"source": "table", "path": str(path), "columns": {"lab": ["a", "b"]}}
    return trained(source, {"lab": (2, "normal"), "kind": (3, "categorical"), "flag": (1, "bernoulli")})


def write(path: Path, cells: dict[str, list[Any]]) -> None:
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(cells), path)
        return
    rows = zip(*cells.values(), strict=True)
    path.write_text("\n".join([",".join(cells), *(",".join("" if cell is None else str(cell) for cell in row) for row in rows), ""]))


def shards(model: nbridge.MultimodalVAE, source: Path, ending: str, options: dict[str, Any]) -> tuple[Path, list[Path]]:
    """The whole, and all shards, of which only the last has rows."""
    whole = source.with_name("whole" + ending)
    impute_rows(model, source, whole, **options)
    made: list[Path] = []
    for number in range(1, SHARDS + 1):
        made.append(source.with_name(f"part_{number}{ending}"))
        done = impute_rows(model, source, made[-1], shard=(number, SHARDS), **options)
        assert (done.start < done.stop) == (number == SHARDS)
    return whole, made


@pytest.mark.parametrize("options", OPTIONS)
def test_shards_of_a_csv_file_have_its_header_and_are_the_whole(of_tables: Any, tmp_path: Path, options: str):
    write(tmp_path / "rows.csv", with_holes())
    whole, parts = shards(of_tables, tmp_path / "rows.csv", ".csv", OPTIONS[options])
    header, *rows = whole.read_text().splitlines()
    lines = [part.read_text().splitlines() for part in parts]
    assert {first for first, *_ in lines} == {header}
    assert [line for _, *own in lines for line in own] == rows


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["plain", "dictionary"])
def test_shards_of_a_table_in_parquet_have_its_schema_and_are_the_whole(of_tables: Any, tmp_path: Path, options: str, kind: str):
    given = pa.table(with_holes())
    if kind == "dictionary":
        given = given.set_column(3, "kind", given.column("kind").dictionary_encode())
    assert str(given.schema.field("flag").type) == "null"
    parquet.write_table(given, tmp_path / "rows.parquet")
    same_tables(*shards(of_tables, tmp_path / "rows.parquet", ".parquet", OPTIONS[options]))


@pytest.mark.parametrize("options", OPTIONS)
def test_shards_with_rows_have_the_schema_of_those_without(of_tables: Any, tmp_path: Path, options: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 4)
    parquet.write_table(pa.table(with_holes()), tmp_path / "rows.parquet")
    parts = [tmp_path / f"part_{number}.parquet" for number in range(1, SHARDS + 1)]
    done = [
        impute_rows(of_tables, tmp_path / "rows.parquet", part, shard=(number, SHARDS), **OPTIONS[options])
        for number, part in enumerate(parts, start=1)
    ]
    assert 0 < sum(one.start == one.stop for one in done) < SHARDS - 1
    impute_rows(of_tables, tmp_path / "rows.parquet", tmp_path / "whole.parquet", **OPTIONS[options])
    same_tables(tmp_path / "whole.parquet", parts)


@pytest.mark.parametrize("options", OPTIONS)
def test_shards_of_lists_are_the_whole(tmp_path: Path, options: str):
    rng = np.random.default_rng(0)
    lists = {"face": rng.normal(size=(40, 3)).tolist(), "y": rng.normal(size=40).tolist()}
    write(tmp_path / "train.parquet", lists)
    shapes = {"face": (3, "normal"), "y": (1, "normal")}
    cells = {"face": [None, [1.0, None, 2.0], *lists["face"][2:ROWS]], "y": [None, *lists["y"][1:ROWS]]}
    write(tmp_path / "rows.parquet", cells)
    for source in ("table", "parquet"):
        model = trained({"source": source, "path": str(tmp_path / "train.parquet")}, shapes)
        same_tables(*shards(model, tmp_path / "rows.parquet", ".parquet", OPTIONS[options]))


def same_tables(whole: Path, parts: list[Path]) -> None:
    found, expected = [parquet.read_table(part) for part in parts], parquet.read_table(whole)
    assert all(part.schema.equals(expected.schema) for part in found)
    assert pa.concat_tables(found).equals(expected)


@pytest.mark.parametrize("options", OPTIONS)
def test_shards_of_arrays_are_the_whole(tmp_path: Path, options: str):
    rng = np.random.default_rng(0)
    model = trained({}, {"x": (2, "normal"), "k": (3, "categorical")}, {"x": rng.normal(size=(40, 2)), "k": np.arange(40) % 3})
    np.savez(tmp_path / "rows.npz", x=[[1.0, 2], [np.nan, 1], [np.nan, np.nan]], k=[0, np.nan, 2])
    whole, parts = shards(model, tmp_path / "rows.npz", ".npz", OPTIONS[options])
    expected, found = np.load(whole), [np.load(part) for part in parts]
    for key, array in expected.items():
        own = [part[key] for part in found]
        axis = 0 if len(array) == 3 else 1
        assert {one.dtype for one in own} == {array.dtype}
        assert np.array_equal(np.concatenate(own, axis), array)
