"""Endings of file names: upper-case ones mean what lower-case ones do, wherever a file is read or written by its name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from completing import impute_rows
from omics import study
from omics import write as write_omics
from pyarrow import parquet

import nbridge
from nbridge.data.numpy.npy import NPYFolder
from nbridge.data.tables.parquet import Parquet
from nbridge.data.tables.source import Table
from nbridge.draft.draft import init

SHAPES = {"x": (2,), "y": (1,)}
COLUMNS: dict[str, Any] = {"x": ("a", "b")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBRIDGE_DATA", raising=False)
    return tmp_path


def cells() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=40).round(3).tolist() for name in ("a", "b", "y")}


def as_text(delimiter: str, rows: dict[str, list[float]]) -> bytes:
    lines = [delimiter.join(rows), *(delimiter.join(map(str, row)) for row in zip(*rows.values(), strict=True))]
    return ("\n".join(lines) + "\n").encode()


def write(path: Path, rows: dict[str, list[float]]) -> Path:
    name = path.name.lower()
    if name.endswith(".parquet"):
        parquet.write_table(pa.table(rows), path)
    else:
        content = as_text("\t" if ".tsv" in name else ",", rows)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("name", ["X.CSV.GZ", "X.Csv", "X.TSV", "X.tsv.Gz", "X.PARQUET"])
def test_a_table_is_the_same_whatever_the_case_of_its_ending(here: Path, name: str):
    lower, upper = (write(here / one, cells()) for one in (f"plain.{name.partition('.')[2].lower()}", name))
    plain, found = (Table(path=str(path), columns=COLUMNS).load(SHAPES).batch for path in (lower, upper))
    assert isinstance(plain, nbridge.Batch)
    assert isinstance(found, nbridge.Batch)
    assert all(found.values[key].equal(plain.values[key]) for key in SHAPES)
    upper_text, lower_text = (init([str(path)]).text.partition("data:")[2] for path in (upper, lower))
    # The modality of a table has the name of its file.
    assert upper_text.replace(name, lower.name).replace(" X:", " plain:") == lower_text


def test_a_table_of_one_column_is_split_by_the_delimiter_of_its_ending(here: Path):
    (here / "X.TSV").write_bytes(b'"a,b"\n1\n2\n')
    assert Table(path="X.TSV", columns={"x": "a,b"}).load({"x": (1,)}).batch.values["x"].tolist() == [[1], [2]]


def model() -> nbridge.MultimodalVAE:
    spec = {
        "model": "bridged",
        "latent_dim": 2,
        "data": {"source": "table", "path": "rows.csv", "columns": COLUMNS},
        "modalities": {name: {"shape": shape, "encoder": "mlp", "likelihood": "normal"} for name, shape in SHAPES.items()},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }
    write(Path("rows.csv"), cells())
    return nbridge.train(spec).model


def test_what_is_written_is_packed_where_its_name_says_so_in_upper_case(here: Path):
    given = write(here / "GIVEN.CSV.GZ", cells())
    impute_rows(model(), given, here / "DONE.CSV.GZ")
    header, *lines = gzip.decompress((here / "DONE.CSV.GZ").read_bytes()).decode().splitlines()
    assert header == "a,b,y,x__imputed,y__imputed"
    assert [line.rsplit(",", 2)[0] for line in lines] == as_text(",", cells()).decode().splitlines()[1:]


def test_arrays_of_a_folder_and_parts_of_a_table_are_found_by_upper_case_endings(here: Path):
    arrays = {"x": np.arange(12.0).reshape(6, 2), "y": np.arange(6.0)}
    (here / "arrays").mkdir()
    for key, array in arrays.items():
        with (here / "arrays" / f"{key}.NPY").open("wb") as file:
            np.save(file, array)
    assert NPYFolder(path="arrays").load(SHAPES).batch.sample().values["x"].tolist() == arrays["x"].tolist()
    impute_rows(model(), here / "arrays", here / "done")
    assert (np.load(here / "done" / "x.npy") == arrays["x"]).all()

    (here / "parts").mkdir()
    write(here / "parts" / "1.PARQUET", cells())
    assert len(Parquet(path="parts", columns=COLUMNS).load(SHAPES).batch) == 40


def test_archives_and_multi_omics_are_known_by_upper_case_endings(here: Path):
    with (here / "ROWS.NPZ").open("wb") as file:
        np.savez(file, x=np.random.default_rng(0).normal(size=(40, 2)))
    assert list(init(["ROWS.NPZ"]).spec.modalities) == ["x"]
    write_omics(here / "cells.h5mu", study(rows=40))
    (here / "cells.h5mu").rename(here / "CELLS.H5MU")
    found = init(["CELLS.H5MU"]).spec
    assert (found.data.source.type, found.data.source.kwargs["path"]) == ("h5mu", "CELLS.H5MU")
